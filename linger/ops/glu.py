"""Gated linear unit as a chip computes it. ``chip``: 0 arcs and mars, 1 venusA, 2 venus."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.errors import UnsupportedError
from linger.ops import checks, gradients
from linger.ops.bilinear import codes_dtype, fake_outputs
from linger.ops.spec import Coded, Output, flags_of

_glu = torch.ops.linger.glu.default
_glu_codes = torch.ops.linger.glu_codes.default
_grad = torch.ops.linger.glu_grad.default
GATE_EXP2 = (31, 15, 7)  # exponent of the gate, by chip


class _Glu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, t: Tensor | None, codes: Tensor, scale: Tensor, chip: int, out: Output,
        links: gradients.Links,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        y, y_codes, y_scale, mask, slope = _call(codes, scale, chip, out, True)
        ctx.save_for_backward(codes, scale, mask, slope, y_scale)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(y_codes, y_scale)
        ctx.links = links
        return y, y_codes, y_scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        for_x, for_t, *_rest = ctx.needs_input_grad
        codes, scale, mask, slope, y_scale = ctx.saved_tensors
        grad = grad.contiguous()
        gt = gradients.of_threshold(ctx, grad, slope, y_scale) if for_t else None
        gx = None
        if for_x:
            grad = checks.mask_grad(grad, mask, grad.numel())
            if gradients.again(ctx):
                (gx,) = gradients.differentiated(F.glu, grad, gradients.operand(ctx.links[0], codes, scale))
            else:
                gx = _grad(grad, codes, scale)
        return gx, gt, *(None,) * 5


def _call(codes: Tensor, scale: Tensor, chip: int, out: Output, grad: bool) -> tuple[Tensor, ...]:
    settings = (out.bits, float(out.clamp), int(out.rounding), flags_of(out, grad))
    result: tuple[Tensor, ...] = _glu(codes, scale, chip, *out.stats, out.threshold, *settings)
    return result


def glu(x: Coded, out: Output, *, chip: int, dim: int = -1) -> Coded:
    """The first half of an axis times the sigmoid of the second, then an output quantizer.

    Args:
        x: int8 codes; the axis has an even length.
        out: State and settings; the output scale is at most that of ``x`` times the gate's.
        chip: 0, 1 or 2.
        dim: Axis.

    Returns:
        value, codes and scale, the axis halved. The gradient is that of the exact function at ``x``, masked by the output's
        saturation.

    Raises:
        TypeError: ``x`` is not Coded, ``out`` no Output.
        ValueError: ``dim`` out of range, an axis of odd length.
        UnsupportedError: Codes above 8 bits, a device without kernel.

    Source: docs/numerics.md, "GLU".
    """
    checks.check_coded("glu", "x", x)
    checks.check_output("glu", out)
    _check_axis("glu", x.codes, dim)
    if x.codes.dtype != torch.int8:
        raise UnsupportedError(f"glu: the input must have at most 8 bits, got codes of type {x.codes.dtype}")
    checks.check_device("glu", x.codes)
    value, codes, t = checks.as_float32(x.value).movedim(dim, -1), x.codes.movedim(dim, -1), out.threshold
    if checks.needs_grad(value, t):
        y, q, scale = _Glu.apply(  # type: ignore[no-untyped-call]
            value, t, codes, x.scale, chip, out, gradients.links(value, t)
        )
    else:
        y, q, scale, _, _ = _call(codes, x.scale, chip, out, False)
    y, q = y.movedim(-1, dim), q.movedim(-1, dim)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), q, scale)


def glu_codes(x: Tensor, exp2: int, chip: int, shift: int, bits: int) -> Tensor:
    """``sat(RSH(a * gate(b), shift))`` along the last axis; a negative shift scales a up first, saturated to 32 bits.

    Args:
        x: int8 codes; the last axis has an even length.
        exp2: log2 of their scale, -126..126.
        chip: 0, 1 or 2.
        shift: -31..63.
        bits: Width of the result.

    Returns:
        int8 up to 8 bits, int16 up to 16, int32 above.

    Raises:
        TypeError: ``x`` is not int8.
        ValueError: An axis of odd length, or a number out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "GLU".
    """
    if not isinstance(x, Tensor) or x.dtype != torch.int8:
        raise TypeError(f"glu_codes: x must be int8, got {getattr(x, 'dtype', type(x).__name__)}")
    _check_axis("glu_codes", x, -1)
    checks.check_range("glu_codes", "exp2", exp2, -126, 126)
    checks.check_range("glu_codes", "shift", shift, -31, 63)
    checks.check_range("glu_codes", "bits", bits, 2, 32)
    checks.check_device("glu_codes", x)
    y: Tensor = _glu_codes(x, exp2, chip, max(-shift, 0), max(shift, 0), bits)
    return y


def _check_axis(op: str, x: Tensor, dim: int) -> None:
    checks.check_range(op, "dim", dim, -x.dim(), x.dim() - 1)
    if x.shape[dim] % 2:
        raise ValueError(f"{op}: axis {dim} must have an even length, got {x.shape[dim]}")


def _halved(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.new_empty([*x.shape[:-1], x.shape[-1] // 2], dtype=dtype)


@checks.fake("linger::glu")
def _fake_glu(
    x: Tensor, x_scale: Tensor, chip: int, running: Tensor, is_init: Tensor, scale: Tensor, n_batches: Tensor,
    n_skipped: Tensor, threshold: Tensor | None, bits: int, clamp: float, rounding: int, flags: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    value = _halved(x, torch.float32)
    return fake_outputs(value, 1, value.numel(), bits, threshold, flags)


@checks.fake("linger::glu_codes")
def _fake_glu_codes(x: Tensor, exp2: int, chip: int, left: int, shift: int, bits: int) -> Tensor:
    return _halved(x, codes_dtype(bits))


@checks.fake("linger::glu_grad")
def _fake_grad(grad: Tensor, x: Tensor, x_scale: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.float32)


__all__ = ["GATE_EXP2", "glu", "glu_codes"]
