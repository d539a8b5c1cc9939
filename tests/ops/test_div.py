"""Quotients against the divider in exact integers, gradients, refusals."""

import math
from fractions import Fraction

import pytest
import torch
from ops_oracle import coded, output, stats
from torch import Tensor

from linger import ops


def quotient(x: int, y: int, shift: int) -> int:
    """The divider in rational numbers."""
    if y < 0:
        x, y = -x, -y
    e = math.ceil(math.log2(y)) if y > 1 else 0
    e += 2**e < y
    f = Fraction(y, 2**e)
    r = Fraction(math.floor(Fraction(2**29) / Fraction(math.floor(32 * f), 32) + Fraction(1, 2)), 2**29)
    for _ in range(3):
        t = Fraction(math.floor((2 - f * r) * 2**30 + Fraction(1, 2)), 2**30)
        r = Fraction(math.floor(r * t * 2**29 + Fraction(1, 2)), 2**29)
    q = math.floor(x * r * Fraction(2) ** (shift - e) + Fraction(1, 2))
    return min(max(q, -(2**31)), 2**31 - 1)


def edges(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    wide = torch.iinfo(torch.int32)
    bits = torch.randint(0, 31, (2, n), generator=g)
    x, y = (torch.randint(wide.min, wide.max, (2, n), generator=g) >> bits).to(torch.int32)
    x[:4] = torch.tensor([wide.min, wide.max, wide.min, 0])
    y[:4] = torch.tensor([wide.min, wide.max, -1, 3])
    return x, torch.where(y == 0, 1, y).to(torch.int32)


@pytest.mark.parametrize("shift", [0, 1, 7, 23, 40, 62])
def test_the_divider(shift: int) -> None:
    x, y = edges(400)
    want = [quotient(a, b, shift) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert ops.div_codes(x, y, shift).tolist() == want


def test_zero_divisors_saturate() -> None:
    x = torch.tensor([5, -5, 0], dtype=torch.int32)
    assert ops.div_codes(x, torch.zeros_like(x), 3).tolist() == [2**31 - 1, -(2**31), 0]


def test_training() -> None:
    a, b = torch.tensor([7, -900, 12345]).int(), torch.tensor([3, 50, -7]).int()
    x, y = coded(a, 5), coded(b, 2)
    x, y = (c._replace(value=c.value.clone().requires_grad_()) for c in (x, y))
    z = ops.div(x, y, output(stats(), bits=32, observe=True))
    exp2 = int(math.log2(z.scale.item()))
    assert exp2 == 31 - 8  # the largest quotient is 12345 / 7 * 4 / 32 = 220
    assert z.codes.tolist() == [quotient(p, q, exp2 - 5 + 2) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    z.value.sum().backward()
    torch.testing.assert_close(x.value.grad, 1 / y.value.detach())
    torch.testing.assert_close(y.value.grad, -(x.value / y.value**2).detach())


def test_nan() -> None:
    x, bad = coded(torch.ones(3, dtype=torch.int32), 4), coded(torch.ones(3, dtype=torch.int32), math.nan)
    z = ops.div(x, bad, output(stats(), bits=32))
    assert z.value.isnan().all()
    assert z.scale.isnan()
    assert not z.codes.any()


def test_refusals_and_opcheck() -> None:
    q = torch.ones(3, dtype=torch.int32)
    with pytest.raises(TypeError, match=r"div_codes: y must hold int32 codes, got torch\.int8"):
        ops.div_codes(q, q.char(), 0)
    with pytest.raises(ValueError, match=r"div_codes: x and y must have one shape, got \(3,\) and \(2,\)"):
        ops.div_codes(q, q[:2], 0)
    with pytest.raises(ValueError, match=r"div_codes: shift must be in \[0, 62\], got 63"):
        ops.div_codes(q, q, 63)
    one = torch.ones(())
    torch.library.opcheck(torch.ops.linger.div_codes.default, (q, q, 3))
    torch.library.opcheck(torch.ops.linger.div.default, (q, one, q, one, one))
