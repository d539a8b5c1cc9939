"""A quantized tensor times one number plus another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks
from linger.ops.quantize import fake_quantized
from linger.ops.spec import GRAD, Coded, Output, flags_of

_affine = torch.ops.linger.affine.default
_affine_bias = torch.ops.linger.affine_bias.default
_Operands = tuple[Tensor, Tensor, int, int]  # codes, scale, factor's code and exponent


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b: Tensor, t: Tensor | None, operands: _Operands, out: Output
    ) -> tuple[Tensor, ...]:
        value, codes, scale, mask, slope = _call(operands, b, t, out, True)
        checks.save_output(ctx, t, value, codes, scale, mask, slope)
        _, _, w, w_exp2 = operands
        ctx.factor, ctx.b_shape = w * 2.0**-w_exp2, b.shape
        return value, codes, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        for_x, for_b, for_t, _, _ = ctx.needs_input_grad
        if grad is None:
            return (None,) * 5
        mask, *rest = ctx.saved_tensors
        grad, gt = checks.in_layout(grad, ctx.layout), None
        if for_t:
            slope, scale = rest
            gt = checks.threshold_grad(grad, slope, scale, ctx.threshold)
        grad = checks.mask_grad(grad, mask, grad.numel())
        return grad * ctx.factor if for_x else None, grad.sum().reshape(ctx.b_shape) if for_b else None, gt, None, None


def _call(operands: _Operands, b: Tensor, t: Tensor | None, out: Output, grad: bool) -> tuple[Tensor, ...]:
    flags = flags_of(out, grad)
    result: tuple[Tensor, ...] = _affine(*operands, b, *out.stats, t, out.bits, out.clamp, out.rounding, flags)
    return result


def affine(x: Coded, w: int, w_exp2: int, b: Tensor, out: Output) -> Coded:
    """``x * w + b``: an exact integer sum, shifted once to the output scale and saturated.

    Args:
        x: Codes int8.
        w, w_exp2: The factor ``w / 2**w_exp2``, w in -128..127.
        b: float32, one element; its code has the exponent of ``x * w`` and saturates at ``2**30``.
        out: State and settings; the output exponent is at most that of ``x * w``.

    Returns:
        value, codes and scale. The gradients are those of the float expression, masked by the output's saturation; the
        rounding of ``b`` has gradient 1.

    Raises:
        TypeError: ``x`` is not Coded, ``b`` not float32, ``out`` no Output.
        ValueError: A number out of range.
        UnsupportedError: Codes wider than 8 bits, or a device without kernel.

    Source: docs/numerics.md, "A number added".
    """
    checks.check_coded("affine", "x", x)
    checks.check_output("affine", out)
    checks.check_range("affine", "w", w, -128, 127)
    checks.check_range("affine", "w_exp2", w_exp2, -100, 100)
    _check_addend("affine", b)
    checks.check_device("affine", x.codes)
    if x.codes.dtype != torch.int8:
        raise UnsupportedError(f"affine: x must have at most 8 bits, got codes of type {x.codes.dtype}")
    value, t = checks.as_float32(x.value), out.threshold
    operands = (x.codes, x.scale, w, w_exp2)
    if checks.needs_grad(value, b, t):
        y, codes, scale = _Affine.apply(value, b, t, operands, out)  # type: ignore[no-untyped-call]
    else:
        y, codes, scale, _, _ = _call(operands, b, t, out, False)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), codes, scale)


def affine_bias(b: Tensor, x_scale: Tensor, w_exp2: int) -> Tensor:
    """Code of the addend of :func:`affine`, as files hold it: int32, shape of ``b``.

    Args:
        b: float32, one element.
        x_scale: float32 ``[]``.
        w_exp2: Exponent of the factor.

    Raises:
        TypeError: ``b`` or the scale is not float32.
        ValueError: More than one element.

    Source: docs/numerics.md, "A number added".
    """
    _check_addend("affine_bias", b)
    checks.check_scale("affine_bias", "x_scale", x_scale)
    code: Tensor = _affine_bias(b, x_scale, w_exp2)
    return code


def _check_addend(op: str, b: Tensor) -> None:
    if not isinstance(b, Tensor) or b.dtype != torch.float32:
        raise TypeError(f"{op}: b must be a float32 Tensor, got {getattr(b, 'dtype', type(b).__name__)}")
    if b.numel() != 1:
        raise ValueError(f"{op}: b must have one element, got shape {tuple(b.shape)}")


@checks.fake("linger::affine")
def _fake_affine(
    x: Tensor, x_scale: Tensor, w: int, w_exp2: int, b: Tensor, running: Tensor, is_init: Tensor, scale: Tensor,
    n_batches: Tensor, n_skipped: Tensor, threshold: Tensor | None, bits: int, clamp: float, rounding: int, flags: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    value, codes, now, _, slope = fake_quantized(x, bits, threshold, flags)
    return value, codes, now, x.new_empty((x.numel() + 15) // 16 * 2 if flags & GRAD else 0, dtype=torch.uint8), slope


@checks.fake("linger::affine_bias")
def _fake_affine_bias(b: Tensor, x_scale: Tensor, w_exp2: int) -> Tensor:
    return torch.empty_like(b, dtype=torch.int32)


__all__ = ["affine", "affine_bias"]
