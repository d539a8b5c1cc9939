"""Element-wise product of quantized tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.output import Floats, Operands, Operator, Tensors, check_binary, fake, pair, quantized, settings
from linger.ops.spec import Coded, Output

_mul = checks.native("mul")
_mul_codes = checks.native("mul_codes")
_dequantize = checks.native("dequantize")


class _Mul(Operator):
    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        x, x_scale, y, y_scale = operands
        whole = y if y.shape == x.shape else torch.empty_like(x).copy_(y.expand_as(x))
        return _mul(x, x_scale, whole, y_scale, *settings(out, flags)), operands

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        x, x_scale, y, y_scale = kept
        for_x, for_y = want
        gx = grad * _dequantize(y, y_scale) if for_x else None
        gy = (grad * _dequantize(x, x_scale)).sum_to_size(y.shape) if for_y else None
        return gx, gy

    def real(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


_MUL = _Mul()


def mul(x: Coded, y: Coded, out: Output) -> Coded:
    """The chip's product: codes multiplied exactly, then shifted to the output scale and saturated.

    Args:
        x: Codes int8 or int32; decides the shape.
        y: Of the same shape, or one that expands to it (per channel, scalar).
        out: State and settings; the output scale is at most the product of the operands' scales.

    Returns:
        value, codes and scale. The gradient is that of the product of the quantized operands, masked by the output's
        saturation.

    Raises:
        TypeError: An operand is not Coded, ``out`` no Output.
        ValueError: ``y`` does not expand to ``x``, or a setting is out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "iqMul".
    """
    check_binary("mul", x, y, out)
    _check_expands("mul", x.codes, y.codes)
    floats, operands, dtype = pair(x, y)
    return quantized(_MUL, floats, operands, out, dtype)


def mul_codes(x: Tensor, y: Tensor, shift: int, bits: int) -> Tensor:
    """``sat(RSH(x * y, shift))``, the product exact.

    Args:
        x: Codes, int8, int16 or int32.
        y: Codes of the same shape, or one that expands to it.
        shift: 0..63.
        bits: Width of the result.

    Returns:
        int8 up to 8 bits, int16 up to 16, int32 above; shape of ``x``.

    Raises:
        TypeError: An operand of another dtype.
        ValueError: ``y`` does not expand to ``x``, ``shift`` or ``bits`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "iqMul".
    """
    checks.check_codes("mul_codes", "x", x)
    checks.check_codes("mul_codes", "y", y)
    _check_expands("mul_codes", x, y)
    checks.check_integer_form("mul_codes", x, bits, shift)
    if x.dtype != torch.int8 or y.dtype != torch.int8:
        x, y = x.to(torch.int32), y.to(torch.int32)
    result: Tensor = _mul_codes(x, y.expand_as(x), shift, bits)
    return result


def _check_expands(op: str, x: Tensor, y: Tensor) -> None:
    shape = (1,) * (x.dim() - y.dim()) + tuple(y.shape)
    if y.dim() > x.dim() or any(b not in (1, a) for a, b in zip(x.shape, shape, strict=True)):
        raise ValueError(f"{op}: y must expand to the shape of x, got {tuple(x.shape)} and {tuple(y.shape)}")


@fake("linger::mul")
def _fake_mul(x: Tensor, x_scale: Tensor, y: Tensor, y_scale: Tensor) -> tuple[Tensor, int]:
    return checks.empty_dense(checks.pair_order(x, y), torch.float32), x.numel()


@checks.fake("linger::mul_codes")
def _fake_mul_codes(x: Tensor, y: Tensor, shift: int, bits: int) -> Tensor:
    return checks.empty_dense(checks.pair_order(x, y), checks.integer_form_dtype(bits))


__all__ = ["mul", "mul_codes"]
