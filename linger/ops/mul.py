"""Element-wise product of quantized tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks, gradients
from linger.ops.elementwise import _pair
from linger.ops.quantize import fake_quantized
from linger.ops.spec import GRAD, Coded, Output, flags_of

_mul = torch.ops.linger.mul.default
_mul_codes = torch.ops.linger.mul_codes.default
_dequantize = torch.ops.linger.dequantize.default
_Operands = tuple[Tensor, Tensor, Tensor, Tensor]


class _Mul(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, t: Tensor | None, operands: _Operands, out: Output, links: gradients.Links
    ) -> tuple[Tensor, ...]:
        value, codes, scale, mask, slope = _call(operands, t, out, True)
        ctx.save_for_backward(*operands, mask, slope, scale)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(codes, scale)
        ctx.layout, ctx.y_shape, ctx.links = checks.layout_of(value), y.shape, links
        return value, codes, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        for_x, for_y, for_t, *_rest = ctx.needs_input_grad
        x, x_scale, y, y_scale, mask, slope, scale = ctx.saved_tensors
        grad = checks.in_layout(grad, ctx.layout)
        gx = gy = None
        gt = gradients.of_threshold(ctx, grad, slope, scale) if for_t else None
        if for_x or for_y:
            grad = checks.mask_grad(grad, mask, grad.numel())
        if gradients.again(ctx):
            at_x, at_y, _ = ctx.links
            factors = gradients.operand(at_x, x, x_scale), gradients.operand(at_y, y, y_scale)
            gx, gy = gradients.differentiated(torch.mul, grad, *factors)
        elif for_x or for_y:
            gx = grad * _dequantize(y, y_scale) if for_x else None
            gy = (grad * _dequantize(x, x_scale)).sum_to_size(ctx.y_shape) if for_y else None
        return gx, gy, gt, None, None, None


def _call(operands: _Operands, t: Tensor | None, out: Output, grad: bool) -> tuple[Tensor, ...]:
    x, x_scale, y, y_scale = operands
    if y.shape != x.shape:
        y = torch.empty_like(x).copy_(y.expand_as(x))
    result: tuple[Tensor, ...] = _mul(
        x, x_scale, y, y_scale, *out.stats, t, out.bits, out.clamp, out.rounding, flags_of(out, grad)
    )
    return result


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
    checks.check_coded("mul", "x", x)
    checks.check_coded("mul", "y", y)
    checks.check_output("mul", out)
    _check_expands("mul", x.codes, y.codes)
    checks.check_device("mul", x.codes)
    if y.value is x.value:  # x * x: dynamo refuses one tensor in two places of an autograd.Function
        y = Coded(*(part.view_as(part) for part in y))
    xq, yq = x.codes, y.codes
    if xq.dtype != yq.dtype:
        xq, yq = xq.to(torch.int32), yq.to(torch.int32)
    operands = (xq, x.scale, yq, y.scale)
    xv, yv, t = checks.as_float32(x.value), checks.as_float32(y.value), out.threshold
    if checks.needs_grad(xv, yv, t):
        value, codes, scale = _Mul.apply(xv, yv, t, operands, out, gradients.links(xv, yv, t))  # type: ignore[no-untyped-call]
    else:
        value, codes, scale, _, _ = _call(operands, t, out, False)
    dtype = torch.promote_types(x.value.dtype, y.value.dtype)
    return Coded(value if dtype == torch.float32 else value.to(dtype), codes, scale)


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
    checks.check_range("mul_codes", "shift", shift, 0, 63)
    checks.check_range("mul_codes", "bits", bits, 2, 32)
    checks.check_device("mul_codes", x)
    if x.dtype != torch.int8 or y.dtype != torch.int8:
        x, y = x.to(torch.int32), y.to(torch.int32)
    return checks.narrowed(_mul_codes(x, y.expand_as(x), shift, bits), bits)


def _check_expands(op: str, x: Tensor, y: Tensor) -> None:
    shape = (1,) * (x.dim() - y.dim()) + tuple(y.shape)
    if y.dim() > x.dim() or any(b not in (1, a) for a, b in zip(x.shape, shape, strict=True)):
        raise ValueError(f"{op}: y must expand to the shape of x, got {tuple(x.shape)} and {tuple(y.shape)}")


@checks.fake("linger::mul")
def _fake_mul(
    x: Tensor, x_scale: Tensor, y: Tensor, y_scale: Tensor, running: Tensor, is_init: Tensor, scale: Tensor,
    n_batches: Tensor, n_skipped: Tensor, threshold: Tensor | None, bits: int, clamp: float, rounding: int, flags: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    value, codes, now, _, slope = fake_quantized(_pair(x, y), bits, threshold, flags)
    return value, codes, now, x.new_empty((x.numel() + 15) // 16 * 2 if flags & GRAD else 0, dtype=torch.uint8), slope


@checks.fake("linger::mul_codes")
def _fake_mul_codes(x: Tensor, y: Tensor, shift: int, bits: int) -> Tensor:
    return checks.empty_dense(_pair(x, y), checks.code_dtype(bits))


__all__ = ["mul", "mul_codes"]
