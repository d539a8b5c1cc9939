"""The written rules of convolution and linear in a few lines of int64 and float64 torch, independent of the C code."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import Output, Stats


def stats(running: float = 0.0, scale: float = 0.0) -> Stats:
    known = scale > 0
    counts = (torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    return Stats(torch.tensor(running), torch.tensor(known), torch.tensor(scale), *counts)


def output(**changes) -> Output:
    fields = {
        "stats": stats(),
        "threshold": None,
        "bits": 8,
        "rounding": 1,
        "clamp": 0.0,
        "observe": True,
        "relu": False,
    }
    return Output(**{**fields, **changes})


def sums(
    x: Tensor, w: Tensor, bias: Tensor | None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1
) -> Tensor:
    """Exact: every partial sum is below 2^53."""
    top, left, bottom, right = padding
    padded = F.pad(x.double(), (left, right, top, bottom))
    a = F.conv2d(padded, w.double(), None, stride, 0, dilation, groups).long()
    return a if bias is None else a + bias.long().view(1, -1, 1, 1)


def shifted(a: Tensor, shift: int, rounding: int) -> Tensor:
    """a / 2^shift rounded; exact in float64 below 2^52."""
    v = a.double() / 2.0**shift
    return [torch.floor, lambda t: torch.floor(t + 0.5), torch.round, torch.ceil][rounding](v).long()


def exponent(m: float, bits: int) -> int:
    """MOM: clip(b - 1 - k, 0, 23), k = log2 rounded to nearest, the tie at the float32 mantissa of sqrt 2."""
    bits32 = torch.tensor(max(m, 1e-6), dtype=torch.float32).view(torch.int32).item()
    k = (bits32 >> 23) - 127 + ((bits32 & 0x7FFFFF) > 0x3504F3)
    return min(max(bits - 1 - k, 0), 23)


@dataclass
class Expected:
    codes: Tensor
    mask: Tensor
    slope: Tensor
    exp2: int
    peak: float


def quantized(a: Tensor, acc_exp2: int, out: Output, sat32: bool, exp2: int | None = None) -> Expected:
    """What the output quantizer makes of exact sums; exp2 None: from this batch's peak (first batch, or none stored)."""
    whole = a if not sat32 else a.clamp(-(2**31), 2**31 - 1)
    inside = whole == a
    if out.clamp:
        limit = math.floor(out.clamp * 2.0**acc_exp2)
        inside &= whole.abs() <= limit
        whole = whole.clamp(-limit, limit)
    view = whole.clamp(min=0) if out.relu else whole.abs()
    peak = (view.max().double() * 2.0**-acc_exp2).float().item() if a.numel() else 0.0
    if exp2 is None:
        exp2 = min(exponent(peak, out.bits), acc_exp2)
    lo, hi = -(2 ** (out.bits - 1)), 2 ** (out.bits - 1) - 1
    shift = acc_exp2 - exp2
    r = shifted(whole, shift, out.rounding)
    cut = ~inside | (r < 1 if out.relu else torch.zeros_like(inside))
    codes = r.clamp(0 if out.relu else lo, hi)
    in_range = (r >= lo) & (r <= hi)
    slope = torch.where(in_range, codes.double() - a.double() / 2.0**shift, codes.double())
    return Expected(codes, in_range & ~cut, torch.where(cut, 0.0, slope).float(), exp2, peak)


def row_mask(mask: Tensor) -> Tensor:
    """Logical (pixels..., O) bools -> packed rows of ceil(O / 16) * 2 bytes."""
    o = mask.shape[-1]
    rows = F.pad(mask.reshape(-1, o).long(), (0, -o % 16)).view(-1, (o + 15) // 16 * 2, 8)
    return (rows << torch.arange(8)).sum(-1).to(torch.uint8).flatten()


def codes(kind: str, shape: tuple[int, ...]) -> Tensor:
    """int8 operands: random, all at a limit, or limits at random."""
    if kind == "random":
        return torch.randint(-128, 128, shape, dtype=torch.int8)
    if kind == "limits":
        return torch.where(torch.rand(shape) < 0.5, -128, 127).to(torch.int8)
    return torch.full(shape, {"min": -128, "max": 127}[kind], dtype=torch.int8)
