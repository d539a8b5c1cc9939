"""Addition, re-quantizing and the channel-wise product of codes."""

import math

import pytest
import torch
from ops_oracle import SIZES, bits_of, coded, codes8, exp2_of_peak, fixed, limits, output, rsh, stats
from torch import Tensor

from linger import ops
from linger.ops.spec import GRAD, OBSERVE, RELU

native = torch.ops.linger


def raw(x: ops.Coded, y: ops.Coded, out: ops.Output) -> tuple[Tensor, ...]:
    flags = OBSERVE * out.observe + RELU * out.relu + GRAD
    head = (x.codes, x.scale, y.codes, y.scale)
    return native.add(*head, *out.stats, out.threshold, out.bits, out.clamp, out.rounding, flags)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("ex", "ey", "eo"), [(3, 3, 3), (7, 4, 3), (0, 9, 0), (20, 2, -2)])
@pytest.mark.parametrize("relu", [False, True])
def test_add_rounds_each_operand_then_saturates(n: int, ex: int, ey: int, eo: int, relu: bool, isa: str) -> None:
    x, y = coded(codes8(n, 1), ex), coded(codes8(n, 2), ey)
    value, codes, scale, mask, _ = raw(x, y, output(fixed(eo), relu=relu))
    total = rsh(x.codes.long(), ex - eo) + rsh(y.codes.long(), ey - eo)
    want = total.clamp(0 if relu else -128, 127)
    assert torch.equal(codes.long(), want)
    assert torch.equal(value.double(), want.double() / 2.0**eo)
    assert torch.equal(bits_of(mask, n), (total >= (1 if relu else -128)) & (total <= 127))
    assert scale.item() == 2.0**eo


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("rounding", range(4))
def test_add_in_other_widths_and_roundings(dtype: torch.dtype, bits: int, rounding: int, isa: str) -> None:
    info = torch.iinfo(dtype)
    q = torch.randint(info.min, info.max, (2, 500), dtype=dtype)
    q[0, :4] = torch.tensor([info.min, info.max, 1, -1])
    x, y = coded(q[0], 6), coded(q[1], 4)
    codes = raw(x, y, output(fixed(3), bits=bits, rounding=rounding))[1]
    lo, hi = limits(bits)

    def shift(v: Tensor, s: int) -> Tensor:
        whole, rest = v >> s, v & ((1 << s) - 1)
        half = 1 << (s - 1)
        even = (rest > half) | ((rest == half) & (whole % 2 == 1))
        return whole + [torch.zeros_like(rest), (rest >= half).long(), even.long(), (rest > 0).long()][rounding]

    want = shift(q[0].long(), 3).clamp(lo, hi) + shift(q[1].long(), 1).clamp(lo, hi)
    assert torch.equal(codes.long(), want.clamp(lo, hi))
    assert codes.dtype == (torch.int8 if bits <= 8 else torch.int32)


def test_add_observes_the_exact_sum_and_caps_the_scale(isa: str) -> None:
    x, y, s = coded(codes8(300, 1), 5), coded(codes8(300, 2), 9), stats()
    c = ops.add(x, y, output(s, observe=True))
    peak = (x.value.double() + y.value.double()).abs().max().item()
    assert s.running.item() == peak
    assert c.scale.item() == 2.0 ** min(exp2_of_peak(peak, 8), 5)
    s = stats()
    small = coded(torch.ones(9, dtype=torch.int8), 2)
    assert ops.add(small, small, output(s, observe=True)).scale.item() == 4.0  # its own range would be 2**7
    assert s.scale.item() == 4.0


def test_add_clamps_the_sum(isa: str) -> None:
    x, y, s = coded(codes8(300, 1), 4), coded(codes8(300, 2), 4), fixed(4)
    _, codes, _, mask, _ = raw(x, y, output(s, clamp=3.3))
    total = x.codes.long() + y.codes.long()
    assert torch.equal(codes.long(), total.clamp(-52, 52))  # floor(3.3 * 16)
    assert torch.equal(bits_of(mask, 300), total.abs() <= 52)
    s = stats()
    ops.add(x, y, output(s, clamp=3.3, observe=True))
    assert s.running.item() == torch.tensor(3.3).item()


@pytest.mark.parametrize("which", ["x", "y"])
def test_add_with_a_nan_operand(which: str) -> None:
    x, bad, s = coded(codes8(40), 4), coded(codes8(40), math.nan), fixed(4)
    a, b = (bad, x) if which == "x" else (x, bad)
    value, codes, scale, mask, _ = raw(a, b, output(s, observe=True))
    assert value.isnan().all()
    assert scale.isnan()
    assert not codes.any()
    assert not mask.any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)


@pytest.mark.parametrize("relu", [False, True])
def test_add_gradients(relu: bool, isa: str) -> None:
    q = codes8(500, 1), codes8(500, 2)
    x, y = (coded(c, 5)._replace(value=(c.float() / 32).requires_grad_()) for c in q)
    t = torch.tensor([2.0], requires_grad=True)  # rint(7 - 2) = 5
    c = ops.add(x, y, output(stats(), threshold=t, relu=relu))
    g = torch.randn(500)
    gx, gy, gt = torch.autograd.grad(c.value, (x.value, y.value, t), g)
    total = q[0].long() + q[1].long()
    passes = (total >= (1 if relu else -128)) & (total <= 127)
    assert torch.equal(gx, torch.where(passes, g, 0.0))
    assert torch.equal(gy, gx)
    slope = torch.where((total > 127) | (total < -128), total.clamp(-128, 127), 0) * ((total > 0) | (not relu))
    torch.testing.assert_close(gt, (math.log(2) / 32 * (g.double() * slope).sum()).float().reshape(1))
    (gx,) = torch.autograd.grad(ops.add(x, coded(q[1], 5), output(fixed(5))).value.sum(), x.value)
    assert torch.equal(gx, ((total >= -128) & (total <= 127)).float())


def test_add_to_itself() -> None:
    x = coded(codes8(50), 3)._replace(value=(codes8(50).float() / 8).requires_grad_())
    c = ops.add(x, x, output(fixed(3)))
    c.value.sum().backward()
    assert torch.equal(c.codes.long(), (2 * x.codes.long()).clamp(-128, 127))
    assert torch.equal(x.value.grad, 2.0 * (x.codes.long() * 2 == c.codes))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("ex", "ey", "eo"), [(3, 3, 3), (7, 4, 3), (0, 9, 0), (20, 2, -2)])
@pytest.mark.parametrize("relu", [False, True])
def test_sub_rounds_each_operand_then_saturates(n: int, ex: int, ey: int, eo: int, relu: bool, isa: str) -> None:
    q = codes8(n, 1), codes8(n, 2)
    x, y = (coded(c, e)._replace(value=(c.float() / 2.0**e).requires_grad_()) for c, e in zip(q, (ex, ey), strict=True))
    c = ops.sub(x, y, output(fixed(eo), relu=relu))
    total = rsh(q[0].long(), ex - eo) - rsh(q[1].long(), ey - eo)
    want = total.clamp(0 if relu else -128, 127)
    assert torch.equal(c.codes.long(), want)
    g = torch.randn(n)
    gx, gy = torch.autograd.grad(c.value, (x.value, y.value), g)
    assert torch.equal(gx, torch.where((total >= (1 if relu else -128)) & (total <= 127), g, 0.0))
    assert torch.equal(gy, -gx)
    if not relu:
        assert torch.equal(ops.sub_codes(*q, ex - eo, ey - eo, 8).long(), want)


def test_sub_observes_the_exact_difference_and_its_slope(isa: str) -> None:
    x, y, s = coded(codes8(300, 1), 5), coded(codes8(300, 2), 9), stats()
    ops.sub(x, y, output(s, observe=True))
    exact = x.value.double() - y.value.double()
    assert s.running.item() == exact.abs().max().item()
    t = torch.tensor([4.0], requires_grad=True)  # rint(7 - 4) = 3
    g = torch.randn(300)
    (gt,) = torch.autograd.grad(ops.sub(x, y, output(stats(), threshold=t)).value, t, g)
    total = rsh(x.codes.long(), 2) - rsh(y.codes.long(), 6)
    slope = torch.where((total <= 127) & (total >= -128), total - exact * 8, total.clamp(-128, 127).double())
    torch.testing.assert_close(gt, (math.log(2) / 8 * (g.double() * slope).sum()).float().reshape(1))


def test_add_of_different_memory_orders() -> None:
    a, b = codes8(120, 1).view(2, 3, 4, 5), codes8(120, 2).view(2, 3, 4, 5)
    last = b.contiguous(memory_format=torch.channels_last)
    want = (a.long() + b.long()).clamp(-128, 127)
    mixed = ops.add(coded(a, 2), coded(last, 2), output(fixed(2)))
    same = ops.add(coded(a.contiguous(memory_format=torch.channels_last), 2), coded(last, 2), output(fixed(2)))
    assert torch.equal(mixed.codes.long(), want)
    assert torch.equal(same.codes.long(), want)
    assert same.value.stride() == last.stride()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_add_codes_and_requant_codes(dtype: torch.dtype, bits: int, isa: str) -> None:
    info, (lo, hi) = torch.iinfo(dtype), limits(bits)
    x, y = torch.randint(info.min, info.max, (2, 333), dtype=dtype)
    kind = {4: torch.int8, 8: torch.int8, 16: torch.int16, 32: torch.int32}[bits]
    for sx, sy in ((0, 0), (3, 0), (1, 8), (40, 63)):
        want = rsh(x.long(), sx).clamp(lo, hi) + rsh(y.long(), sy).clamp(lo, hi)
        got = ops.add_codes(x, y, sx, sy, bits)
        assert got.dtype == kind
        assert torch.equal(got.long(), want.clamp(lo, hi))
    for s in (-30, -6, 0, 1, 9, 63):
        want = rsh(x.long(), s) if s >= 0 else x.long() << -s
        assert torch.equal(ops.requant_codes(x, s, bits).long(), want.clamp(lo, hi))
    assert not ops.requant_codes(torch.zeros(3, dtype=dtype), -63, bits).any()


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 7), (3, 5, 4, 6), (0, 5, 2, 2), (2, 0, 3)])
@pytest.mark.parametrize("shift", [-3, 0, 1, 7, 31, 63])
@pytest.mark.parametrize("last", [False, True])
def test_scale_bias_is_batchnorm2dint(shape: tuple[int, ...], shift: int, last: bool) -> None:
    x = torch.randint(-128, 128, shape, dtype=torch.int8)
    if last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    c = shape[1]
    w = torch.randint(-128, 128, (c,), dtype=torch.int8)
    b = torch.randint(-(2**31), 2**31, (c,)).int() >> (9 if shift < 20 else 0)
    view = (1, c, *[1] * (len(shape) - 2))
    total = x.long() * w.long().view(view) + b.long().view(view)
    want = (rsh(total, shift) if shift >= 0 else total << -shift).clamp(-128, 127)
    got = ops.scale_bias_codes(x, w, b, shift)
    assert torch.equal(got.long(), want)
    assert got.stride() == x.stride()


def test_refusals_name_the_argument() -> None:
    x, q, out = coded(codes8(4), 1), codes8(4), output(stats())
    for bad, kind, text in [
        (lambda: ops.add(q, x, out), TypeError, "add: x must be Coded, got Tensor"),
        (
            lambda: ops.add(x, x._replace(codes=q.float()), out),
            TypeError,
            "add: y.codes must be int8 or int32, got torch.float32",
        ),
        (
            lambda: ops.add(x, coded(codes8(5), 1), out),
            ValueError,
            r"add: x and y must have one shape, got \(4,\) and \(5,\)",
        ),
        (lambda: ops.add(x, x, out._replace(bits=1)), ValueError, r"add: bits must be in \[2, 32\], got 1"),
        (lambda: ops.add_codes(q, q.float(), 0, 0, 8), TypeError, "add_codes: y must be int8, int16 or int32"),
        (lambda: ops.add_codes(q, q, -1, 0, 8), ValueError, r"add_codes: shift_x must be in \[0, 63\], got -1"),
        (lambda: ops.requant_codes(q, 64, 8), ValueError, r"requant_codes: shift must be in \[-63, 63\], got 64"),
        (lambda: ops.scale_bias_codes(q.view(2, 2), q[:2], q, 0), TypeError, "scale_bias_codes: b must be torch.int32"),
        (lambda: ops.scale_bias_codes(q, q, q.int(), 0), ValueError, "x must have at least 2 dimensions, got 1"),
        (lambda: ops.scale_bias_codes(q.view(2, 2), q, q.int(), 0), ValueError, "w must have 2 elements, got 4"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 2, 2), torch.ones(())
    last = q.contiguous(memory_format=torch.channels_last)
    w, b = q.flatten()[:3], q.flatten()[:3].int()
    for flags in (0, OBSERVE | GRAD):
        for t in (None, torch.tensor([1.0])):
            torch.library.opcheck(native.add.default, (q, one, last, one, *fixed(0), t, 8, 0.0, 1, flags))
            torch.library.opcheck(native.sub.default, (q, one, last, one, *fixed(0), t, 8, 0.0, 1, flags))
    for op, args in [
        (native.add_codes, (last, last, 1, 2, 16)),
        (native.sub_codes, (last, last, 1, 2, 16)),
        (native.requant_codes, (q, 2, 8)),
        (native.scale_bias_codes, (last, w, b, 3)),
        (native.scale_bias_codes, (q[:, :, :1], w, b, 3)),
    ]:
        torch.library.opcheck(op.default, args)
