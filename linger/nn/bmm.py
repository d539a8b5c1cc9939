"""Matrix products of two tensors: ``torch.bmm``, ``torch.matmul``, ``@`` (read back in ``bmm_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.chip import OPERATORS
from linger.quantizers import calibrating
from linger.runtime import HANDLERS, Tape, coded, current_tape, factory, handles, info, operator_at_site

from .add import FunctionalLayer
from .base import accept, calibrate_input, emit, emit_calibrated, warn_without_data
from .times import common


class BmmInt(FunctionalLayer):
    """Product of two stacks of matrices; leading axes are the stack, a matrix on the right may serve all of it.

    Shape:
        x ``(..., M, K)``, y ``(..., K, N)`` with equal leading axes, or y ``(K, N)`` -> ``(..., M, N)``, float32 on a
        power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "BmmInt".
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Chip integers in forward; the gradients of the float product where it does not saturate."""
        with torch._C.DisableTorchFunction():
            if calibrating():
                calibrate_input(x, self.operand_quantizer(0))
                calibrate_input(y, self.operand_quantizer(1))
                return emit_calibrated(torch.matmul(x, y), self.output_quantizer)
            a, b = accept(x, self.operand_quantizer(0)), accept(y, self.operand_quantizer(1))
            shape = (*x.shape[:-1], y.shape[-1])
            stack = 1 if y.dim() == 2 else y.shape[:-2].numel()
            a = _reshaped(a, (stack, -1, x.shape[-1]))
            b = _reshaped(b, (stack, *y.shape[-2:]))
            warn_without_data(self.output_quantizer)
            out = ops.bmm(a, b, self.output_quantizer.output())
            z = emit(out, self.output_quantizer)
            tape = current_tape()
            if tape is not None:
                self._write(tape, a, b, out, z)
            return z if z.shape == shape else cast(Tensor, HANDLERS[torch.reshape](torch.reshape, (z, shape), {}))

    def _write(self, tape: Tape, a: ops.Coded, b: ops.Coded, out: ops.Coded, z: Tensor) -> None:
        name = self.__dict__.get("_linger_name", "") or "bmm"
        bits = self.output_quantizer.bits
        widths = OPERATORS["BmmInt"][tape.platform].bits
        if bits not in widths:
            tape.violations.append(f"{name}: output of {bits} bits, {tape.platform} has {widths}")
        k, n = b.codes.shape[-2:]
        if tape.platform == "venus" and -(-k // 8) * 8 * (-(-n // 4) * 4) > VENUS_BYTES:
            tape.violations.append(f"{name}: second matrix of {k} x {n}, venus takes {VENUS_BYTES} bytes")
        attributes = common(tape) | {"x_bits": 8, "y_bits": 8, "o_bits": bits}
        attributes |= {"scale_x": float(a.scale), "scale_y": float(b.scale), "scale_o": float(out.scale)}
        tape.node("BmmInt", [a.value, b.value], [z], attributes, domain="linger", hint=name)


VENUS_BYTES = 32768  # K aligned to 8 times N aligned to 4


def _reshaped(x: ops.Coded, shape: tuple[int, ...]) -> ops.Coded:
    """The operand with three axes; nothing where it has them (and no node: explicit reshapes only)."""
    if x.codes.dim() == 3:
        return x
    y = HANDLERS[torch.reshape](torch.reshape, (x.value, shape), {})
    fmt = info(y)
    assert fmt is not None
    return coded(y, fmt)


@factory("bmm")
@factory("matmul")
def _make(n_inputs: int, quant: Any) -> BmmInt:
    return BmmInt(n_inputs, quant)


def _fits(x: Tensor, y: Tensor) -> bool:
    if x.dim() < 2 or x.shape[-1] != y.shape[-2] or 0 in (*x.shape, *y.shape):
        return False
    return y.dim() == 2 or x.dim() == y.dim() and x.shape[:-2] == y.shape[:-2]


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The two tensors of a call that can run in integers, or None."""
    names = ("input", "self", "mat2", "tensor2", "other")
    if any(v is not None for k, v in kwargs.items() if k not in names):
        return None
    values = [*args, *(kwargs[k] for k in names if k in kwargs)]
    if len(values) != 2 or not all(isinstance(v, Tensor) and v.is_floating_point() for v in values):
        return None
    x, y = values
    if info(x) is None and info(y) is None or x.device != y.device or y.dim() < 2:
        return None
    return (x, y) if _fits(x, y) else None


@handles("bmm", "torch.bmm Tensor.bmm")
def _bmm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else operator_at_site("bmm", 2)(*pair)


@handles("matmul", "torch.matmul Tensor.matmul Tensor.__matmul__ operator.matmul torch.mm Tensor.mm")
def _matmul(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else operator_at_site("matmul", 2)(*pair)


@handles("rmatmul", "Tensor.__rmatmul__")
def _reflected(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args[::-1], kwargs)
    return NotImplemented if pair is None else operator_at_site("matmul", 2)(*pair)


__all__ = ["VENUS_BYTES", "BmmInt"]
