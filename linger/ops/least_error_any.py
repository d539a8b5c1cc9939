"""Squared errors and the exponent of least error in torch's operators, for devices without the native ones: the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16384


def power(e: Tensor) -> Tensor:
    """2**e as float32, exactly."""
    return ((e.int() + 127) << 23).view(torch.float32)


def rounded(x: Tensor, e: Tensor, rounding: int) -> Tensor:
    """``x * 2**e`` as a whole number; the addition of half up is rounded to float32, as everywhere."""
    v = x * power(e)
    if rounding == 2:
        return torch.round(v)
    return torch.ceil(v) if rounding == 3 else torch.floor(v if rounding == 0 else v + 0.5)


def value_of(whole: Tensor, e: Tensor, bits: int) -> Tensor:
    """What the saturated code stands for; never -0."""
    limit = 1 << (bits - 1)
    return (whole.clamp(-limit, limit - 1) + 0.0) * power(-e)


def memory_order(x: Tensor) -> Tensor:
    """The elements in the order in which the native operators see them."""
    strides = x.stride()
    axes = sorted(range(x.dim()), key=lambda d: (-strides[d], d))
    return x.permute(axes).contiguous().flatten() if x.dim() else x.flatten()


def error_at(flat: Tensor, e: Tensor, bits: int, rounding: int) -> Tensor:
    """The sum of squared errors in the native order: neighbours, then lanes, then blocks.

    Args:
        flat: ``[n]``, in memory order.
    """
    d = (flat - value_of(rounded(flat, e, rounding), e, bits)).double()
    n_blocks = (d.numel() + BLOCK - 1) // BLOCK
    tree = torch.nn.functional.pad(d * d, (0, n_blocks * BLOCK - d.numel())).view(n_blocks, BLOCK // 8, 8)
    while tree.shape[1] > 1:
        tree = tree[:, 0::2] + tree[:, 1::2]
    v = tree[:, 0]
    lanes = ((v[:, 0] + v[:, 4]) + (v[:, 2] + v[:, 6])) + ((v[:, 1] + v[:, 5]) + (v[:, 3] + v[:, 7]))
    total = torch.zeros((), dtype=torch.float64, device=flat.device)
    for block in lanes:
        total = total + block
    return total


def holding_exponent(peak: Tensor, bits: int) -> Tensor:
    """The coarsest exponent whose range holds a maximum, not clipped."""
    return bits - 1 - ((peak.clamp_min(1e-6).view(torch.int32) >> 23) - 126)


def squared_errors(x: Tensor, exp2: int, count: int, bits: int, rounding: int) -> Tensor:
    """As ``linger.ops.squared_errors``; ``x`` is float32."""
    flat = memory_order(x)
    return torch.stack([error_at(flat, e, bits, rounding) for e in torch.arange(exp2, exp2 + count, device=x.device)])


def least_error_step(w: Tensor, stats: tuple[Tensor, ...], bits: int) -> None:
    """As the native operator: the state follows the weight, nothing is read on the host."""
    if not w.numel():
        return
    running, is_init, scale, n_batches, n_skipped = stats
    peak = w.abs().amax()
    coarse = holding_exponent(peak, bits).clamp(0, 23)
    flat, finest = memory_order(w), coarse == 23
    finer = (error_at(flat, coarse + 1, bits, 2) < error_at(flat, coarse, bits, 2)) & ~finest
    e, fine = coarse + finer.int(), peak.isfinite()
    span = torch.where(peak > 1e-6, power(bits - 1 - e), 1e-6)
    running.copy_(torch.where(fine, span.reshape(running.shape), running))
    scale.copy_(torch.where(fine, power(e).reshape(scale.shape), scale))
    is_init.copy_(torch.where(fine & (is_init == 0), torch.ones_like(is_init), is_init))
    n_batches.add_(fine.to(n_batches.dtype))
    n_skipped.add_((~fine).to(n_skipped.dtype))
