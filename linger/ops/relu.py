"""ReLU and its bounded forms on quantized tensors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.spec import Coded

_relu = checks.native("relu")


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor, high: float) -> tuple[Tensor, Tensor]:
        value, codes, mask = _relu(codes, scale, high, True)
        ctx.save_for_backward(mask)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(codes)
        ctx.layout = checks.layout_of(value)
        return value, codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 4
        (mask,) = ctx.saved_tensors
        return checks.mask_grad(checks.in_layout(grad, ctx.layout), mask), None, None, None


def relu(x: Coded, high: float = math.inf) -> Coded:
    """``min(max(x, 0), high)``: scale and width stay, one bit per element is saved for the gradient.

    Args:
        x: Any shape and dense strides (kept); codes int8 or int32.
        high: Upper limit in real units, positive; the codes stop at ``floor(high * scale)``.

    Returns:
        value, codes and the scale of ``x``. The gradient passes where ``0 < x < high``. Behind a NaN all stays NaN.

    Raises:
        TypeError: ``x`` is not Coded.
        ValueError: ``high`` is not positive.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "ReLU".
    """
    checks.check_coded("relu", "x", x)
    if not high > 0:
        raise ValueError(f"relu: high must be positive, got {high}")
    checks.check_device("relu", x.codes)
    value = checks.as_float32(x.value)
    if checks.needs_grad(value):
        y, codes = _Relu.apply(value, x.codes, x.scale, float(high))  # type: ignore[no-untyped-call]
    else:
        y, codes, _ = _relu(x.codes, x.scale, float(high), False)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), codes, x.scale)


@checks.fake("linger::relu")
def _fake_relu(x: Tensor, scale: Tensor, high: float, grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    return (
        checks.empty_dense(x, torch.float32),
        checks.empty_dense(x, x.dtype),
        x.new_empty((x.numel() + 7) // 8 if grad else 0, dtype=torch.uint8),
    )


__all__ = ["relu"]
