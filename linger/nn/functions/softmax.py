"""Softmax and log-softmax in every spelling (files are read back in ``function_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.chip import OPERATORS, limits_of
from linger.nn.functional import FunctionalLayer, common_attributes, platform_here
from linger.runtime import HANDLERS, Tape, factory, handles, info, operator_at_site


class SoftmaxInt(FunctionalLayer):
    """Softmax of a quantized tensor along its last axis, as the chip computes it.

    Shape:
        (..., n) -> the same, float32 on a power-of-two grid, tagged with its format. Other axes are transposed to the end.

    Source: docs/numerics.md, "Softmax".
    """

    operator, node, log = "softmax", "SoftmaxInt", False
    real: Callable[..., Tensor] = staticmethod(torch.softmax)

    def forward(self, x: Tensor) -> Tensor:
        """The chip's integers in forward; the Jacobian product (log-softmax: at the quantized operand) in backward."""

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            return ops.softmax(operands[0], out, chip=limits_of(self.quant.platform).formulas, log=self.log)

        return self.compute((x,), lambda t: type(self).real(t, -1), integers, self._write)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, y: Tensor) -> None:
        (x,) = operands
        fmt = info(x.value)
        bits, given = self.output_quantizer.bits, 8 if fmt is None else max(fmt.bits, 8)
        if bits != given:
            tape.violations.append(
                f"{self.name}: {self.operator} from {given} to {bits} bits, the chip's result has the width of its operand"
            )
        attributes = common_attributes(tape) | {
            "axis": -1,
            "dim": -1,
            "x_bits": given,
            "o_bits": given,
            "scale_x": float(x.scale),
            "scale_o": float(out.scale),
        }
        tape.node(self.node, [x.value], [y], attributes, domain="linger", hint=self.name)


class LogSoftmaxInt(SoftmaxInt):
    """Log-softmax of a quantized tensor along its last axis, as the chip computes it; shapes as :class:`SoftmaxInt`.

    Source: docs/numerics.md, "Softmax".
    """

    operator, node, log = "log_softmax", "LogSoftmaxInt", True
    real = staticmethod(torch.log_softmax)


@factory("softmax")
def _make_softmax(n_inputs: int, quant: Any) -> SoftmaxInt:
    return SoftmaxInt(n_inputs, quant)


@factory("logsoftmax")
def _make_log_softmax(n_inputs: int, quant: Any) -> LogSoftmaxInt:
    return LogSoftmaxInt(n_inputs, quant)


def at_last_axis(x: Tensor, dim: int, operator: str) -> Tensor:
    """The operator of this call site on ``x`` with axis ``dim`` moved to the end, and its result moved back."""
    dim %= x.dim()
    if dim == x.dim() - 1:
        return cast(Tensor, operator_at_site(operator, 1)(x))
    move = HANDLERS[torch.movedim]
    y = cast(Tensor, operator_at_site(operator, 1)(move(torch.movedim, (x, dim, -1), {})))
    return cast(Tensor, move(torch.movedim, (y, -1, dim), {}))


def _softmax_at_site(
    node: str, operator: str, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x, dim, dtype = given.pop("input", given.pop("self", None)), given.pop("dim", None), given.pop("dtype", None)
    given.pop("_stacklevel", None)
    if given or not isinstance(x, Tensor) or x.dim() == 0 or dtype not in (None, x.dtype):
        return NotImplemented
    if info(x) is None or OPERATORS[node][platform_here()].kind == "island":
        return NotImplemented
    if dim is None:  # torch's implicit choice
        dim = 0 if x.dim() in (1, 3) else 1
    if not isinstance(dim, int) or not -x.dim() <= dim < x.dim():
        return NotImplemented
    return at_last_axis(x, dim, operator)


_METHOD, _FUNCTION = ("input", "dim", "dtype"), ("input", "dim", "_stacklevel", "dtype")


@handles("softmax", "torch.softmax Tensor.softmax special.softmax")
def _softmax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _softmax_at_site("SoftmaxInt", "softmax", _METHOD, args, kwargs)


@handles("softmax", "F.softmax")
def _functional_softmax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _softmax_at_site("SoftmaxInt", "softmax", _FUNCTION, args, kwargs)


@handles("log_softmax", "torch.log_softmax Tensor.log_softmax special.log_softmax")
def _log_softmax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _softmax_at_site("LogSoftmaxInt", "logsoftmax", _METHOD, args, kwargs)


@handles("log_softmax", "F.log_softmax")
def _functional_log_softmax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _softmax_at_site("LogSoftmaxInt", "logsoftmax", _FUNCTION, args, kwargs)


__all__ = ["LogSoftmaxInt", "SoftmaxInt", "at_last_axis"]
