"""Batch normalisation that also gives the batch's statistics, both from one look at the tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_forward = torch.ops.aten.native_batch_norm.default
_backward = torch.ops.aten.native_batch_norm_backward.default


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b: Tensor,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, invstd = _forward(x, w, b, *running, True, momentum, eps)
        n = x.numel() // x.shape[1]
        # as exact as it matters: whoever uses it adds eps again
        var = ((invstd.double().pow(-2) - eps) * (n / (n - 1))).to(x.dtype)
        ctx.save_for_backward(x, w, mean, invstd)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, gmean: Tensor | None, gvar: Tensor | None) -> tuple[Tensor | None, ...]:
        x, w, mean, invstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_twice(x, w, ctx.eps, (gy, gmean, gvar)), None, None, None
        want_x, want_w, want_b, *_ = ctx.needs_input_grad
        gx = gw = gb = None
        if gy is not None:
            gx, gw, gb = _backward(gy, x, w, None, None, mean, invstd, True, ctx.eps, [want_x, want_w, want_b])
        if want_x and (gmean is not None or gvar is not None):
            n = x.numel() // x.shape[1]
            shape = (1, -1, *(1,) * (x.dim() - 2))
            slope = torch.zeros_like(mean) if gvar is None else gvar * (2 / (n - 1))
            shift = -slope * mean if gmean is None else gmean / n - slope * mean
            gx = torch.zeros_like(x) if gx is None else gx
            gx.addcmul_(x, slope.view(shape)).add_(shift.view(shape))
        return gx, gw, gb, None, None, None


def _twice(x: Tensor, w: Tensor, eps: float, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The same gradients as a graph, for those who differentiate again."""
    b = torch.zeros_like(w, requires_grad=True)
    var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=1)
    y = torch.nn.functional.batch_norm(x, None, None, w, b, True, 0.0, eps)
    pairs = [(out, g) for out, g in zip((y, mean, var), grads, strict=True) if g is not None]
    wanted = [t for t in (x, w, b) if t.requires_grad]
    got = iter(
        torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True)
    )
    return tuple(next(got) if t.requires_grad else None for t in (x, w, b))


def batch_norm(
    x: Tensor, w: Tensor, b: Tensor, running: tuple[Tensor | None, Tensor | None], momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``(x - mean) / sqrt(biased variance + eps) * w + b`` over all axes but 1, and the statistics that entered it.

    Args:
        x: float32 or float64 ``(N, C, ...)`` with at least two elements per channel.
        w, b: ``(C,)``.
        running: Running mean and variance ``(C,)``, moved by ``momentum`` (the variance by the unbiased one), or two None.
        momentum: 0..1.
        eps: Positive.

    Returns:
        y, mean and unbiased variance ``(C,)``; differentiable in x, w and b through all three, more than once.

    Raises:
        ValueError: Fewer than two elements per channel.

    Source: docs/numerics.md, "Constrained Conv+BN".
    """
    if x.numel() // x.shape[1] < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    result: tuple[Tensor, Tensor, Tensor] = _BatchNorm.apply(x, w, b, running, momentum, eps)  # type: ignore[no-untyped-call]
    return result


__all__ = ["batch_norm"]
