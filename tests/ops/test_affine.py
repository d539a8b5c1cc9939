"""A number times and plus: against int64, statistics, gradients, refusals."""

import math

import pytest
import torch
from ops_oracle import LAYOUTS, SIZES, bits_of, coded, codes8, exp2_of_peak, fixed, output, rsh, stats
from torch import Tensor

from linger import ops
from linger.ops.spec import GRAD, OBSERVE, RELU

native = torch.ops.linger


def raw(x: ops.Coded, w: int, w_exp2: int, b: Tensor, out: ops.Output) -> tuple[Tensor, ...]:
    flags = OBSERVE * out.observe + RELU * out.relu + GRAD
    tail = (*out.stats, out.threshold, out.bits, out.clamp, out.rounding, flags)
    return native.affine(x.codes, x.scale, w, w_exp2, b, *tail)


@pytest.mark.parametrize("n", [*SIZES, 1024, 1025, 40000])
@pytest.mark.parametrize(
    ("ex", "w", "ew", "b", "eo"),
    [
        (3, 64, 6, 0.7, 3),
        (7, -1, 0, -0.5, 3),
        (0, 127, 9, 1e6, -9),
        (5, -128, 7, 0.0, 12),
        (20, 85, 9, 0.5, 7),
        (23, 1, 0, 100.0, 0),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_the_sum_is_shifted_once(n: int, ex: int, w: int, ew: int, b: float, eo: int, relu: bool, isa: str) -> None:
    x = coded(codes8(n, 1), ex)
    value, codes, scale, mask, _ = raw(x, w, ew, torch.tensor(b), output(fixed(eo), relu=relu))
    addend = max(min(round(b * 2.0 ** (ex + ew)), 2**30), -(2**30))
    total = rsh(x.codes.long() * w + addend, ex + ew - eo)
    low = 0 if relu else -128
    assert torch.equal(codes.long(), total.clamp(low, 127))
    assert torch.equal(value.double(), total.clamp(low, 127).double() / 2.0**eo)
    assert torch.equal(bits_of(mask, n), (total >= (1 if relu else -128)) & (total <= 127))
    assert scale.item() == 2.0**eo
    assert ops.affine_bias(torch.tensor(b), x.scale, ew).item() == addend


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_orders(layout: str) -> None:
    x = LAYOUTS[layout](codes8(120, 1).view(2, 3, 4, 5))
    got = ops.affine(coded(x, 3), 64, 6, torch.tensor(0.25), output(fixed(3)))
    assert torch.equal(got.codes.long(), (x.long() + 2).clamp(-128, 127))


def test_statistics_follow_the_exact_sum() -> None:
    x, s = coded(codes8(300, 1), 5), stats()
    c = ops.affine(x, 64, 6, torch.tensor(3.0), output(s, observe=True))
    peak = (x.value.double() + 3).abs().max().item()
    assert s.running.item() == peak
    assert c.scale.item() == 2.0 ** exp2_of_peak(peak, 8)
    one = coded(torch.ones(9, dtype=torch.int8), 1)
    assert ops.affine(one, 1, 0, torch.tensor(-0.5), output(stats(), observe=True)).scale.item() == 2.0  # the cap


@pytest.mark.parametrize("which", ["x", "b"])
def test_nan(which: str) -> None:
    x, s = coded(codes8(40), math.nan if which == "x" else 4), fixed(4)
    b = torch.tensor(math.nan if which == "b" else 1.0)
    value, codes, scale, mask, _ = raw(x, 64, 6, b, output(s, observe=True))
    assert value.isnan().all()
    assert scale.isnan()
    assert not codes.any()
    assert not bits_of(mask, 40).any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)


def test_gradients() -> None:
    q = codes8(120, 1).view(2, 3, 4, 5)
    x = coded(q, 5)._replace(value=(q.float() / 32).requires_grad_())
    b, t = torch.tensor(0.6, requires_grad=True), torch.tensor([2.0], requires_grad=True)  # rint(7 - 2) = 5
    c = ops.affine(x, -96, 6, b, output(stats(), threshold=t))
    g = torch.randn(2, 3, 4, 5, requires_grad=True)
    gx, gb, gt = torch.autograd.grad(c.value, (x.value, b, t), g, create_graph=True)
    exact = q.long() * -96 + round(0.6 * 2**11)
    total = rsh(exact, 6)
    passes = (total >= -128) & (total <= 127)
    torch.testing.assert_close(gx, torch.where(passes, -1.5 * g, 0.0))
    torch.testing.assert_close(gb, torch.where(passes, g, 0.0).sum())
    slope = torch.where(passes, total - exact / 64.0, total.clamp(-128, 127).double())
    torch.testing.assert_close(gt, (math.log(2) / 32 * (g.double() * slope).sum()).float().reshape(1))
    (again,) = torch.autograd.grad(gx.sum(), g)  # linear in the incoming gradient
    assert torch.equal(again, torch.where(passes, -1.5, 0.0))


def test_refusals() -> None:
    x, b, out = coded(codes8(4), 1), torch.ones(()), output(stats())
    wide = coded(codes8(4).int(), 1)
    for bad, kind, text in [
        (lambda: ops.affine(b, 1, 0, b, out), TypeError, "affine: x must be Coded, got Tensor"),
        (lambda: ops.affine(x, 128, 0, b, out), ValueError, r"affine: w must be in \[-128, 127\], got 128"),
        (
            lambda: ops.affine(x, 1, 0, b.double(), out),
            TypeError,
            "affine: b must be a float32 Tensor, got torch.float64",
        ),
        (
            lambda: ops.affine(x, 1, 0, torch.ones(2), out),
            ValueError,
            r"affine: b must have one element, got shape \(2,\)",
        ),
        (lambda: ops.affine(wide, 1, 0, b, out), NotImplementedError, "affine: x must have at most 8 bits"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 2, 2), torch.ones(())
    last = q.contiguous(memory_format=torch.channels_last)
    for flags in (0, OBSERVE | GRAD):
        for t in (None, torch.tensor([1.0])):
            torch.library.opcheck(native.affine.default, (last, one, 3, 1, one, *fixed(0), t, 8, 0.0, 1, flags))
    torch.library.opcheck(native.affine_bias.default, (one, one, 3))
