"""Concatenation: every operand against int64, the common scale, gradients, refusals."""

import math

import pytest
import torch
from ops_oracle import LAYOUTS, SIZES, coded, codes8, exp2_of_peak, fixed, limits, output, rsh, stats

from linger import ops
from linger.ops.spec import GRAD, OBSERVE

native = torch.ops.linger


def moved(q: torch.Tensor, left: int, bits: int = 8) -> torch.Tensor:
    q = q.long()
    return (q << left if left >= 0 else rsh(q, -left)).clamp(*limits(bits))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("ex", "ey", "eo"), [(3, 3, 3), (7, 4, 3), (0, 6, 5), (-2, 4, 4), (30, 2, -7)])
def test_each_operand_comes_to_the_scale_of_the_result(n: int, ex: int, ey: int, eo: int, isa: str) -> None:
    x, y = coded(codes8(n, 1), ex), coded(codes8(2 * n, 2), ey)
    c = ops.cat([x, y], -1, output(fixed(eo)))
    want = torch.cat([moved(x.codes, eo - ex), moved(y.codes, eo - ey)])
    assert torch.equal(c.codes.long(), want)
    assert torch.equal(c.value.double(), want.double() / 2.0**eo)
    assert c.scale.item() == 2.0**eo


@pytest.mark.parametrize("dim", range(4))
@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_axes_and_memory_orders(dim: int, layout: str) -> None:
    a, b, c = (LAYOUTS[layout](codes8(120, i).view(2, 3, 4, 5)) for i in range(3))
    got = ops.cat([coded(a, 2), coded(b, 3), coded(c.contiguous(), 4)], dim, output(fixed(3)))
    assert torch.equal(got.codes.long(), torch.cat([moved(a, 1), moved(b, 0), moved(c, -1)], dim))
    assert torch.equal(got.value, got.codes.float() / 8)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
def test_other_widths(bits: int, dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    q = torch.randint(info.min, info.max, (700,), dtype=dtype)
    c = ops.cat([coded(q, 5), coded(q[:3], 1)], 0, output(fixed(3), bits=bits))
    assert torch.equal(c.codes.long(), torch.cat([moved(q, -2, bits), moved(q[:3], 2, bits)]))


def test_the_scale_follows_the_maximum_within_reach() -> None:
    x, y, s = coded(codes8(300, 1), 5), coded(codes8(300, 2) // 8, 9), stats()
    c = ops.cat([x, y], 0, output(s, observe=True))
    assert s.running.item() == 4.0
    assert c.scale.item() == 2.0 ** exp2_of_peak(4.0, 8) == 32.0
    small = coded(torch.ones(9, dtype=torch.int8), 1)
    assert ops.cat([small, small], 0, output(stats()), left=2).scale.item() == 8.0  # its own range would be 2**8
    zero = coded(torch.zeros(9, dtype=torch.int8), -3)
    assert ops.cat([zero, zero], 0, output(stats(), observe=True)).scale.item() == 8.0  # 6 bits left of 2**-3
    assert ops.cat([zero, x], 0, output(fixed(0)), widest=True).scale.item() == 32.0
    ops.cat([zero, x], 0, output(s, observe=True), widest=True)
    assert s.scale.item() == 32.0
    assert s.n_batches.item() == 2


def test_nan_and_gradients() -> None:
    x, bad, s = coded(codes8(40), 4), coded(codes8(40), math.nan), fixed(4)
    c = ops.cat([x, bad], 0, output(s, observe=True))
    assert c.value.isnan().all()
    assert c.scale.isnan()
    assert not c.codes.any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)
    for widest in (False, True):
        q = codes8(600, 1), codes8(30, 2)
        a = coded(q[0], 5)._replace(value=(q[0].float() / 32).requires_grad_())
        b = coded(q[1], 3)._replace(value=(q[1].float() / 8).requires_grad_())
        t = torch.tensor([2.0], requires_grad=True)  # rint(7 - 2) = 5
        c = ops.cat([a, b], 0, output(stats(), threshold=t), widest=widest)
        assert c.scale.item() == 32.0
        g = torch.randn(630)
        ga, gb, gt = torch.autograd.grad(c.value, (a.value, b.value, t), g)
        wide = q[1].long() * 4
        inside = (wide >= -128) & (wide <= 127)
        assert torch.equal(ga, g[:600])
        assert torch.equal(gb, torch.where(inside, g[600:], 0.0))
        slope = torch.where(inside, 0, wide.clamp(-128, 127))
        want = 0.0 if widest else (math.log(2) / 32 * (g[600:].double() * slope).sum()).float().item()
        assert gt.item() == pytest.approx(want, rel=1e-5)


def test_refusals() -> None:
    x, out = coded(codes8(4), 1), output(stats())
    for bad, kind, text in [
        (lambda: ops.cat([], 0, out), ValueError, "cat: needs at least one operand"),
        (lambda: ops.cat([x, x.codes], 0, out), TypeError, r"cat: xs\[1\] must be Coded, got Tensor"),
        (lambda: ops.cat([x, x], 1, out), ValueError, r"cat: dim must be in \[-1, 0\], got 1"),
        (
            lambda: ops.cat([coded(x.codes.view(2, 2), 0), coded(x.codes.view(1, 4), 0)], 0, out),
            ValueError,
            r"cat: the operands must differ in dimension 0 only, got \[\(2, 2\), \(1, 4\)\]",
        ),
        (lambda: ops.cat([x, x], 0, out, left=64), ValueError, r"cat: left must be in \[0, 63\], got 64"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 2, 2), torch.ones(())
    last = q.contiguous(memory_format=torch.channels_last)
    for t in (None, torch.tensor([1.0])):
        for flags in (0, OBSERVE):
            args = ([q, last], [one, one], *fixed(0), t, 8, 6, False, flags)
            torch.library.opcheck(native.cat_scale.default, args)
        torch.library.opcheck(native.rescale.default, (last, one, one, 8, 1, GRAD, t is not None))
