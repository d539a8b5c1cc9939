"""Concatenation of quantized tensors: one scale for all, each operand brought to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.output import fake_results
from linger.ops.spec import GRAD, Coded, Output, flags_of

_cat_scale = checks.native("cat_scale")
_rescale = checks.native("rescale")


class _Rescale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, t: Tensor | None, codes: Tensor, x_scale: Tensor, scale: Tensor, moves: Tensor, out: Output
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        y, y_codes, mask, slope = _call(codes, x_scale, scale, out, True)
        if t is None:
            ctx.save_for_backward(mask)
        else:
            ctx.save_for_backward(mask, slope, scale, moves)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(y_codes)
        ctx.layout, ctx.threshold = checks.layout_of(y), None if torch.compiler.is_compiling() else t
        return y, y_codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        for_x, for_t, *_rest = ctx.needs_input_grad
        mask, *rest = ctx.saved_tensors
        grad = checks.in_layout(grad, ctx.layout)
        gt = None
        if for_t:
            slope, scale, moves = rest
            gt = checks.threshold_grad(grad, slope, scale, ctx.threshold) * moves
        return checks.mask_grad(grad, mask) if for_x else None, gt, None, None, None, None, None


def _call(codes: Tensor, x_scale: Tensor, scale: Tensor, out: Output, grad: bool) -> tuple[Tensor, ...]:
    flags, tqt = GRAD * grad, out.threshold is not None
    result: tuple[Tensor, ...] = _rescale(codes, x_scale, scale, out.bits, out.rounding, flags, tqt)
    return result


def _rescaled(x: Coded, scale: Tensor, moves: Tensor, out: Output) -> tuple[Tensor, Tensor]:
    value, t = checks.as_float32(x.value), out.threshold
    if checks.needs_grad(value, t):
        y, codes = _Rescale.apply(value, t, x.codes, x.scale, scale, moves, out)  # type: ignore[no-untyped-call]
        return y, codes
    y, codes, _, _ = _call(x.codes, x.scale, scale, out, False)
    return y, codes


def cat(xs: Sequence[Coded], dim: int, out: Output, *, left: int = 6, widest: bool = False) -> Coded:
    """Operands side by side along ``dim``, each re-rounded (or shifted left and saturated) to the output scale.

    Args:
        xs: One or more operands that differ in ``dim`` only; codes int8 or int32.
        dim: Axis, negative counts from the end.
        out: State and settings; ``clamp`` and ``relu`` are not used.
        left: The output scale is at most ``left`` bits finer than the coarsest operand.
        widest: The output scale is the largest of the operands' (a chip that shifts left only); the statistics move but
            do not decide, and a TQT threshold gets no gradient.

    Returns:
        value, codes and scale. The gradient is that of ``torch.cat``, masked where an operand saturated.

    Raises:
        TypeError: An operand is not Coded, ``out`` no Output.
        ValueError: No operands, shapes that do not fit together, or a setting out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "iqCat".
    """
    checks.check_output("cat", out)
    if not xs:
        raise ValueError("cat: needs at least one operand")
    for i, x in enumerate(xs):
        checks.check_coded("cat", f"xs[{i}]", x)
        checks.check_device("cat", x.codes)
    rank = xs[0].codes.dim()
    checks.check_range("cat", "dim", dim, -rank, rank - 1)
    checks.check_range("cat", "left", left, 0, 63)
    axis = dim % rank
    shapes = [tuple(x.codes.shape) for x in xs]
    across = [(*s[:axis], *s[axis + 1 :]) if len(s) == rank else None for s in shapes]
    if any(other != across[0] for other in across):  # no set: symbolic sizes have no hash
        raise ValueError(f"cat: the operands must differ in dimension {axis} only, got {shapes}")
    codes, scales = [x.codes for x in xs], [x.scale for x in xs]
    stats = (*out.stats, None if out.threshold is None else out.threshold.detach())
    scale, moves = _cat_scale(codes, scales, *stats, out.bits, left, widest, flags_of(out, False))
    parts = [_rescaled(x, scale, moves, out) for x in xs]
    value = torch.cat([p[0] for p in parts], axis)
    dtype = xs[0].value.dtype
    for x in xs[1:]:
        dtype = torch.promote_types(dtype, x.value.dtype)
    return Coded(value if dtype == torch.float32 else value.to(dtype), torch.cat([p[1] for p in parts], axis), scale)


@checks.fake("linger::cat_scale")
def _fake_cat_scale(codes: list[Tensor], scales: list[Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    return scales[0].new_empty(()), scales[0].new_empty(())


@checks.fake("linger::rescale")
def _fake_rescale(
    x: Tensor, x_scale: Tensor, to_scale: Tensor, bits: int, rounding: int, flags: int, tqt: bool
) -> tuple[Tensor, ...]:
    value, codes, _, mask, slope = fake_results(
        checks.empty_dense(x, torch.float32), 0, bits, x_scale if tqt else None, flags
    )
    return value, codes, mask, slope


__all__ = ["cat"]
