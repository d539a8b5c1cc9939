"""Average pooling: the accelerator's divider and the float gradient."""

import hashlib
import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from ops_oracle import coded, codes8
from torch import Tensor

from linger import ops

native = torch.ops.linger


def reciprocal(d: int) -> tuple[int, int]:
    """(R, e) of the Newton-Raphson divider, in exact fractions as the integer page writes it."""
    e = (d - 1).bit_length()
    f = Fraction(d, 2**e)
    r = Fraction(math.floor(Fraction(2**29) / Fraction(math.floor(32 * f), 32) + Fraction(1, 2)), 2**29)
    for _ in range(3):
        t = Fraction(math.floor((2 - f * r) * 2**30 + Fraction(1, 2)), 2**30)
        r = Fraction(math.floor(r * t * 2**29 + Fraction(1, 2)), 2**29)
    return int(r * 2**29), e


def divided(total: Tensor, d: int) -> Tensor:
    """floor(total / d + 1/2) as the accelerator computes it."""
    if d & (d - 1) == 0:
        return (2 * total + d) // (2 * d)
    r, e = reciprocal(d)
    return torch.tensor([(int(s) * r * 2 + 2 ** (29 + e)) >> (30 + e) for s in total.flatten()]).view(total.shape)


def test_reciprocals_of_the_published_table() -> None:
    """All rows "n,R,e" of the chip's table, 3 <= n < 1024 without the powers of two, by digest."""
    rows = (f"{n},{reciprocal(n)[0]},{reciprocal(n)[1]}" for n in range(3, 1024) if n & (n - 1))
    digest = hashlib.sha256(";".join(rows).encode()).hexdigest()
    assert digest == "2b37c79885d04070ba214683a12ebda9f0c00f587a2ab0312a978952927e4475"


@pytest.mark.parametrize("first", range(1, 1025, 64))
def test_every_divisor(first: int, isa: str) -> None:
    """Sums on both sides of ties, and extreme ones: planar and interleaved data."""
    for d in range(first, first + 64):
        x = torch.full((1, 18, 1, d), -128, dtype=torch.int8)
        x[0, 17] = 127
        for i in range(16):  # even i and even d: a tie
            target = (i - 8) * d // 2 + i % 3 * (i % 2)
            x[0, i] = target // d
            x[0, i, 0, : target - d * (target // d)] += 1
        want = divided(x.long().sum(3, keepdim=True), d).clamp(-128, 127)
        for memory in (torch.contiguous_format, torch.channels_last):
            got = ops.avg_pool_codes(x.contiguous(memory_format=memory), [1, d], [1, 1], [0, 0, 0, 0])
            assert torch.equal(got.long(), want), d


WINDOWS = [
    ([2, 2], [2, 2], [0, 0, 0, 0]),
    ([3, 3], [2, 1], [1, 1, 1, 1]),
    ([3, 2], [1, 2], [0, 1, 2, 0]),
    ([5, 4], [1, 1], [5, 4, 0, 3]),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("c", [1, 3, 8, 19])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("last", [False, True])
def test_windows(
    kernel: list[int], stride: list[int], padding: list[int], c: int, dtype: torch.dtype, last: bool, isa: str
) -> None:
    info = torch.iinfo(dtype)
    x = torch.randint(info.min, info.max, (2, c, 7, 6), dtype=dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    top, left, bottom, right = padding
    padded = F.pad(x.double(), (left, right, top, bottom))
    total = F.avg_pool2d(padded, kernel, stride, divisor_override=1).round().long()
    got = ops.avg_pool_codes(x, kernel, stride, padding)
    assert got.dtype == dtype
    assert torch.equal(got.long(), divided(total, kernel[0] * kernel[1]))
    assert got.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("last", [False, True])
def test_gradient_is_that_of_the_float_pool(
    kernel: list[int], stride: list[int], padding: list[int], last: bool
) -> None:
    q = codes8(2 * 3 * 7 * 6).view(2, 3, 7, 6)
    if last:
        q = q.contiguous(memory_format=torch.channels_last)
    x = coded(q, 4)
    leaf = x.value.clone().requires_grad_()
    c = ops.avg_pool(x._replace(value=leaf), kernel, stride, padding)
    assert torch.equal(c.value, c.codes.float() / 16)
    assert c.scale is x.scale
    top, left, bottom, right = padding
    real = F.avg_pool2d(F.pad(leaf, (left, right, top, bottom)), kernel, stride)
    assert (c.value - real).abs().max() <= 0.5 / 16 + 1e-6
    g = torch.randn(real.shape)
    (got,) = torch.autograd.grad(c.value, leaf, g)
    torch.testing.assert_close(got, torch.autograd.grad(real, leaf, g)[0])


def test_double_backward() -> None:
    x = coded(codes8(64).view(1, 1, 8, 8), 2)
    leaf, v = x.value.clone().requires_grad_(), torch.randn(1, 1, 5, 5, requires_grad=True)
    value = ops.avg_pool(x._replace(value=leaf), [4, 4], [1, 1], [0, 0, 0, 0]).value
    (g,) = torch.autograd.grad(value, leaf, v, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(g.sum(), v)[0], torch.ones(1, 1, 5, 5))


def test_nan_scale_and_empty_batch() -> None:
    x = ops.Coded(torch.zeros(1, 1, 2, 2), codes8(4).view(1, 1, 2, 2), torch.tensor(math.nan))
    c = ops.avg_pool(x, [2, 2], [2, 2], [0, 0, 0, 0])
    assert c.value.isnan().all()
    assert not c.codes.any()
    assert ops.avg_pool_codes(codes8(0).view(0, 3, 4, 4), [2, 2], [2, 2], [0, 0, 0, 0]).shape == (0, 3, 2, 2)


def test_refusals_name_the_argument() -> None:
    q = codes8(16).view(1, 1, 4, 4)
    for args, text in [
        ((q[0], [2, 2], [1, 1], [0] * 4), "avg_pool_codes: x must have 4 dimensions, got 3"),
        ((q, [2], [1, 1], [0] * 4), "kernel must have 2 values, got 1"),
        ((q, [2, 2], [1, 1], [0, 0]), "padding must have 4 values, got 2"),
        ((q, [2, 2], [0, 1], [0] * 4), "kernel and stride must be positive"),
        ((q, [2, 2], [1, 1], [3, 0, 0, 0]), r"padding must be in \[0, kernel\]"),
        ((q, [5, 2], [1, 1], [0] * 4), "kernel 5 is larger than the padded input, 4"),
    ]:
        with pytest.raises(ValueError, match=text):
            ops.avg_pool_codes(*args)
    with pytest.raises(TypeError, match="avg_pool_codes: x must be int8, int16 or int32, got"):
        ops.avg_pool_codes(q.float(), [2, 2], [1, 1], [0] * 4)
    with pytest.raises(TypeError, match="avg_pool: x must be Coded, got Tensor"):
        ops.avg_pool(q, [2, 2], [1, 1], [0] * 4)


def test_opcheck() -> None:
    q = codes8(2 * 3 * 6 * 5).view(2, 3, 6, 5)
    for x in (q, q.contiguous(memory_format=torch.channels_last), q.int(), q.transpose(2, 3)):
        torch.library.opcheck(native.avg_pool.default, (x, torch.ones(()), [3, 2], [1, 2], [1, 0, 2, 1]))
        torch.library.opcheck(native.avg_pool_codes.default, (x, [3, 2], [1, 2], [1, 0, 2, 1]))
