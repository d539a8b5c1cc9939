"""``fake_quantize`` in torch's operators, for devices without the native one: the same bits, no host read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOW, N_EXP2, BLOCK = -16, 40, 16384


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, passes: Tensor) -> Tensor:
        ctx.save_for_backward(passes)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return torch.where(ctx.saved_tensors[0], grad, 0.0), None, None


def _power(e: Tensor) -> Tensor:
    """2**e as float32, exactly."""
    return ((e.int() + 127) << 23).view(torch.float32)


def _clip(e: Tensor) -> Tensor:
    return e.clamp(LOW, LOW + N_EXP2 - 1)


def _nearest(peak: Tensor) -> Tensor:
    bits = peak.clamp_min(1e-6).view(torch.int32)
    return _clip(7 - ((bits >> 23) - 127 + ((bits & 0x7FFFFF) > 0x3504F3).int()))


def _rounded(x: Tensor, e: Tensor, even: bool) -> Tensor:
    v = x * _power(e)
    return torch.round(v) if even else torch.floor(v + 0.5)


def _value(rounded: Tensor, e: Tensor) -> Tensor:
    return (rounded.clamp(-128, 127) + 0.0) * _power(-e)  # + 0: never -0


def _error(x: Tensor, e: Tensor, even: bool) -> Tensor:
    """The sum of squared errors in the native order: neighbours, then lanes, then blocks."""
    d = (x - _value(_rounded(x, e, even), e)).flatten().double()
    n_blocks = (d.numel() + BLOCK - 1) // BLOCK
    tree = torch.nn.functional.pad(d * d, (0, n_blocks * BLOCK - d.numel())).view(n_blocks, BLOCK // 8, 8)
    while tree.shape[1] > 1:
        tree = tree[:, 0::2] + tree[:, 1::2]
    v = tree[:, 0]
    lanes = ((v[:, 0] + v[:, 4]) + (v[:, 2] + v[:, 6])) + ((v[:, 1] + v[:, 5]) + (v[:, 3] + v[:, 7]))
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for block in lanes:
        total = total + block
    return total


def _memory_order(x: Tensor) -> Tensor:
    """The elements in the order in which the native operator sees them."""
    strides = x.stride()
    axes = sorted(range(x.dim()), key=lambda d: (-strides[d], d))
    return x.permute(axes).contiguous().flatten() if x.dim() else x.flatten()


def _finish(x: Tensor, e: Tensor, even: bool, nan: Tensor) -> Tensor:
    with torch.no_grad():
        r = _rounded(x, e, even)
        value = torch.where(nan, float("nan"), _value(r, e))
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
            flat = _memory_order(seen)
            exps = torch.arange(LOW, LOW + N_EXP2, device=x.device)
            errors = state[2:] + torch.stack([_error(flat, e, False) for e in exps]).float()
            last = N_EXP2 - 1 - errors.flip(0).argmin()
            best = torch.where(errors.amin().isfinite(), last, 0)
            moved = torch.cat([_power(7 - LOW - best)[None], state[1:2] + 1.0, errors])
        elif observe:
            moved = torch.cat([torch.where(old > 1e-6, 0.9 * old + 0.1 * m, m)[None], torch.zeros_like(state[1:])])
        if calibrate or observe:
            state.copy_(torch.where(peak.isfinite(), moved, state))
        e = _nearest(torch.where(state[0] > 0, state[0], m))
    return _finish(x, e, False, peak.isnan())


def fake_quantize_weight(w: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`linger.ops.fake_quantize_weight`; ``w`` is float32."""
    with torch.no_grad():
        seen = w.detach()
        peak = seen.abs().amax() if w.numel() else torch.zeros((), device=w.device)
        coarse = _clip(7 - ((peak.clamp_min(1e-6).view(torch.int32) >> 23) - 126))
        flat = _memory_order(seen)
        finer = _error(flat, coarse + 1, True) < _error(flat, coarse, True)
        e = _clip(coarse + finer.int())
    return _finish(w, e, True, peak.isnan()), torch.where(peak.isnan(), float("nan"), _power(e))
