"""Symmetric clamps of the constrained stage; the gradient is 0 outside, and one bit per element is saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks

_clamp = checks.native("clamp")
_clamp_weight = checks.native("clamp_weight")


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, op: Any, *limits: float) -> Tensor:
        y: Tensor
        y, mask = op(x, *limits)
        ctx.save_for_backward(mask)
        ctx.layout, ctx.n = checks.layout_of(y), len(limits)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        return checks.mask_grad(checks.in_layout(grad, ctx.layout), mask), None, *(None,) * ctx.n


def _run(op: Any, x: Tensor, *limits: float) -> Tensor:
    real = checks.as_float32(x)
    y: Tensor
    if checks.needs_grad(real):
        y = _Clamp.apply(real, op, *limits)  # type: ignore[no-untyped-call]
    else:
        y, _ = op(real, *limits)
    return y if x.dtype == torch.float32 else y.to(x.dtype)


def clamp(x: Tensor, limit: float) -> Tensor:
    """``x`` held inside ``[-limit, limit]``; NaN stays.

    Args:
        x: float tensor, dense strides are kept.
        limit: Positive.

    Raises:
        TypeError: ``x`` is no float tensor.
        ValueError: ``limit`` is not positive.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Constrained stage".
    """
    checks.check_float("clamp", "x", x)
    if not limit > 0:
        raise ValueError(f"clamp: limit must be positive, got {limit}")
    checks.check_device("clamp", x)
    return _run(_clamp, x, float(limit))


def clamp_weight(w: Tensor, value: float | None = None, factor: float | None = None) -> Tensor:
    """``w`` held inside ``±value``, or else inside ``±factor * mean|w|``; the limit is a constant for autograd.

    Args:
        w: float tensor, dense strides are kept.
        value: Static limit, positive; wins when both are given.
        factor: Factor of the dynamic limit, positive.

    Raises:
        TypeError: ``w`` is no float tensor.
        ValueError: Neither limit is given, or one is not positive.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Constrained stage".
    """
    checks.check_float("clamp_weight", "w", w)
    for name, limit in (("value", value), ("factor", factor)):
        if limit is not None and not limit > 0:
            raise ValueError(f"clamp_weight: {name} must be positive, got {limit}")
    if value is None and factor is None:
        raise ValueError("clamp_weight: value or factor must be given")
    checks.check_device("clamp_weight", w)
    return _run(_clamp_weight, w, float(value or 0.0), float(factor or 0.0))


@checks.fake("linger::clamp")
def _fake_clamp(x: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    return checks.empty_dense(x, torch.float32), x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)


@checks.fake("linger::clamp_weight")
def _fake_clamp_weight(w: Tensor, value: float, factor: float) -> tuple[Tensor, Tensor]:
    return _fake_clamp(w, 0.0)
