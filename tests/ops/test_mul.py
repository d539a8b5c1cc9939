"""Products of codes against int64, broadcasting, gradients, refusals."""

import math

import pytest
import torch
from ops_oracle import LAYOUTS, SIZES, bits_of, coded, codes8, exp2_of_peak, fixed, limits, output, rsh, stats
from torch import Tensor

from linger import ops
from linger.ops.spec import GRAD, OBSERVE, RELU

native = torch.ops.linger


def raw(x: ops.Coded, y: ops.Coded, out: ops.Output) -> tuple[Tensor, ...]:
    flags = OBSERVE * out.observe + RELU * out.relu + GRAD
    head = (x.codes, x.scale, y.codes, y.scale)
    return native.mul(*head, *out.stats, out.threshold, out.bits, out.clamp, out.rounding, flags)


@pytest.mark.parametrize("n", [*SIZES, 1024, 1025, 40000])
@pytest.mark.parametrize(("ex", "ey", "eo"), [(3, 3, 6), (7, 4, 3), (0, 9, 0), (20, 2, -2), (-5, 3, -3)])
@pytest.mark.parametrize("relu", [False, True])
def test_the_product_is_shifted_once(n: int, ex: int, ey: int, eo: int, relu: bool, isa: str) -> None:
    x, y = coded(codes8(n, 1), ex), coded(codes8(n, 2), ey)
    value, codes, scale, mask, _ = raw(x, y, output(fixed(eo), relu=relu))
    total = rsh(x.codes.long() * y.codes.long(), ex + ey - eo)
    want = total.clamp(0 if relu else -128, 127)
    assert torch.equal(codes.long(), want)
    assert torch.equal(value.double(), want.double() / 2.0**eo)
    assert torch.equal(bits_of(mask, n), (total >= (1 if relu else -128)) & (total <= 127))
    assert scale.item() == 2.0**eo
    assert mask.numel() == 0 or bits_of(mask, mask.numel() * 8)[n:].sum() == 0
    got = ops.mul_codes(x.codes, y.codes, ex + ey - eo, 8)
    assert torch.equal(got.long(), total.clamp(-128, 127))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_other_widths(dtype: torch.dtype, bits: int, isa: str) -> None:
    info = torch.iinfo(dtype)
    x, y = torch.randint(info.min, info.max, (2, 333), dtype=dtype)
    x[:2], y[:2] = info.min, torch.tensor([info.min, info.max], dtype=dtype)
    for shift in (0, 1, 9, 31, 40, 62):
        want = rsh(x.long() * y.long(), shift).clamp(*limits(bits))
        assert torch.equal(ops.mul_codes(x, y, shift, bits).long(), want)
    if dtype == torch.int32:
        _, codes, *_ = raw(coded(x, 4), coded(y, 3), output(fixed(-20), bits=bits))
        assert torch.equal(codes.long(), rsh(x.long() * y.long(), 27).clamp(*limits(bits)))


def test_the_scale_follows_the_exact_product() -> None:
    x, y, s = coded(codes8(300, 1), 5), coded(codes8(300, 2), 9), stats()
    c = ops.mul(x, y, output(s, observe=True))
    peak = (x.value.double() * y.value.double()).abs().max().item()
    assert s.running.item() == peak
    assert c.scale.item() == 2.0 ** min(exp2_of_peak(peak, 8), 14)
    one = coded(torch.ones(9, dtype=torch.int8), 1)
    assert ops.mul(one, one, output(stats(), observe=True)).scale.item() == 4.0  # its own range would be 2**9
    clamped, s = output(stats(), observe=True, clamp=0.5), stats()
    c = ops.mul(x, y, clamped._replace(stats=s))
    assert s.running.item() == 0.5
    assert c.value.abs().max() <= 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_broadcasts_and_memory_orders(layout: str) -> None:
    x = LAYOUTS[layout](codes8(120, 1).view(2, 3, 4, 5))
    shapes = [x.shape, (), (1,)] + ([(*x.shape[:2], 1, 1), (1, x.shape[1], 1, 1)] if x.dim() == 4 else [])
    for shape in shapes:
        y = codes8(math.prod(shape), 2).view(shape)
        want = rsh(x.long() * y.long(), 4).clamp(-128, 127)
        got = ops.mul(coded(x, 3), coded(y, 5), output(fixed(4)))
        assert torch.equal(got.codes.long(), want)
        assert torch.equal(got.value, want / 16.0)
        assert torch.equal(ops.mul_codes(x, y, 4, 8).long(), want)


@pytest.mark.parametrize("which", ["x", "y"])
def test_nan(which: str) -> None:
    x, bad, s = coded(codes8(40), 4), coded(codes8(40), math.nan), fixed(4)
    a, b = (bad, x) if which == "x" else (x, bad)
    value, codes, scale, mask, _ = raw(a, b, output(s, observe=True))
    assert value.isnan().all()
    assert scale.isnan()
    assert not codes.any()
    assert not bits_of(mask, 40).any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), ()])
def test_gradients(shape: tuple[int, ...], isa: str) -> None:
    q = codes8(120, 1).view(2, 3, 4, 5), codes8(math.prod(shape), 2).view(shape)
    x, y = (coded(c, 5)._replace(value=(c.float() / 32).requires_grad_()) for c in q)
    t = torch.tensor([2.0], requires_grad=True)  # rint(7 - 2) = 5
    c = ops.mul(x, y, output(stats(), threshold=t))
    g = torch.randn(2, 3, 4, 5)
    gx, gy, gt = torch.autograd.grad(c.value, (x.value, y.value, t), g)
    product = q[0].long() * q[1].long()
    total = rsh(product, 5)
    passes = (total >= -128) & (total <= 127)
    torch.testing.assert_close(gx, torch.where(passes, g * y.value.detach(), 0.0))
    torch.testing.assert_close(gy, torch.where(passes, g * x.value.detach(), 0.0).sum_to_size(shape))
    slope = torch.where(passes, total - product / 32.0, total.clamp(-128, 127).double())
    torch.testing.assert_close(gt, (math.log(2) / 32 * (g.double() * slope).sum()).float().reshape(1))


def test_square() -> None:
    x = coded(codes8(50), 3)._replace(value=(codes8(50).float() / 8).requires_grad_())
    c = ops.mul(x, x, output(fixed(-3)))
    c.value.sum().backward()
    passes = rsh(x.codes.long() ** 2, 9) <= 127
    assert torch.equal(x.value.grad, torch.where(passes, 2 * x.value.detach(), 0.0))


def test_refusals() -> None:
    x, q, out = coded(codes8(4), 1), codes8(4), output(stats())
    for bad, kind, text in [
        (lambda: ops.mul(q, x, out), TypeError, "mul: x must be Coded, got Tensor"),
        (lambda: ops.mul(x, coded(codes8(5), 1), out), ValueError, r"mul: y must expand .*, got \(4,\) and \(5,\)"),
        (lambda: ops.mul(coded(codes8(1), 1), x, out), ValueError, "mul: y must expand to the shape of x"),
        (lambda: ops.mul_codes(q, q.float(), 0, 8), TypeError, "mul_codes: y must be int8, int16 or int32"),
        (lambda: ops.mul_codes(q, q, 64, 8), ValueError, r"mul_codes: shift must be in \[0, 63\], got 64"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 2, 2), torch.ones(())
    last = q.contiguous(memory_format=torch.channels_last)
    for flags in (0, OBSERVE | GRAD):
        for t in (None, torch.tensor([1.0])):
            torch.library.opcheck(native.mul.default, (q, one, last, one, *fixed(0), t, 8, 0.0, 1, flags))
    torch.library.opcheck(native.mul_codes.default, (last, last, 1, 16))
