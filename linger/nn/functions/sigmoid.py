"""Sigmoid and tanh in every spelling (files are read back in ``function_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from linger import ops
from linger.chip import curve_of, limits_of
from linger.errors import UnsupportedError
from linger.nn.base import accept, calibrate_input, emit
from linger.nn.functional import FunctionalLayer, common_attributes, store
from linger.nn.nodes.requant import write_requant
from linger.quantizers import in_float
from linger.runtime import Format, Tape, Value, current_tape, factory, handles, info, operator_at_site, tag

_COARSEST = 3  # int8 at 2**3 reaches 16, where both functions have their limit: coarser codes may saturate there


def _say_format(layer: nn.Module, *_: Any) -> None:
    """The output quantizer, which is there for the keys of 3.x checkpoints, says what the scale is; it decides nothing."""
    quantizer = cast(_Curve, layer).output_quantizer
    if quantizer.method == "MOM":
        quantizer.running_data.fill_(1.0)
    else:
        quantizer.learning_data.data.fill_(0.0)
    quantizer.get_buffer("is_init" if quantizer.method == "MOM" else "is_calibrate").fill_(True)
    quantizer.scale.fill_(2.0 ** (quantizer.bits - 1))


class _Curve(FunctionalLayer):
    """A function whose result has a format of its own: Q(bits - 1), whatever the statistics."""

    real: Callable[[Tensor], Tensor]
    node, printed = "", ""

    def __init__(self, quant: Any) -> None:
        super().__init__(1, quant)
        self.curve = curve_of(self.operator, quant.platform)
        bits = self.output_quantizer.bits
        if bits not in self.curve.bits:
            raise UnsupportedError(
                f"linger: {self.operator} has results of {self.curve.bits} bits on {quant.platform}, output_bits is {bits}"
            )
        self.output_quantizer.rest()
        _say_format(self)
        hooks: Any = self
        hooks.register_load_state_dict_post_hook(_say_format)

    def forward(self, x: Tensor) -> Tensor:
        """The chip's function in forward; the derivative of the exact function at the quantized operand in backward."""
        bits = self.output_quantizer.bits
        with torch._C.DisableTorchFunction():
            if in_float():
                calibrate_input(x, self.operand_quantizer(0))
                scale = torch.full((), 2.0 ** (bits - 1), device=x.device)
                return tag(type(self).real(x), Format(scale, bits, exact=False))
            operand = accept(x, self.operand_quantizer(0))
            out = ops.activation(operand, self.curve.table, bits)
            y = emit(out, self.output_quantizer)
            tape = current_tape()
            if tape is not None:
                self._write(tape, operand, y)
            return y

    def _write(self, tape: Tape, x: ops.Coded, y: Tensor) -> None:
        bits = self.output_quantizer.bits
        if bits != 8:
            tape.violations.append(
                f"{self.name}: {self.operator} with a result of {bits} bits, the chip's node gives 8"
            )
        fmt = info(x.value)
        write_curve(tape, self.node, x.value, 8 if fmt is None else fmt.bits, float(x.scale), y, self.name)

    def __repr__(self) -> str:
        """As the classic generation prints it."""
        return f"{self.printed}()"


class SigmoidInt(_Curve):
    """Sigmoid of a quantized tensor.

    Shape:
        any -> the same, float32 on the grid 1/128, tagged with its format.

    Raises:
        UnsupportedError: ``output_bits`` is a width that the chip's function lacks.

    Source: docs/numerics.md, "Sigmoid and tanh".
    """

    operator, node, printed = "sigmoid", "iqSigmoid", "iqsigmoidlayer"
    real = staticmethod(torch.sigmoid)


class TanhInt(_Curve):
    """Tanh of a quantized tensor.

    Shape:
        any -> the same, float32 on the grid 1/128, tagged with its format.

    Raises:
        UnsupportedError: ``output_bits`` is a width that the chip's function lacks.

    Source: docs/numerics.md, "Sigmoid and tanh".
    """

    operator, node, printed = "tanh", "iqTanh", "iqtanhlayer"
    real = staticmethod(torch.tanh)


def write_curve(
    tape: Tape, node: str, x: Tensor | Value, bits: int, scale: float, y: Tensor | Value, name: str
) -> None:
    """Record iqSigmoid or iqTanh; where the node takes 16 bits, a Requant brings int8 codes into them.

    Where a chip takes 8 and 16 bits, 16 are right on every engine; some read a coarser operand in a format of their own
    (:attr:`linger.chip.Limits.curve_finest`).

    Args:
        tape: Where the nodes go.
        node: ``iqSigmoid`` or ``iqTanh``.
        x, bits, scale: Operand, its width and its scale.
        y: Result, int8 at scale 128.
        name: Hint for names.
    """
    chip = limits_of(tape.platform)
    if bits <= 8 and 16 in (chip.tanh_bits if node == "iqTanh" else chip.sigmoid_bits):
        exp2, finest = math.frexp(scale)[1] - 1, chip.curve_finest
        if finest is not None and exp2 < _COARSEST:
            x, exp2 = write_requant(tape, x, scale, 2.0**_COARSEST, 8, name), _COARSEST
        finer = exp2 if finest is None else max(exp2, finest)
        x, scale, bits = write_requant(tape, x, 2.0**exp2, 2.0**finer, 16, name), 2.0**finer, 16
    attributes = common_attributes(tape) | {"x_bits": max(bits, 8), "o_bits": 8, "scale_x": scale, "scale_o": 128.0}
    tape.node(node, [x], [y], attributes, domain="linger", hint=name)


@factory("sigmoid")
def _make_sigmoid(n_inputs: int, quant: Any) -> SigmoidInt:
    return SigmoidInt(quant)


@factory("tanh")
def _make_tanh(n_inputs: int, quant: Any) -> TanhInt:
    return TanhInt(quant)


def _operand(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The quantized operand of a call that asks for nothing else, or None."""
    given = [*args, *(v for k, v in kwargs.items() if k in ("input", "self"))]
    if len(given) != 1 or any(v is not None for k, v in kwargs.items() if k not in ("input", "self")):
        return None
    return given[0] if isinstance(given[0], Tensor) and info(given[0]) is not None else None


def _curve_at_site(operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], in_place: bool = False) -> Any:
    x = _operand(args, kwargs)
    if x is None:
        return NotImplemented
    y = cast(Tensor, operator_at_site(operator, 1)(x))
    return store(x, y) if in_place else y


@handles("sigmoid", "torch.sigmoid Tensor.sigmoid F.sigmoid special.expit")
def _sigmoid(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _curve_at_site("sigmoid", args, kwargs)


@handles("sigmoid_", "torch.sigmoid_ Tensor.sigmoid_")
def _sigmoid_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _curve_at_site("sigmoid", args, kwargs, True)


@handles("tanh", "torch.tanh Tensor.tanh F.tanh")
def _tanh(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _curve_at_site("tanh", args, kwargs)


@handles("tanh_", "torch.tanh_ Tensor.tanh_")
def _tanh_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _curve_at_site("tanh", args, kwargs, True)


__all__ = ["SigmoidInt", "TanhInt", "write_curve"]
