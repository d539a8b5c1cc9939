"""Batched product of two quantized tensors. The engine is the convolution's: one group per matrix, one pixel per row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks, gradients
from linger.ops.spec import Coded, Output, flags_of

_conv = torch.ops.linger.conv.default
_conv_codes = torch.ops.linger.conv_codes.default
_dequantize = torch.ops.linger.dequantize.default
_Operands = tuple[Tensor, Tensor, Tensor, Tensor]
LONGEST = (1 << 17) - 1  # K * 2**14 < 2**31: the convolution's 32-bit accumulator cannot saturate


def _pixels(x: Tensor) -> Tensor:
    """``(B, M, K)`` as an image ``(1, B * K, M, 1)``, channels last."""
    b, m, k = x.shape
    return x.transpose(0, 1).reshape(1, m, 1, b * k).permute(0, 3, 1, 2)


def _kernels(y: Tensor) -> Tensor:
    """``(B, K, N)`` as weights ``(B * N, K, 1, 1)`` of B groups."""
    b, k, n = y.shape
    return y.transpose(1, 2).reshape(b * n, k, 1, 1)


def _rows(image: Tensor) -> Tensor:
    """``(1, B * N, M, 1)`` in channels last as ``(M, B * N)``, the memory order of the mask."""
    return image.permute(0, 2, 3, 1).reshape(image.shape[2], image.shape[1])


def _matrices(rows: Tensor, b: int) -> Tensor:
    """``(M, B * N)`` as ``(B, M, N)``, contiguous; never a view, which user code could not overwrite in place."""
    return rows.view(rows.shape[0], b, rows.shape[1] // b).transpose(0, 1).clone(memory_format=torch.contiguous_format)


class _Bmm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, t: Tensor | None, operands: _Operands, out: Output, links: gradients.Links
    ) -> tuple[Tensor, ...]:
        value, codes, scale, mask, slope = _call(operands, t, out, True)
        ctx.save_for_backward(*operands, mask, _rows(slope) if t is not None else slope, scale)
        ctx.set_materialize_grads(False)
        b = operands[0].shape[0]
        value, codes = _matrices(_rows(value), b), _matrices(_rows(codes), b)
        ctx.mark_non_differentiable(codes, scale)
        ctx.links = links
        return value, codes, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        for_x, for_y, for_t, *_rest = ctx.needs_input_grad
        x, x_scale, y, y_scale, mask, slope, scale = ctx.saved_tensors
        b, m, n = grad.shape
        rows = grad.transpose(0, 1).reshape(m, b * n).contiguous()
        gt = gradients.of_threshold(ctx, rows, slope, scale) if for_t else None
        gx = gy = None
        if for_x or for_y:
            grad = _matrices(checks.mask_grad(rows, mask, b * n), b)
        if gradients.again(ctx):
            at_x, at_y, _ = ctx.links
            factors = gradients.operand(at_x, x, x_scale), gradients.operand(at_y, y, y_scale)
            gx, gy = gradients.differentiated(torch.bmm, grad, *factors)
        elif for_x or for_y:
            gx = grad @ _dequantize(y, y_scale).transpose(1, 2) if for_x else None
            gy = _dequantize(x, x_scale).transpose(1, 2) @ grad if for_y else None
        return gx, gy, gt, None, None, None


def _call(operands: _Operands, t: Tensor | None, out: Output, grad: bool) -> tuple[Tensor, ...]:
    x, x_scale, y, y_scale = operands
    head = (_pixels(x), x_scale, _kernels(y), y_scale, None, [1, 1], [0, 0, 0, 0], [1, 1], x.shape[0])
    result: tuple[Tensor, ...] = _conv(
        *head, *out.stats, t, out.bits, float(out.clamp), int(out.rounding), flags_of(out, grad)
    )
    return result


def bmm(x: Coded, y: Coded, out: Output) -> Coded:
    """``x[b] @ y[b]`` on codes, exactly as the chip computes it; gradients are those of the float product.

    Args:
        x, y: Operands of at most 8 bits.
        out: State and settings; the output scale is at most the product of the operands' scales.

    Shape:
        x ``(B, M, K)``, y ``(B, K, N)`` -> value and codes ``(B, M, N)``, contiguous. Nothing may be empty; K < 2**17.

    Raises:
        TypeError: An operand is not Coded, ``out`` no Output.
        ValueError: Shapes that do not fit together, or a setting out of range.
        UnsupportedError: Operands above 8 bits, or a device without kernel.

    Source: docs/numerics.md, "BmmInt".
    """
    checks.check_coded("bmm", "x", x)
    checks.check_coded("bmm", "y", y)
    checks.check_output("bmm", out)
    checks.check_device("bmm", x.codes)
    if x.codes.dtype != torch.int8 or y.codes.dtype != torch.int8:
        raise UnsupportedError("bmm: the operands must have at most 8 bits")
    _check_shapes("bmm", x.codes, y.codes)
    if y.value is x.value:  # dynamo refuses one tensor in two places of an autograd.Function
        y = Coded(*(part.view_as(part) for part in y))
    operands = (x.codes, x.scale, y.codes, y.scale)
    xv, yv, t = checks.as_float32(x.value), checks.as_float32(y.value), out.threshold
    if checks.needs_grad(xv, yv, t):
        value, codes, scale = _Bmm.apply(xv, yv, t, operands, out, gradients.links(xv, yv, t))  # type: ignore[no-untyped-call]
    else:
        value, codes, scale, _, _ = _call(operands, t, out, False)
        value, codes = (_matrices(_rows(part), x.codes.shape[0]) for part in (value, codes))
    dtype = torch.promote_types(x.value.dtype, y.value.dtype)
    return Coded(value if dtype == torch.float32 else value.to(dtype), codes, scale)


def bmm_codes(x: Tensor, y: Tensor, shift: int, bits: int) -> Tensor:
    """``sat_bits(RSH(x[b] @ y[b], shift))``.

    Args:
        x: int8 ``(B, M, K)``.
        y: int8 ``(B, K, N)``.
        shift: 0..63.
        bits: Width of the result: int8 up to 8, int16 up to 16, else int32.

    Raises:
        TypeError: An operand of another dtype.
        ValueError: Shapes that do not fit together, ``shift`` or ``bits`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "BmmInt".
    """
    for name, t in (("x", x), ("y", y)):
        if not isinstance(t, Tensor) or t.dtype != torch.int8:
            raise TypeError(f"bmm_codes: {name} must be torch.int8, got {getattr(t, 'dtype', type(t).__name__)}")
    _check_shapes("bmm_codes", x, y)
    checks.check_range("bmm_codes", "shift", shift, 0, 63)
    checks.check_range("bmm_codes", "bits", bits, 2, 32)
    checks.check_device("bmm_codes", x)
    b = x.shape[0]
    image: Tensor = _conv_codes(
        _pixels(x), _kernels(y), None, [1, 1], [0, 0, 0, 0], [1, 1], b, shift, bits, False
    )  # fmt: skip
    return _matrices(_rows(image), b)


def _check_shapes(op: str, x: Tensor, y: Tensor) -> None:
    if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1]:
        raise ValueError(f"{op}: x must be (B, M, K) and y (B, K, N), got {tuple(x.shape)} and {tuple(y.shape)}")
    if 0 in (*x.shape, *y.shape) or x.shape[2] > LONGEST:
        raise ValueError(f"{op}: sizes must be >= 1 and K <= {LONGEST}, got {tuple(x.shape)} and {tuple(y.shape)}")


__all__ = ["LONGEST", "bmm", "bmm_codes"]
