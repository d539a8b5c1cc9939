"""Batch normalisation folded into the weights before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks, gradients

_fold_bn = checks.native("fold_bn")
_fold_bn_backward = checks.native("fold_bn_backward")


class _FoldBn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        w: Tensor,
        b: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor,
        var: Tensor,
        *rest: Any,
    ) -> tuple[Tensor, Tensor]:
        w_folded, b_folded, w_mask, b_mask = _fold_bn(w, b, gamma, beta, mean, var, *rest)
        ctx.save_for_backward(w, b, gamma, mean, var, w_mask, b_mask)
        ctx.shape = rest[:3]  # eps, groups, transposed
        return w_folded, b_folded

    @staticmethod
    def backward(ctx: Any, gw: Tensor, gb: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return *_again(ctx, gw, gb), *(None,) * 6
        grads = _fold_bn_backward(gw, gb, *ctx.saved_tensors, *ctx.shape)
        return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad, strict=False)), *(None,) * 6


def _again(ctx: Any, gw: Tensor, gb: Tensor) -> tuple[Tensor | None, ...]:
    """The same gradients as a graph, for those who differentiate again."""
    w, b, gamma, mean, var, w_mask, b_mask = ctx.saved_tensors
    gw = checks.mask_grad(gw.contiguous(), w_mask) if w_mask.numel() else gw
    gb = checks.mask_grad(gb.contiguous(), b_mask) if b_mask.numel() else gb
    given = [t is not None for t in (b, gamma)]
    operands = [t.view_as(t) for t in (w, mean, var, b, gamma) if t is not None]  # not the ones that gw came from

    def product(w: Tensor, mean: Tensor, var: Tensor, *rest: Tensor) -> Tensor:
        left = list(rest)
        b, gamma = (left.pop(0) if has else None for has in given)
        folded, shift = folded_real(w, b, gamma, None, mean, var, *ctx.shape)
        return (folded * gw).sum() + (shift * gb).sum()

    found = list(gradients.differentiated(product, torch.ones_like(gb[0]), *operands))
    dw, dmean, dvar = found[:3]
    db, dgamma = (found.pop(3) if has else None for has in given)
    return dw, db, dgamma, gb if ctx.needs_input_grad[3] else None, dmean, dvar


def folded_real(
    w: Tensor, b: Tensor | None, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float,
    groups: int, transposed: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fold_bn` without clamps in torch's operators: for other types and devices, and for second derivatives."""
    gain = torch.rsqrt(var + eps) if gamma is None else gamma * torch.rsqrt(var + eps)
    shift = -mean if b is None else b - mean
    shift = shift * gain if beta is None else shift * gain + beta
    if not transposed:
        return w * gain.view(-1, *[1] * (w.dim() - 1)), shift
    # (in, out / groups, ...): channel = group * (out / groups) + column
    scaled = w.reshape(groups, -1, *w.shape[1:]) * gain.view(groups, 1, -1, *[1] * (w.dim() - 2))
    return scaled.flatten(0, 1), shift


def fold_bn(
    w: Tensor, b: Tensor | None, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float,
    groups: int = 1, transposed: bool = False, clamp_weight: float = 0.0, clamp_factor: float = 0.0, clamp_bias: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``w * f`` and ``(b - mean) * f + beta`` with ``f = gamma / sqrt(var + eps)``, then clamped; differentiable.

    Args:
        w: float32 ``(O, I / groups, ...)``, or ``(I, O / groups, ...)`` when transposed.
        b, gamma, beta: float32 ``(O,)`` or None, which counts as 0, 1 and 0.
        mean, var: float32 ``(O,)``.
        eps: The normalisation's own eps.
        groups: Groups of the convolution; matters when transposed.
        transposed: Whether ``w`` belongs to a transposed convolution.
        clamp_weight: Limit of the folded weight; 0 for none.
        clamp_factor: Limit as a factor of the mean absolute folded weight, a constant for autograd; 0 for none, and
            ``clamp_weight`` wins.
        clamp_bias: Limit of the folded bias; 0 for none.

    Returns:
        Folded weight (contiguous) and bias, float32. Evaluated in float64, rounded once.

    Raises:
        TypeError: An argument is not a float32 tensor.
        ValueError: A shape, ``eps``, ``groups`` or a limit that does not fit.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Constrained stage".
    """
    for name, t in (("w", w), ("b", b), ("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        if t is not None and (not isinstance(t, Tensor) or t.dtype != torch.float32):
            raise TypeError(f"fold_bn: {name} must be a float32 Tensor, got {getattr(t, 'dtype', type(t).__name__)}")
    if w.dim() < 2:
        raise ValueError(f"fold_bn: w must have at least 2 dimensions, got {w.dim()}")
    if groups < 1 or w.shape[0] % groups:
        raise ValueError(f"fold_bn: groups must divide {w.shape[0]}, got {groups}")
    channels = w.shape[1] * groups if transposed else w.shape[0]
    for name, t in (("b", b), ("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        if t is not None and t.numel() != channels:
            raise ValueError(f"fold_bn: {name} must have {channels} elements, got {t.numel()}")
    for name, v in (
        ("eps", eps),
        ("clamp_weight", clamp_weight),
        ("clamp_factor", clamp_factor),
        ("clamp_bias", clamp_bias),
    ):
        if not v >= 0:
            raise ValueError(f"fold_bn: {name} must be >= 0, got {v}")
    checks.check_device("fold_bn", w)
    limits = (float(clamp_weight), float(clamp_factor), float(clamp_bias))
    call = (w, b, gamma, beta, mean, var, float(eps), groups, transposed, *limits)
    if checks.needs_grad(w, b, gamma, beta, mean, var):
        w_folded, b_folded = _FoldBn.apply(*call)  # type: ignore[no-untyped-call]
    else:
        w_folded, b_folded, _, _ = _fold_bn(*call)
    return w_folded, b_folded


@checks.fake("linger::fold_bn")
def _fake_fold_bn(
    w: Tensor, b: Tensor | None, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float, groups: int,
    transposed: bool, clamp_weight: float, clamp_factor: float, clamp_bias: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    channels = w.shape[1] * groups if transposed else w.shape[0]
    return (
        torch.empty(w.shape, dtype=w.dtype, device=w.device),
        w.new_empty(channels),
        w.new_empty((w.numel() + 7) // 8 if clamp_weight > 0 or clamp_factor > 0 else 0, dtype=torch.uint8),
        w.new_empty((channels + 7) // 8 if clamp_bias > 0 else 0, dtype=torch.uint8),
    )


@checks.fake("linger::fold_bn_backward")
def _fake_fold_bn_backward(
    gw: Tensor, gb: Tensor, w: Tensor, b: Tensor | None, gamma: Tensor | None, mean: Tensor, var: Tensor, w_mask: Tensor,
    b_mask: Tensor, eps: float, groups: int, transposed: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    channels = gb.numel()
    return (torch.empty(w.shape, dtype=w.dtype, device=w.device), *(w.new_empty(channels) for _ in range(5)))
