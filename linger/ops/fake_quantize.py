"""Float tensors to 8-bit values and nothing else: the operators of the package ``dopt``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops import fake_quantize_any as other
from linger.ops.spec import GRAD, OBSERVE

N_STATE = 42
"""Elements of a range: running maximum (0: nothing seen), calibration batches, squared error at exponents -16..23."""
CALIBRATE = 8

_fake_quantize = checks.native("fake_quantize")
_fake_quantize_weight = checks.native("fake_quantize_weight")


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, flags: int) -> Tensor:
        value, mask = _fake_quantize(x, state, flags | GRAD)
        ctx.save_for_backward(mask)
        ctx.layout = checks.layout_of(value)
        out: Tensor = value
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return checks.mask_grad(checks.in_layout(grad, ctx.layout), ctx.saved_tensors[0]), None, None


class _QuantizeWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor) -> tuple[Tensor, Tensor]:
        value, mask, scale = _fake_quantize_weight(w, GRAD)
        ctx.save_for_backward(mask)
        ctx.layout = checks.layout_of(value)
        ctx.mark_non_differentiable(scale)
        return value, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Tensor:
        return checks.mask_grad(checks.in_layout(grad, ctx.layout), ctx.saved_tensors[0])


def fake_quantize(x: Tensor, state: Tensor, *, observe: bool = False, calibrate: bool = False) -> Tensor:
    """``clamp(floor(x * 2**e + 0.5), -128, 127) / 2**e`` with the exponent e of a range; the gradient passes inside the limits.

    Args:
        x: float, any shape and dense strides (kept); other types than float32 are widened, the result has the type of ``x``.
        state: The range, float32 ``[42]`` on the device of ``x``; zeros have seen nothing: the call uses the maximum of ``x``.
        observe: Move the running maximum with ``max|x|`` (0.9 old, 0.1 new) first; what was calibrated is forgotten.
        calibrate: Add the squared errors of ``x`` to those of the batches before and use the exponent of least error.

    Returns:
        The values. NaN in ``x`` makes all of them NaN and moves nothing, nor does infinity.

    Raises:
        TypeError: ``x`` is no float tensor, ``state`` is not float32.
        ValueError: ``state`` has another size.

    On the CPU one native pass; elsewhere torch's operators with the same bits.
    Source: docs/numerics.md, "Ranges of dopt".
    """
    checks.check_float("fake_quantize", "x", x)
    if not isinstance(state, Tensor) or state.dtype != torch.float32:
        got = getattr(state, "dtype", type(state).__name__)
        raise TypeError(f"fake_quantize: state must be a float32 Tensor, got {got}")
    if state.shape != (N_STATE,):
        raise ValueError(f"fake_quantize: state must have the shape [{N_STATE}], got {list(state.shape)}")
    real = checks.as_float32(x)
    if not (x.is_cpu or x.is_meta):
        value = other.fake_quantize(real, state, observe, calibrate)
    else:
        flags = OBSERVE * observe | CALIBRATE * calibrate
        if checks.needs_grad(x):
            value = checks.plain_apply(_Quantize)(real, state, flags)
        else:
            value = _fake_quantize(real, state, flags)[0]
    return value if real is x else value.to(x.dtype)


def fake_quantize_weight(w: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a state, rounded half to even, at the exponent that holds ``max|w|`` or the next finer one.

    Args:
        w: float, any shape and dense strides (kept).

    Returns:
        The values, and their scale ``2**e`` as float32 ``[]``: of the two the one of less squared error. NaN in ``w`` makes
        both NaN.

    Raises:
        TypeError: ``w`` is no float tensor.

    Source: docs/numerics.md, "Least error".
    """
    checks.check_float("fake_quantize_weight", "w", w)
    real = checks.as_float32(w)
    if not (w.is_cpu or w.is_meta):
        value, scale = other.fake_quantize_weight(real)
    elif checks.needs_grad(w):
        value, scale = checks.plain_apply(_QuantizeWeight)(real)
    else:
        value, _, scale = _fake_quantize_weight(real, 0)
    return value if real is w else value.to(w.dtype), scale


@checks.fake("linger::fake_quantize")
def _fake_fake_quantize(x: Tensor, state: Tensor, flags: int) -> tuple[Tensor, Tensor]:
    mask = x.new_empty((x.numel() + 7) // 8 if flags & GRAD else 0, dtype=torch.uint8)
    return checks.empty_dense(x, torch.float32), mask


@checks.fake("linger::fake_quantize_weight")
def _fake_fake_quantize_weight(w: Tensor, flags: int) -> tuple[Tensor, Tensor, Tensor]:
    mask = w.new_empty((w.numel() + 7) // 8 if flags & GRAD else 0, dtype=torch.uint8)
    return checks.empty_dense(w, torch.float32), mask, w.new_empty((), dtype=torch.float32)
