"""What the operators promise, in a few lines of torch: int64 and float64, independent of the C code."""

import math
from typing import Any

import torch
from torch import Tensor

from linger import ops

SIZES = [0, 1, 7, 8, 31, 32, 33, 1000]
EDGES = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    -1.5,
    2.5,
    0.49999997,
    -0.49999997,
    1.4999999,
    127.0,
    127.5,
    -128.0,
    -128.5,
    -129.0,
    1e-30,
]


def stats() -> ops.Stats:
    """A quantizer that has seen nothing."""
    return ops.Stats(
        torch.zeros(()),
        torch.zeros((), dtype=torch.bool),
        torch.ones(()),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
    )


def fixed(exp2: int) -> ops.Stats:
    """A quantizer whose scale is 2**exp2."""
    s = stats()
    s.scale.fill_(2.0**exp2)
    s.is_init.fill_(True)
    s.running.fill_(1.0)
    return s


def output(state: ops.Stats, **changes: Any) -> ops.Output:
    """8 bits, half up, no clamp, nothing moves; `changes` replace fields."""
    return ops.Output(state, None, 8, 1, 0.0, False, False)._replace(**changes)


def floats(n: int, seed: int = 0, exp2: int = 0, infinite: bool = True) -> Tensor:
    """Exact ties, limits and zeros at scale 2**exp2, infinities, then random values."""
    edges = torch.tensor(EDGES + ([math.inf, -math.inf] if infinite else [])) / 2.0**exp2
    random = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 60 / 2.0**exp2
    return torch.cat([edges, random])[torch.randperm(n + len(edges), generator=torch.Generator().manual_seed(n))][:n]


def codes8(n: int, seed: int = 0) -> Tensor:
    """int8 with both limits."""
    q = torch.randint(-128, 128, (n,), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    q[: min(n, 4)] = torch.tensor([-128, 127, -127, 0], dtype=torch.int8)[: min(n, 4)]
    return q


def coded(q: Tensor, exp2: float) -> ops.Coded:
    """A coded tensor at scale 2**exp2."""
    scale = torch.tensor(2.0**exp2)
    return ops.Coded(q.float() / scale, q, scale)


def limits(bits: int) -> tuple[int, int]:
    """Least and greatest code."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def rounded(v: Tensor, rounding: int) -> Tensor:
    """The four rounding modes, in the type of `v`: the addition of half up is rounded to it."""
    return [v.floor(), (v + 0.5).floor(), v.round(), v.ceil()][rounding]


def exp2_of_peak(m: float, bits: int) -> int:
    """clip(bits - 1 - round(log2 m), 0, 23), the sqrt 2 threshold as the specification writes it."""
    mantissa, exponent = math.frexp(max(m, float(torch.tensor(1e-6))))
    k = exponent - 1 + (2 * mantissa > float(torch.tensor(1.4142135)) and 2 * mantissa > 1.41421354)
    return min(max(bits - 1 - k, 0), 23)


def rsh(v: Tensor, s: int) -> Tensor:
    """floor(v / 2**s + 1/2) for int64."""
    return v if s == 0 else (v + (1 << (s - 1))) >> s


def bits_of(mask: Tensor, n: int) -> Tensor:
    """A flat mask as bool."""
    return ((mask.long()[:, None] >> torch.arange(8)) & 1).flatten()[:n].bool()


def packed(bits: Tensor) -> Tensor:
    """bool as a flat mask."""
    padded = torch.nn.functional.pad(bits.flatten().long(), (0, -bits.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8)).sum(1).to(torch.uint8)


LAYOUTS = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 1, 0, 2),
    "sliced": lambda x: x[:, ::2],
    "expanded": lambda x: x[:, :1].expand(2, 3, 4, 5),
    "offset": lambda x: x.flatten()[1:],
}
