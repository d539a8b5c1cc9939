"""Integer matrix product: every engine against int64, no 32-bit clamp, gradients, statistics, errors."""

import math
import random

import pytest
import torch

from linger import UnsupportedError, ops
from linger.ops import Coded

from . import bilinear_oracle as oracle

SIZES = (1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 48, 64, 100, 130, 784)
ROWS = ((1,), (2,), (3, 5), (12,), (13,), (16,), (47,), (48,), (49,), (2, 3, 40), (500,))


def sums(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    a = (x.double() @ w.double().t()).long()
    return a if bias is None else a + bias.long()


@pytest.mark.parametrize("seed", range(40))
def test_linear_codes_equals_int64(seed, isa):
    r = random.Random(seed)
    torch.manual_seed(seed)
    rows, k, o = r.choice(ROWS), r.choice(SIZES), r.choice(SIZES)
    kinds = ("random", "random", "min", "max", "limits")
    x, w = oracle.codes(r.choice(kinds), (*rows, k)), oracle.codes(r.choice(kinds), (o, k))
    if r.random() < 0.3:
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    limit = r.choice([0, 1000, 2**30, 2**31 - 1])
    bias = torch.randint(-limit - 1, limit + 1, (o,)).int() if limit else None
    bits, shift, relu = r.choice([8, 8, 4, 16, 32]), r.choice([0, 1, 5, 11, 20, 30, 31, 63]), r.random() < 0.4
    want = oracle.shifted(sums(x, w, bias), shift, 1).clamp(0 if relu else -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    got = ops.linear_codes(x, w, bias, shift, bits, relu)
    assert got.dtype == {8: torch.int8, 4: torch.int8, 16: torch.int16, 32: torch.int32}[bits]
    assert got.is_contiguous() and torch.equal(got.long(), want)


def test_sum_is_not_clamped_to_32_bits(isa):
    x, w = oracle.codes("min", (3, 64)), oracle.codes("min", (2, 64))
    bias = torch.tensor([2**31 - 1, -(2**31)], dtype=torch.int32)
    a = 64 * 2**14 + 2**31 - 1  # a convolution would saturate here
    assert ops.linear_codes(x, w, bias, 25, 8, False)[0].tolist() == [
        (a + 2**24) >> 25,
        (64 * 2**14 - 2**31 + 2**24) >> 25,
    ]


@pytest.mark.parametrize("left", [1, 5, 31])
def test_left_shift_multiplies_the_saturated_sum(left, isa):
    x, w = oracle.codes("random", (5, 20)), oracle.codes("random", (3, 20))
    bias = torch.tensor([0, 2**31 - 1, -(2**31)], dtype=torch.int32)
    want = (sums(x, w, bias).clamp(-(2**31), 2**31 - 1) << left).clamp(-(2**31), 2**31 - 1)
    assert torch.equal(ops.linear_codes(x, w, bias, -left, 32, False).long(), want)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("seed", range(20))
def test_linear_equals_the_written_rule(seed, method, isa):
    r = random.Random(seed)
    torch.manual_seed(seed)
    rows, k, o = r.choice(ROWS), r.choice(SIZES), r.choice(SIZES)
    scale = torch.tensor(2.0 ** r.randint(0, 7))
    x = Coded(torch.zeros(*rows, k), oracle.codes(r.choice(("random", "min", "limits")), (*rows, k)), scale)
    w = torch.randn(o, k) * r.choice([0.01, 1.0])
    bias = torch.randn(o) * r.choice([0.1, 1e5]) if r.random() < 0.7 else None
    threshold = torch.tensor([r.uniform(-2, 6)]) if method == "TQT" else None
    fields = {
        "bits": r.choice([8, 8, 4, 16, 32]),
        "rounding": r.choice([1, 0, 2, 3]),
        "clamp": r.choice([0.0, 8.0, 0.3]),
    }
    out = oracle.output(threshold=threshold, relu=r.random() < 0.5, **fields)
    wq, w_scale, *_ = ops.quantize_weight(w, oracle.output(), bias, x.scale)
    bq = None if bias is None else ops.quantize_bias(bias, x.scale, w_scale)
    acc = int(math.log2(x.scale) + math.log2(w_scale))
    exp2 = None if threshold is None else min(max(round(out.bits - 1 - threshold.item()), 0), 23, acc)
    want = oracle.quantized(sums(x.codes, wq, bq), acc, out, False, exp2)
    value, codes, y_scale, mask, slope = torch.ops.linger.linear(
        x.codes, x.scale, wq, w_scale, bias, *out.stats, threshold, out.bits, out.clamp, out.rounding,
        ops.spec.flags_of(out, True),
    )  # fmt: skip
    assert y_scale.item() == out.stats.scale.item() == 2.0**want.exp2
    assert torch.equal(codes.long(), want.codes) and torch.equal(value, want.codes.float() / y_scale)
    assert torch.equal(mask, oracle.row_mask(want.mask))
    if threshold is None:
        assert out.stats.running.item() == torch.tensor(max(want.peak, 1e-6)).item()
    elif 0 <= round(out.bits - 1 - threshold.item()) <= min(23, acc):
        assert torch.equal(slope, want.slope)
    else:
        assert not slope.any()


def test_any_number_of_threads_gives_the_same_bits(isa):
    torch.manual_seed(0)
    x, w, bias = oracle.codes("random", (300, 784)), oracle.codes("random", (500, 784)), torch.randn(500)
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            one = torch.tensor(64.0)
            results.append(torch.ops.linger.linear(x, one, w, one, bias, *oracle.stats(), None, 8, 8.0, 1, 5))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("rows", [(6,), (2, 3), (2, 3, 4), ()])
def test_gradients_follow_the_written_rule(rows):
    torch.manual_seed(0)
    codes = oracle.codes("random", (*rows, 20))
    x = Coded((codes / 64.0).requires_grad_(), codes, torch.tensor(64.0))
    w, bias = torch.randn(10, 20, requires_grad=True), torch.randn(10, requires_grad=True)
    t, wt = torch.tensor([1.5], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    out, spec = oracle.output(threshold=t, clamp=8.0), oracle.output(threshold=wt)
    y = ops.linear(x, w, bias, spec, out)
    upstream = torch.randn(y.value.shape)
    y.value.backward(upstream)
    frozen = spec._replace(threshold=wt.detach(), observe=False)
    wq, w_scale, w_bits, w_slope = ops.quantize_weight(w.detach(), frozen, bias.detach(), x.scale)
    acc = int(math.log2(x.scale) + math.log2(w_scale))
    exp2 = int(math.log2(y.scale))
    want = oracle.quantized(sums(codes, wq, ops.quantize_bias(bias.detach(), x.scale, w_scale)), acc, out, False, exp2)
    masked = torch.where(want.mask, upstream, 0.0).double().view(-1, 10)
    gw = masked.t() @ (codes.double() / 64.0).view(-1, 20)
    passes = torch.tensor([w_bits[i // 8] >> i % 8 & 1 for i in range(w.numel())]).view(w.shape)
    close = {"rtol": 1e-5, "atol": 1e-5}  # float32 sums of at most 24 products of order 1
    torch.testing.assert_close(x.value.grad.double(), (masked @ (wq.double() / w_scale)).view(codes.shape), **close)
    torch.testing.assert_close(w.grad.double(), gw * passes, **close)
    torch.testing.assert_close(bias.grad.double(), masked.sum(0), **close)
    gt = (upstream.double() * want.slope).sum().view(1) * math.log(2) / y.scale
    torch.testing.assert_close(t.grad.double(), gt.double(), **close)
    torch.testing.assert_close(
        wt.grad.double(), (gw * w_slope).sum().double().view(1) * math.log(2) / w_scale, rtol=1e-4, atol=1e-5
    )


def test_nan_and_empty():
    w, out = torch.randn(3, 4), oracle.output()
    x = Coded(torch.zeros(2, 4), oracle.codes("random", (2, 4)), torch.tensor(math.nan))
    y = ops.linear(x, w, None, oracle.output(), out)
    assert y.value.isnan().all() and y.scale.isnan() and not y.codes.any() and out.stats.n_skipped.item() == 1
    y = ops.linear(
        Coded(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int8), torch.tensor(16.0)), w, None, oracle.output(), out
    )
    assert y.value.shape == (0, 3) and out.stats.n_batches.item() == 0


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("threshold", [None, torch.tensor([2.1])])
def test_opcheck(grad, threshold):
    x, w, one = oracle.codes("random", (2, 3, 7)), oracle.codes("random", (6, 7)), torch.tensor(16.0)
    state = (*oracle.stats(3.0, 4.0), threshold)
    torch.library.opcheck(
        torch.ops.linger.linear.default, (x, one, w, one, torch.randn(6), *state, 8, 8.0, 1, 1 + 4 * grad)
    )
    torch.library.opcheck(torch.ops.linger.linear_codes.default, (x, w, None, 5, 16, True))


@pytest.mark.parametrize(
    ("x", "w", "bias", "bits", "error", "message"),
    [
        (
            torch.zeros(2, 5, dtype=torch.int8),
            torch.zeros(3, 4),
            None,
            8,
            ValueError,
            r"linear: x must be \(..., K\) and weight \(O, K\)",
        ),
        (
            torch.zeros(2, 4, dtype=torch.int8),
            torch.zeros(3, 4, 1),
            None,
            8,
            ValueError,
            r"linear: x must be \(..., K\)",
        ),
        (torch.zeros(2, 4, dtype=torch.int32), torch.zeros(3, 4), None, 8, UnsupportedError, "at most 8 bits"),
        (
            torch.zeros(2, 4, dtype=torch.int8),
            torch.zeros(3, 4),
            None,
            12,
            UnsupportedError,
            "the weight must have at most 8 bits",
        ),
        (
            torch.zeros(2, 4, dtype=torch.int8),
            torch.zeros(3, 4),
            torch.zeros(4),
            8,
            ValueError,
            r"bias must have shape \(3,\)",
        ),
        (torch.zeros(2, 0, dtype=torch.int8), torch.zeros(3, 0), None, 8, ValueError, "weight must not be empty"),
    ],
)
def test_linear_errors(x, w, bias, bits, error, message):
    with pytest.raises(error, match=message):
        ops.linear(Coded(torch.zeros(1), x, torch.tensor(16.0)), w, bias, oracle.output(bits=bits), oracle.output())


def test_linear_codes_errors():
    x, w = oracle.codes("random", (2, 4)), oracle.codes("random", (3, 4))
    with pytest.raises(ValueError, match=r"linear_codes: shift must be in \[0, 63\], got -1"):
        ops.linear_codes(x, w, None, -1, 8, False)
    with pytest.raises(ValueError, match=r"linear_codes: shift must be in \[-31, 63\], got -32"):
        ops.linear_codes(x, w, None, -32, 32, False)
    with pytest.raises(TypeError, match=r"linear_codes: w must be torch.int8"):
        ops.linear_codes(x, w.float(), None, 1, 8, False)
