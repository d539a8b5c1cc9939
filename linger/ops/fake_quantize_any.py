"""``fake_quantize`` in torch's operators, for devices without the native one: the same bits, no host read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops.least_error_any import error_at, holding_exponent, memory_order, power, rounded, value_of

LOW, N_EXP2, BITS = -16, 40, 8
_UP, _EVEN = 1, 2  # roundings


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, passes: Tensor) -> Tensor:
        ctx.save_for_backward(passes)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return torch.where(ctx.saved_tensors[0], grad, 0.0), None, None


def _clip(e: Tensor) -> Tensor:
    return e.clamp(LOW, LOW + N_EXP2 - 1)


def _nearest(peak: Tensor) -> Tensor:
    bits = peak.clamp_min(1e-6).view(torch.int32)
    return _clip(7 - ((bits >> 23) - 127 + ((bits & 0x7FFFFF) > 0x3504F3).int()))


def _finish(x: Tensor, e: Tensor, rounding: int, nan: Tensor) -> Tensor:
    with torch.no_grad():
        r = rounded(x, e, rounding)
        value = torch.where(nan, float("nan"), value_of(r, e, BITS))
        passes = (r >= -128) & (r <= 127) & ~nan
    out: Tensor = _Masked.apply(x, value, passes)  # type: ignore[no-untyped-call]
    return out


def fake_quantize(x: Tensor, state: Tensor, observe: bool, calibrate: bool) -> Tensor:
    """As :func:`linger.ops.fake_quantize`; ``x`` is float32."""
    if x.numel() == 0:
        return x.clone()
    with torch.no_grad():
        seen = x.detach()
        peak = seen.abs().amax()
        old, m = state[0], peak.clamp_min(1e-6)
        if calibrate:
            flat = memory_order(seen)
            exps = torch.arange(LOW, LOW + N_EXP2, device=x.device)
            errors = state[2:] + torch.stack([error_at(flat, e, BITS, _UP) for e in exps]).float()
            last = N_EXP2 - 1 - errors.flip(0).argmin()
            best = torch.where(errors.amin().isfinite(), last, 0)
            moved = torch.cat([power(7 - LOW - best)[None], state[1:2] + 1.0, errors])
        elif observe:
            moved = torch.cat([torch.where(old > 1e-6, 0.9 * old + 0.1 * m, m)[None], torch.zeros_like(state[1:])])
        if calibrate or observe:
            state.copy_(torch.where(peak.isfinite(), moved, state))
        e = _nearest(torch.where(state[0] > 0, state[0], m))
    return _finish(x, e, _UP, peak.isnan())


def fake_quantize_weight(w: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`linger.ops.fake_quantize_weight`; ``w`` is float32."""
    with torch.no_grad():
        seen = w.detach()
        peak = seen.abs().amax() if w.numel() else torch.zeros((), device=w.device)
        coarse = _clip(holding_exponent(peak, BITS))
        flat = memory_order(seen)
        finer = error_at(flat, coarse + 1, BITS, _EVEN) < error_at(flat, coarse, BITS, _EVEN)
        e = _clip(coarse + finer.int())
    return _finish(w, e, _EVEN, peak.isnan()), torch.where(peak.isnan(), float("nan"), power(e))
