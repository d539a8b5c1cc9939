"""Integer convolution: every engine against int64, gradients against the written rule, statistics, NaN, errors."""

import math
import random

import pytest
import torch
from torch.nn import functional as F

from linger import UnsupportedError, ops
from linger.ops import Coded, Geometry

from . import bilinear_oracle as oracle

KINDS = ("random", "random", "min", "max", "limits")


def some_shape(r: random.Random) -> dict:
    """One shape around the widths of the engines' tiles."""
    depthwise, groups = r.random() < 0.3, r.choice([1, 1, 1, 2, 3])
    if depthwise:
        groups = c = o = r.choice([2, 3, 8, 16, 24, 32, 48, 64, 80, 130])
    else:
        c = groups * r.choice([1, 2, 3, 4, 5, 7, 16, 17])
        o = groups * r.choice([1, 2, 8, 15, 16, 17, 31, 32, 33, 48, 50])
    kernel = r.choice([(1, 1), (3, 3), (1, 3), (5, 2), (2, 7)])
    plain = r.random() < 0.5
    stride, dilation = ((1, 1), (1, 1)) if plain else tuple((r.randint(1, 3), r.randint(1, 3)) for _ in range(2))
    padding = (0, 0, 0, 0) if r.random() < 0.4 else tuple(r.randint(0, 3) for _ in range(4))
    h, w = (r.randint(1, top) + (k - 1) * d for top, k, d in zip((9, 35), kernel, dilation, strict=True))
    x, weight = (r.randint(1, 3), c, h, w), (o, c // groups, *kernel)
    return {"x": x, "w": weight, "geometry": Geometry(stride, padding, dilation, groups)}


def laid_out(r: random.Random, x: torch.Tensor) -> torch.Tensor:
    """The same codes in one of the memory orders that reach the operator."""
    form = r.choice(["last", "last", "first", "strided"])
    if form == "last":
        return x.contiguous(memory_format=torch.channels_last)
    return x if form == "first" else torch.cat([x, x], dim=3)[..., : x.shape[3]]


@pytest.mark.parametrize("seed", range(40))
def test_conv_codes_equals_int64(seed, isa):
    r = random.Random(seed)
    torch.manual_seed(seed)
    shape = some_shape(r)
    x, w = laid_out(r, oracle.codes(r.choice(KINDS), shape["x"])), oracle.codes(r.choice(KINDS), shape["w"])
    limit = r.choice([0, 1000, 2**30, 2**31 - 1])
    bias = torch.randint(-limit - 1, limit + 1, w.shape[:1]).int() if limit else None
    bits, shift, relu = r.choice([8, 8, 4, 16, 32]), r.choice([0, 1, 5, 11, 14, 20, 30, 31, 40, 63]), r.random() < 0.4
    a = oracle.sums(x, w, bias, *shape["geometry"]).clamp(-(2**31), 2**31 - 1)
    want = oracle.shifted(a, shift, 1).clamp(0 if relu else -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    got = ops.conv_codes(x, w, bias, *shape["geometry"], shift, bits, relu)
    assert got.dtype == {8: torch.int8, 4: torch.int8, 16: torch.int16, 32: torch.int32}[bits]
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got.long(), want)


def test_accumulator_saturates_once(isa):
    x, w = oracle.codes("max", (1, 64, 5, 5)), oracle.codes("max", (3, 64, 3, 3))
    bias = torch.tensor([2**31 - 1, -(2**31), 2**31 - 1 - 64 * 9 * 127 * 127], dtype=torch.int32)
    top = ops.conv_codes(x, w, bias, *Geometry(), 0, 32, False)[0, :, 0, 0]
    assert top.tolist() == [2**31 - 1, -(2**31) + 64 * 9 * 127 * 127, 2**31 - 1]


def test_sums_beyond_32_bits_are_exact(isa):
    channels = 140_000  # 140000 * 2^14 leaves 32 bits
    x, w = oracle.codes("min", (1, channels, 1, 1)), oracle.codes("min", (2, channels, 1, 1))
    bias = torch.tensor([-(2**31), 0], dtype=torch.int32)
    got = ops.conv_codes(x, w, bias, *Geometry(), 0, 32, False).flatten()
    assert got.tolist() == [channels * 2**14 - 2**31, 2**31 - 1]


def train_case(seed: int, method: str = "MOM"):
    r = random.Random(seed)
    torch.manual_seed(seed)
    shape = some_shape(r)
    x = Coded(
        torch.zeros(shape["x"]),
        laid_out(r, oracle.codes(r.choice(KINDS), shape["x"])),
        torch.tensor(2.0 ** r.randint(0, 7)),
    )
    w = torch.randn(shape["w"]) * r.choice([0.01, 0.1, 1.0])
    bias = torch.randn(shape["w"][0]) * r.choice([0.1, 10.0, 1e5]) if r.random() < 0.7 else None
    threshold = torch.tensor([r.uniform(-2, 6)]) if method == "TQT" else None
    out = oracle.output(
        bits=r.choice([8, 8, 4, 12, 16, 24, 32]),
        rounding=r.choice([1, 1, 0, 2, 3]),
        clamp=r.choice([0.0, 8.0, 0.3]),
        relu=r.random() < 0.5,
        threshold=threshold,
    )
    return x, w, bias, shape["geometry"], out


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("seed", range(25))
def test_conv_equals_the_written_rule(seed, method, isa):
    x, w, bias, geometry, out = train_case(seed, method)
    spec = oracle.output(rounding=2)
    wq, w_scale, *_ = ops.quantize_weight(w, spec, bias, x.scale)
    bq = None if bias is None else ops.quantize_bias(bias, x.scale, w_scale)
    acc = int(math.log2(x.scale) + math.log2(w_scale))
    exp2 = None if method == "MOM" else min(max(round(out.bits - 1 - out.threshold.item()), 0), 23, acc)
    want = oracle.quantized(oracle.sums(x.codes, wq, bq, *geometry), acc, out, True, exp2)
    native = torch.ops.linger.conv(
        x.codes, x.scale, wq, w_scale, bias, *geometry, *out.stats, out.threshold, out.bits, out.clamp, out.rounding,
        ops.spec.flags_of(out, True),
    )  # fmt: skip
    value, codes, scale, mask, slope = native
    assert scale.item() == out.stats.scale.item() == 2.0**want.exp2
    assert codes.dtype == (torch.int8 if out.bits <= 8 else torch.int32)
    assert torch.equal(codes.long(), want.codes)
    assert torch.equal(value, want.codes.float() / scale)
    assert torch.equal(mask, oracle.row_mask(want.mask.permute(0, 2, 3, 1)))
    assert value.stride() == codes.stride() and value.is_contiguous(memory_format=torch.channels_last)
    if method == "MOM":
        assert out.stats.running.item() == torch.tensor(max(want.peak, 1e-6)).item()
        assert slope.numel() == 0
    else:
        clipped = not 0 <= round(out.bits - 1 - out.threshold.item()) <= min(23, acc)
        assert torch.equal(slope, torch.zeros_like(slope) if clipped else want.slope)
    assert out.stats.is_init and out.stats.n_batches.item() == 1


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_any_number_of_threads_gives_the_same_bits(method, isa):
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            x, w, bias = Coded(torch.zeros(1), oracle.codes("random", (4, 24, 33, 31)), torch.tensor(16.0)), None, None
            torch.manual_seed(3)
            x = x._replace(codes=oracle.codes("random", (4, 24, 33, 31)), value=torch.zeros(4, 24, 33, 31))
            w, bias = torch.randn(40, 24, 3, 3), torch.randn(40)
            out = oracle.output(threshold=torch.tensor([5.0]) if method == "TQT" else None)
            wq, w_scale, *_ = ops.quantize_weight(w, oracle.output(), bias, x.scale)
            args = (x.codes, x.scale, wq, w_scale, bias, *Geometry(padding=(1, 1, 1, 1)), *out.stats, out.threshold)
            results.append(torch.ops.linger.conv(*args, 8, 8.0, 1, 5))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_exponent_follows_the_moving_average():
    torch.manual_seed(0)
    w, scale = torch.randn(8, 4, 3, 3), torch.tensor(16.0)
    out, running, moved = oracle.output(clamp=8.0), None, 0
    for step in range(60):
        codes = (oracle.codes("random", (2, 4, 8, 8)) >> (step % 7)).contiguous()
        spec = oracle.output()
        wq, w_scale, *_ = ops.quantize_weight(w, spec, None, scale)
        acc = int(math.log2(scale) + math.log2(w_scale))
        a = oracle.sums(codes, wq, None)
        peak = torch.tensor(oracle.quantized(a, acc, out, True).peak)
        running = peak if running is None else torch.tensor(0.9) * running + torch.tensor(0.1) * peak
        exp2 = min(oracle.exponent(running.item(), 8), acc)
        before = out.stats.scale.item()
        y = ops.conv(Coded(torch.zeros(2, 4, 8, 8), codes, scale), w, None, Geometry(), spec, out)
        assert out.stats.running.item() == running.item() and y.scale.item() == 2.0**exp2
        assert torch.equal(y.codes.long(), oracle.quantized(a, acc, out, True, exp2).codes)
        moved += before != out.stats.scale.item()
    assert moved > 1 and out.stats.n_batches.item() == 60  # the guessed exponent was stale more than once


def test_eval_uses_the_stored_scale_and_moves_nothing():
    torch.manual_seed(0)
    x = Coded(torch.zeros(1, 4, 5, 5), oracle.codes("random", (1, 4, 5, 5)), torch.tensor(16.0))
    w = torch.randn(3, 4, 3, 3)
    known = oracle.output(stats=oracle.stats(3.0, 4.0), observe=False)
    assert ops.conv(x, w, None, Geometry(), oracle.output(), known).scale.item() == 4.0
    assert known.stats.n_batches.item() == 0 and known.stats.running.item() == 3.0
    fresh = oracle.output(observe=False)  # no data yet: this batch's own range, not stored
    wq, w_scale, *_ = ops.quantize_weight(w, oracle.output(), None, x.scale)
    acc = int(math.log2(x.scale) + math.log2(w_scale))
    want = oracle.quantized(oracle.sums(x.codes, wq, None), acc, fresh, True)
    y = ops.conv(x, w, None, Geometry(), oracle.output(), fresh)
    assert y.scale.item() == 2.0**want.exp2 and torch.equal(y.codes.long(), want.codes)
    assert not fresh.stats.is_init and fresh.stats.scale.item() == 0.0


def test_the_scale_snapshot_is_not_the_buffer():
    x = Coded(torch.zeros(1, 2, 3, 3), oracle.codes("random", (1, 2, 3, 3)), torch.tensor(16.0))
    out = oracle.output()
    y = ops.conv(x, torch.randn(2, 2, 1, 1), None, Geometry(), oracle.output(), out)
    before = y.scale.item()
    out.stats.scale.fill_(7.0)
    assert y.scale.item() == before


@pytest.mark.parametrize("where", ["x_scale", "weight", "bias", "threshold"])
def test_nan_shows_and_moves_no_statistics(where):
    x = Coded(
        torch.zeros(1, 4, 5, 5),
        oracle.codes("random", (1, 4, 5, 5)),
        torch.tensor(math.nan if where == "x_scale" else 16.0),
    )
    w, bias = torch.randn(3, 4, 3, 3).requires_grad_(), torch.randn(3)
    if where == "weight":
        w.data[0, 0, 0, 0] = math.nan
    if where == "bias":
        bias[1] = math.nan
    threshold = torch.tensor([math.nan]) if where == "threshold" else None
    out = oracle.output(stats=oracle.stats(3.0, 4.0), threshold=threshold)
    y = ops.conv(x, w, bias, Geometry(), oracle.output(), out)
    assert y.scale.isnan() and y.value.isnan().all() and not y.codes.any()
    assert out.stats.running.item() == 3.0 and out.stats.n_batches.item() == 0 and out.stats.n_skipped.item() == 1
    (grad,) = torch.autograd.grad(y.value.sum(), w)
    assert where == "x_scale" or not grad.nan_to_num().any()


def test_infinite_bias_saturates():
    x = Coded(torch.zeros(1, 2, 3, 3), oracle.codes("random", (1, 2, 3, 3)), torch.tensor(16.0))
    bias = torch.tensor([math.inf, -math.inf])
    y = ops.conv(x, torch.randn(2, 2, 1, 1), bias, Geometry(), oracle.output(), oracle.output(clamp=8.0))
    assert (y.value[:, 0] > 7).all() and (y.value[:, 1] < -7).all() and not y.scale.isnan()


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("seed", range(8))
def test_gradients_follow_the_written_rule(seed, method):
    x, w, bias, geometry, out = train_case(100 + seed, method)
    w_threshold = torch.tensor([0.5], requires_grad=True) if method == "TQT" else None
    spec = oracle.output(rounding=2, threshold=w_threshold)
    if out.threshold is not None:
        out.threshold.requires_grad_()
    x = x._replace(value=(x.codes.float() / x.scale).requires_grad_())
    w.requires_grad_()
    if bias is not None:
        bias.requires_grad_()
    y = ops.conv(x, w, bias, geometry, spec, out)
    upstream = torch.randn(y.value.shape)
    y.value.backward(upstream)

    frozen = spec._replace(observe=False, threshold=None if w_threshold is None else w_threshold.detach())
    wq, w_scale, w_bits, w_slope = ops.quantize_weight(
        w.detach(), frozen, None if bias is None else bias.detach(), x.scale
    )
    bq = None if bias is None else ops.quantize_bias(bias.detach(), x.scale, w_scale)
    acc = int(math.log2(x.scale) + math.log2(w_scale))
    want = oracle.quantized(oracle.sums(x.codes, wq, bq, *geometry), acc, out, True, int(math.log2(y.scale)))
    masked = torch.where(want.mask, upstream, 0.0).double()
    xd = (x.codes.double() / x.scale).requires_grad_()
    wd = (wq.double() / w_scale).requires_grad_()
    top, left, bottom, right = geometry.padding
    z = F.conv2d(
        F.pad(xd, (left, right, top, bottom)), wd, None, geometry.stride, 0, geometry.dilation, geometry.groups
    )
    gx, gw = torch.autograd.grad(z, (xd, wd), masked)
    passes = torch.tensor([w_bits[i // 8] >> i % 8 & 1 for i in range(w.numel())]).view(w.shape)
    # float32 sums of up to K products: a relative error of some 2^-24 * sqrt(K) of the largest term
    torch.testing.assert_close(x.value.grad.double(), gx, rtol=1e-4, atol=1e-5 * gx.abs().max().item() + 1e-12)
    torch.testing.assert_close(w.grad.double(), gw * passes, rtol=1e-4, atol=1e-5 * gw.abs().max().item() + 1e-12)
    if bias is not None:
        torch.testing.assert_close(bias.grad.double(), masked.sum((0, 2, 3)), rtol=1e-4, atol=1e-4)
    if method == "TQT":
        clipped = not 0 <= round(out.bits - 1 - out.threshold.item()) <= min(23, acc)
        gt = 0.0 if clipped else (upstream.double() * want.slope).sum() * math.log(2) / y.scale.item()
        torch.testing.assert_close(out.threshold.grad.double(), torch.as_tensor([gt]).double(), rtol=1e-5, atol=1e-8)
        gwt = (gw * w_slope).sum() * math.log(2) / w_scale
        torch.testing.assert_close(w_threshold.grad.double(), gwt.double().view(1), rtol=1e-3, atol=1e-4)


def test_only_wanted_gradients_are_computed_and_kept():
    x = Coded(torch.zeros(1, 2, 4, 4), oracle.codes("random", (1, 2, 4, 4)), torch.tensor(16.0))
    w = torch.randn(3, 2, 3, 3)
    assert not ops.conv(x, w, None, Geometry(), oracle.output(), oracle.output()).value.requires_grad
    with torch.no_grad():
        y = ops.conv(x, w.requires_grad_(), None, Geometry(), oracle.output(), oracle.output())
    assert y.value.grad_fn is None
    bias = torch.randn(3, requires_grad=True)
    y = ops.conv(x, w.detach(), bias, Geometry(), oracle.output(), oracle.output())
    y.value.sum().backward()
    assert bias.grad is not None and not y.codes.requires_grad and not y.scale.requires_grad


def test_saved_for_backward_are_codes_and_bits():
    codes = oracle.codes("random", (8, 16, 32, 32)).contiguous(memory_format=torch.channels_last)
    x, w = Coded(torch.zeros(8, 16, 32, 32), codes, torch.tensor(16.0)), torch.randn(16, 16, 3, 3, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ops.conv(x, w, None, Geometry(padding=(1, 1, 1, 1)), oracle.output(), oracle.output())
    saved = sum(t.untyped_storage().nbytes() for t in kept)
    assert saved <= codes.numel() + 8 * 32 * 32 * 2 + w.numel() * 1.2 + 100


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_packed_weights_give_the_same_result(groups, isa):
    x, w = oracle.codes("random", (2, 4, 7, 6)), oracle.codes("random", (8, 4 // groups, 3, 2))
    w = w[: 4 if groups == 4 else 8]
    call = (x, torch.tensor(16.0), w, torch.tensor(8.0), torch.randn(w.shape[0]), [2, 1], [0, 1, 1, 0], [1, 1], groups)
    state = (*oracle.stats(3.0, 4.0), None, 8, 0.0, 1, 0)
    want = torch.ops.linger.conv(*call, *state)
    fitting = torch.ops.linger.conv_pack(w, [2, 1], groups)
    other = torch.ops.linger.conv_pack(torch.zeros_like(w), [1, 1], groups)[:-1]  # not for this call: ignored
    for packed in (fitting, other, torch.zeros(3, dtype=torch.uint8), torch.zeros(64)):
        assert all(torch.equal(a, b) for a, b in zip(want, torch.ops.linger.conv(*call, *state, packed), strict=True))
    with pytest.raises(RuntimeError, match="conv_pack: w must be int8 codes with 2 or 4 dimensions"):
        torch.ops.linger.conv_pack(w.float(), [1, 1], 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_widened(dtype):
    x = Coded(torch.zeros(1, 2, 4, 4, dtype=dtype), oracle.codes("random", (1, 2, 4, 4)), torch.tensor(16.0))
    w = torch.randn(3, 2, 3, 3, dtype=dtype, requires_grad=True)
    y = ops.conv(x, w, None, Geometry(), oracle.output(), oracle.output())
    y.value.sum().backward()
    assert y.value.dtype == dtype and w.grad.dtype == dtype


def test_empty_batch(isa):
    x = Coded(torch.zeros(0, 2, 4, 4), torch.zeros(0, 2, 4, 4, dtype=torch.int8), torch.tensor(16.0))
    w, out = torch.randn(3, 2, 3, 3, requires_grad=True), oracle.output()
    y = ops.conv(x, w, None, Geometry(), oracle.output(), out)
    y.value.sum().backward()
    assert y.value.shape == (0, 3, 2, 2) and not w.grad.any() and out.stats.n_batches.item() == 0


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo itself
def test_compiled_whole_with_equal_numbers(method):
    torch.manual_seed(0)
    x, w, wl = (torch.randn(s, requires_grad=True) for s in ((2, 4, 8, 8), (4, 4, 3, 3), (5, 144)))
    results = []
    for compiled in (False, True):
        t = torch.tensor([2.1], requires_grad=True) if method == "TQT" else None
        outs = [oracle.output(clamp=8.0, threshold=t if i == 2 else None) for i in range(5)]

        def step(x, w, wl, outs=outs):
            c = ops.conv(ops.quantize(x, outs[0]), w, None, Geometry(), outs[1], outs[2])
            flat = Coded(c.value.reshape(2, -1), c.codes.reshape(2, -1), c.scale)
            return ops.linear(flat, wl, None, outs[3], outs[4]).value

        y = (torch.compile(step, backend="aot_eager", fullgraph=True) if compiled else step)(x, w, wl)
        grads = torch.autograd.grad(y.square().sum(), (x, w, wl) if t is None else (x, w, wl, t))
        results.append([y, *grads, outs[2].stats.running, outs[2].stats.n_batches])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("threshold", [None, torch.tensor([2.1])])
def test_opcheck(grad, bits, threshold):
    x, w = oracle.codes("random", (2, 4, 6, 5)), oracle.codes("random", (6, 2, 3, 2))
    one, bias = torch.tensor(16.0), torch.randn(6)
    geometry = ([2, 1], [1, 0, 2, 1], [1, 2], 2)
    state = (*oracle.stats(3.0, 4.0), threshold)
    torch.library.opcheck(
        torch.ops.linger.conv.default, (x, one, w, one, bias, *geometry, *state, bits, 8.0, 1, 1 + 4 * grad)
    )
    torch.library.opcheck(torch.ops.linger.conv_codes.default, (x, w, None, *geometry, 5, bits, False))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(1, 4, 5, 5)}, TypeError, "codes must be int8 or int32"),
        (
            {"x": torch.zeros(1, 4, 5, 5, dtype=torch.int32)},
            UnsupportedError,
            "conv: the input must have at most 8 bits",
        ),
        (
            {"x": torch.zeros(4, 5, 5, dtype=torch.int8)},
            ValueError,
            "conv: x and weight must have 4 dimensions, got 3 and 4",
        ),
        (
            {"w": torch.zeros(3, 2, 3, 3)},
            ValueError,
            r"conv: x has 4 channels, which does not fit weight \(3, 2, 3, 3\)",
        ),
        ({"w": torch.zeros(3, 4, 3, 3, dtype=torch.int8)}, TypeError, "conv: weight must be float32"),
        ({"w": torch.zeros(0, 4, 3, 3)}, ValueError, "weight must not be empty"),
        (
            {"w": torch.zeros(3, 4, 6, 3)},
            ValueError,
            r"the kernel \(6, 3\) with dilation \(1, 1\) is larger than the padded input 5 x 5",
        ),
        ({"bias": torch.zeros(2)}, ValueError, r"conv: bias must have shape \(3,\), got \(2,\)"),
        ({"bias": torch.zeros(3, dtype=torch.int32)}, TypeError, "conv: bias must be float32"),
        ({"geometry": Geometry(stride=(0, 1))}, ValueError, "stride, dilation and groups must be at least 1"),
        ({"geometry": Geometry(padding=(0, 0, -1, 0))}, ValueError, "padding at least 0"),
        ({"geometry": Geometry(padding=(1, 1))}, ValueError, "padding 4"),
        ({"weight_out": oracle.output(bits=16)}, UnsupportedError, "conv: the weight must have at most 8 bits, got 16"),
        ({"out": oracle.output(bits=33)}, ValueError, r"conv: bits must be in \[2, 32\], got 33"),
    ],
)
def test_conv_errors(change, error, message):
    call = {
        "x": oracle.codes("random", (1, 4, 5, 5)),
        "w": torch.randn(3, 4, 3, 3),
        "bias": None,
        "geometry": Geometry(),
        "weight_out": oracle.output(),
        "out": oracle.output(),
    }
    call.update(change)
    x = Coded(torch.zeros(1), call["x"], torch.tensor(16.0))
    with pytest.raises(error, match=message):
        ops.conv(x, call["w"], call["bias"], call["geometry"], call["weight_out"], call["out"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(1, 4, 5, 5)}, TypeError, "conv_codes: x must be torch.int8, got torch.float32"),
        ({"bias": torch.zeros(3)}, TypeError, "conv_codes: bias must be torch.int32, got torch.float32"),
        (
            {"bias": torch.zeros(4, dtype=torch.int32)},
            ValueError,
            r"conv_codes: bias must have shape \(3,\), got \(4,\)",
        ),
        ({"shift": -1}, ValueError, r"conv_codes: shift must be in \[0, 63\], got -1"),
        ({"shift": 64}, ValueError, r"conv_codes: shift must be in \[0, 63\], got 64"),
        ({"bits": 1}, ValueError, r"conv_codes: bits must be in \[2, 32\], got 1"),
        ({"groups": 3}, ValueError, "conv_codes: x has 4 channels"),
    ],
)
def test_conv_codes_errors(change, error, message):
    call = {"x": oracle.codes("random", (1, 4, 5, 5)), "bias": None, "groups": 1, "shift": 5, "bits": 8, **change}
    w = oracle.codes("random", (3, 4, 3, 3))
    with pytest.raises(error, match=message):
        ops.conv_codes(
            call["x"], w, call["bias"], (1, 1), (0, 0, 0, 0), (1, 1), call["groups"], call["shift"], call["bits"], False
        )
