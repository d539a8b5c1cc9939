"""Quantizing, its state, its masks and its gradients."""

import math

import pytest
import torch
from ops_oracle import LAYOUTS, SIZES, bits_of, exp2_of_peak, fixed, floats, limits, output, rounded, stats
from torch import Tensor

from linger import ops
from linger.ops.spec import OBSERVE, RELU, settings_of

native = torch.ops.linger


def raw(x: Tensor, out: ops.Output) -> tuple[Tensor, ...]:
    settings = settings_of(out.bits, out.rounding, OBSERVE * out.observe + RELU * out.relu)
    if out.threshold is None:
        return (*native.quantize_mask(x, *out.stats, settings, out.clamp), torch.empty(0))
    return native.quantize_slope(x, *out.stats, settings, out.threshold, out.clamp)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rounding", range(4))
@pytest.mark.parametrize(("bits", "exp2"), [(2, 0), (8, 0), (8, 3), (16, 8), (32, 12)])
def test_quantize_follows_the_formula(n: int, rounding: int, bits: int, exp2: int, isa: str) -> None:
    x = floats(n, exp2=exp2)
    value, codes, scale, mask, slope = raw(x, output(fixed(exp2), bits=bits, rounding=rounding))
    lo, hi = limits(bits)
    real = x.double() if bits > 16 else x
    r = rounded(real * 2.0**exp2, rounding).double()
    want = r.clamp(lo, hi)
    assert torch.equal(codes, want.to(torch.int8 if bits <= 8 else torch.int32))
    assert torch.equal(value, (want / 2**exp2).float())
    assert torch.equal(bits_of(mask, n), (r >= lo) & (r <= hi))
    assert scale.item() == 2.0**exp2
    assert scale.dim() == 0
    assert slope.numel() == 0


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("clamp", [0.0, 1.3])
def test_clamp_and_relu_cut_codes_masks_and_slopes(relu: bool, clamp: float, isa: str) -> None:
    x, t = floats(1000, exp2=5), torch.tensor([2.0])
    value, codes, _, mask, slope = raw(x, output(fixed(5), relu=relu, clamp=clamp, threshold=t))
    limit = torch.tensor(clamp or math.inf)
    v = x.clamp(-limit, limit) * 32
    r = (v + 0.5).floor()
    want = r.clamp(0 if relu else -128, 127)
    uncut, inside = x.abs() <= limit, (r >= -128) & (r <= 127)
    passes = uncut & inside & ((r >= 1) if relu else True)
    assert torch.equal(codes.float(), want)
    assert torch.equal(value, want / 32 + 0.0)
    assert torch.equal(bits_of(mask, 1000), passes)
    follows = torch.where(inside, want - v, want)
    assert torch.equal(slope, torch.where(uncut & ((r >= 1) | (not relu)), follows, 0.0))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_nan_shows_everywhere_and_moves_nothing(bits: int, isa: str) -> None:
    for nan in (math.nan, -math.nan):
        x = torch.randn(100)
        x[63] = nan
        s = fixed(4)
        value, codes, scale, mask, slope = raw(
            x, output(s, bits=bits, observe=True, relu=True, threshold=torch.ones(1))
        )
        assert value.isnan().all()
        assert scale.isnan()
        assert not codes.any()
        assert not mask.any()
        assert not slope.any()
        assert (s.n_skipped.item(), s.n_batches.item(), s.scale.item(), s.running.item()) == (1, 0, 16.0, 1.0)
    assert raw(torch.zeros(3), output(fixed(4), threshold=torch.tensor([math.nan])))[0].isnan().all()


def test_infinity_saturates_and_is_skipped(isa: str) -> None:
    s = fixed(4)
    value, codes, scale, mask, _ = raw(torch.tensor([math.inf, -math.inf, 1.0]), output(s, observe=True))
    assert codes.tolist() == [127, -128, 16]
    assert bits_of(mask, 3).tolist() == [False, False, True]
    assert (s.n_skipped.item(), s.n_batches.item(), scale.item(), value[2].item()) == (1, 0, 16.0, 1.0)
    raw(torch.tensor([-math.inf, 1.0]), output(s, observe=True, relu=True))  # max(x) is finite
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 1)


@pytest.mark.parametrize("relu", [False, True])
def test_mom_statistics(relu: bool, isa: str) -> None:
    s, running = stats(), None
    for step in range(30):
        x = torch.randn(50, generator=torch.Generator().manual_seed(step)) * 2.0 ** ((step % 7) - 3)
        m = max((x.max() if relu else x.abs().max()).item(), 1e-6)
        m32 = torch.tensor(m)
        running = m32 if running is None else running * 0.9 + m32 * 0.1
        c = ops.quantize(x, output(s, observe=True, relu=relu))
        assert torch.equal(s.running, running)
        assert c.scale.item() == s.scale.item() == 2.0 ** exp2_of_peak(running.item(), 8)
        again = ops.quantize(x, output(s, relu=relu))
        assert torch.equal(again.codes, c.codes)
    assert s.n_batches.item() == 30
    assert s.is_init.item()
    assert c.scale.data_ptr() != s.scale.data_ptr()


@pytest.mark.parametrize("m", [1e-9, 1e-6, 1.4142134, 1.4142135, 1.4142137, 2.0, 3.9, 200.0, 1e30])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_exponent_rounds_at_sqrt_2(m: float, bits: int) -> None:
    s = stats()
    assert ops.quantize(torch.tensor([m]), output(s, bits=bits, observe=True)).scale.item() == 2.0 ** exp2_of_peak(
        m, bits
    )


def test_clamp_limits_the_statistics() -> None:
    s = stats()
    ops.quantize(torch.tensor([100.0, math.inf]), output(s, observe=True, clamp=4.0))
    assert s.running.item() == 4.0
    assert s.n_skipped.item() == 0


def test_without_statistics_the_batch_decides_and_nothing_is_stored() -> None:
    s = stats()
    assert ops.quantize(torch.tensor([3.0]), output(s)).scale.item() == 2.0 ** exp2_of_peak(3.0, 8)
    assert not s.is_init.item()
    assert s.scale.item() == 1.0
    assert s.n_batches.item() == 0


def test_an_empty_batch_moves_nothing() -> None:
    s = stats()
    c = ops.quantize(torch.zeros(0, 4), output(s, observe=True))
    assert c.codes.shape == (0, 4)
    assert s.n_batches.item() == 0
    assert not s.is_init.item()


@pytest.mark.parametrize("t", [-20.0, -0.5, 0.5, 1.5, 2.1, 2.5, 6.9, 7.6, 30.0])
def test_tqt_scale_and_gradients(t: float, isa: str) -> None:
    x = (floats(1000, exp2=4, infinite=False)).requires_grad_()
    threshold = torch.tensor([t], requires_grad=True)
    s = stats()
    c = ops.quantize(x, output(s, threshold=threshold, observe=True))
    raw_e = float(torch.tensor(7.0 - t).round())
    e = int(min(max(raw_e, 0), 23))
    assert c.scale.item() == s.scale.item() == 2.0**e
    assert (s.n_batches.item(), s.is_init.item()) == (1, True)
    g = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    c.value.backward(g)
    v = x.detach() * 2.0**e
    r = (v + 0.5).floor()
    inside = (r >= -128) & (r <= 127)
    assert torch.equal(x.grad, torch.where(inside, g, 0.0))
    slope = torch.where(inside, r - v, r.clamp(-128, 127)) * (0 <= raw_e <= 23)
    want = math.log(2) / 2.0**e * (g.double() * slope.double()).sum()
    torch.testing.assert_close(threshold.grad.double(), want.reshape(1), rtol=1e-6, atol=1e-9)


def test_threshold_gradient_has_one_value_for_any_number_of_threads() -> None:
    n = 200_001
    grad, slope, scale = torch.randn(n), torch.randn(n), torch.tensor(8.0)
    threads, seen = torch.get_num_threads(), set()
    try:
        for k in (1, 2, 3):
            torch.set_num_threads(k)
            seen.add(native.threshold_grad(grad, slope, scale).item())
    finally:
        torch.set_num_threads(threads)
    assert len(seen) == 1
    assert seen.pop() == pytest.approx(math.log(2) / 8 * (grad.double() * slope.double()).sum().item(), rel=1e-6)


@pytest.mark.parametrize("n", [40_000, 1_100_000])
def test_threads_and_blocks_change_nothing(n: int, isa: str) -> None:
    x = torch.randn(n)
    s, small = stats(), 5000
    c = ops.quantize(x, output(s, observe=True))
    assert s.running.item() == x.abs().max().item()
    for part in (slice(0, small), slice(n - small, n)):
        assert torch.equal(ops.quantize(x[part], output(s)).codes, c.codes[part])
    assert torch.equal(c.value * c.scale, c.codes.float())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str, isa: str) -> None:
    x = LAYOUTS[layout](torch.randn(2, 3, 4, 5)).detach().requires_grad_()
    s = fixed(6)
    c = ops.quantize(x, output(s))
    want = (x.detach() * 64 + 0.5).floor().clamp(-128, 127)
    assert torch.equal(c.codes.float(), want)
    if layout in ("channels_last", "transposed"):
        assert c.value.stride() == c.codes.stride() == x.stride()
    g = torch.randn(c.value.shape)
    (gx,) = torch.autograd.grad(c.value, x, g)
    assert torch.equal(gx, torch.where(((x * 64 + 0.5).floor() == want), g, 0.0))


def test_double_backward() -> None:
    x, t = torch.randn(40, requires_grad=True), torch.tensor([1.3], requires_grad=True)
    v = torch.randn(40, requires_grad=True)
    out = output(stats(), threshold=t, observe=True)
    gx, gt = torch.autograd.grad(ops.quantize(x, out).value, (x, t), v, create_graph=True)
    passes = torch.autograd.grad(gx.sum(), v, retain_graph=True)[0]
    assert set(passes.tolist()) <= {0.0, 1.0}
    assert torch.equal(gx, v * passes)
    (slope,) = torch.autograd.grad(gt.sum(), v)
    torch.testing.assert_close((slope * v).sum().reshape(1), gt)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_widened(dtype: torch.dtype) -> None:
    x = torch.randn(50).to(dtype).requires_grad_()
    c = ops.quantize(x, output(fixed(4)))
    assert c.value.dtype == dtype
    assert torch.equal(c.codes, ops.quantize(x.detach().float(), output(fixed(4))).codes)
    c.value.sum().backward()
    assert x.grad.dtype == dtype


def test_what_is_saved_for_backward_is_one_bit_per_element() -> None:
    x, saved = torch.randn(8000, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ops.quantize(x, output(fixed(4)))
    assert [t.numel() * t.element_size() for t in saved] == [1000]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_weight_is_half_to_even_at_its_own_scale(n: int, bits: int, isa: str) -> None:
    w = torch.cat([torch.tensor([0.5, 1.5, -2.5, 3.5]) / 64, torch.randn(n)])[:n]
    s = stats()
    codes, scale, mask, slope = ops.quantize_weight(w, output(s, bits=bits, observe=True))
    e = exp2_of_peak(w.abs().max().item(), bits) if n else exp2_of_peak(0.0, bits)
    lo, hi = limits(bits)
    r = (w.double() * 2.0**e).round()
    assert scale.item() == 2.0**e
    assert torch.equal(codes.double(), r.clamp(lo, hi))
    assert torch.equal(bits_of(mask, n), (r >= lo) & (r <= hi))
    assert slope.numel() == 0
    assert s.is_init.item() == (n > 0)


@pytest.mark.parametrize("bias", [0.0, 1.0, 255.9, 256.0, 1e6, 3e37])
@pytest.mark.parametrize("x_exp2", [0, 7, 23])
def test_weight_scale_keeps_the_bias_in_32_bits(bias: float, x_exp2: int) -> None:
    s, b = stats(), torch.tensor([bias, -bias])
    _, scale, *_ = ops.quantize_weight(torch.tensor([0.01]), output(s, observe=True), b, torch.tensor(2.0**x_exp2))
    e = int(math.log2(scale.item()))
    free = exp2_of_peak(0.01, 8)
    assert e <= free
    assert bias * 2.0 ** (x_exp2 + e) < 2**31
    assert e == free or bias * 2.0 ** (x_exp2 + e + 1) >= 2**31
    assert s.scale.item() == scale.item()
    q = ops.quantize_bias(b, torch.tensor(2.0**x_exp2), scale)
    assert torch.equal(q.double(), (b.double() * 2.0 ** (x_exp2 + e)).round())


def test_a_capped_weight_threshold_gets_no_gradient() -> None:
    w, t = torch.randn(40), torch.tensor([1.0])
    free = ops.quantize_weight(w, output(stats(), threshold=t))
    capped = ops.quantize_weight(w, output(stats(), threshold=t), torch.tensor([2.0**20]), torch.tensor(2.0**7))
    assert free[3].any()
    assert capped[1] < free[1]
    assert not capped[3].any()


def test_nan_in_the_bias_shows_in_the_weight_scale_only() -> None:
    s = stats()
    codes, scale, *_ = ops.quantize_weight(
        torch.ones(3), output(s, observe=True), torch.tensor([math.nan]), torch.ones(())
    )
    assert scale.isnan()
    assert codes.all()
    assert s.n_batches.item() == 1


def test_bias_saturates() -> None:
    one = torch.ones(())
    q = ops.quantize_bias(torch.tensor([3e9, -3e9, 0.5, 1.5, -0.5, math.nan, math.inf]), one, one)
    assert q.tolist() == [2**31 - 1, -(2**31), 0, 2, 0, 0, 2**31 - 1]
    assert not ops.quantize_bias(torch.ones(3), torch.tensor(math.nan), one).any()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_codes_survive_the_way_through_float(n: int, dtype: torch.dtype, isa: str) -> None:
    top = min(torch.iinfo(dtype).max, 2**23 - 1)
    q = torch.randint(-top - 1, top + 1, (n,), dtype=dtype)
    scale = torch.tensor(2.0**-3)
    value = ops.dequantize(q, scale)
    assert torch.equal(value, q.float() * 8)
    bits = {torch.int8: 8, torch.int16: 16, torch.int32: 24}[dtype]
    assert torch.equal(ops.codes_of(value, scale, bits).long(), q.long())
    assert ops.dequantize(q, torch.tensor(math.nan)).isnan().all()


@pytest.mark.parametrize("n", SIZES)
def test_quantize_codes_is_the_quant_node(n: int, isa: str) -> None:
    x = floats(n, exp2=3)
    x[-1:] = math.nan
    for bits, dtype in ((8, torch.int8), (16, torch.int16), (32, torch.int32)):
        got = ops.quantize_codes(x, 3, bits)
        real = x.double() if bits == 32 else x
        want = (real * 8 + 0.5).floor().double().nan_to_num(0.0, math.inf, -math.inf).clamp(*limits(bits))
        assert got.dtype == dtype
        assert torch.equal(got.double(), want)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("row", [0, 1, 3, 8, 17])
def test_mask_grad(n: int, row: int, isa: str) -> None:
    g = torch.randn(n, row or 1).requires_grad_()
    bytes_ = (n + 7) // 8 if row == 0 else n * ((row + 15) // 16 * 2)
    mask = torch.randint(0, 256, (bytes_,), dtype=torch.uint8)
    keep = bits_of(mask, 8 * bytes_).view(n, (row + 15) // 16 * 16)[:, :row] if row else bits_of(mask, n)[:, None]
    from linger.ops.checks import mask_grad

    got = mask_grad(g, mask, row)
    assert torch.equal(got, torch.where(keep, g, 0.0))
    if n:
        assert torch.equal(torch.autograd.grad(got.sum(), g)[0], keep.float())


def test_refusals_name_the_argument() -> None:
    out, x = output(stats()), torch.zeros(3)
    for bad, kind, text in [
        (lambda: ops.quantize(torch.zeros(3, dtype=torch.int8), out), TypeError, "quantize: x must be float32"),
        (lambda: ops.quantize([1.0], out), TypeError, "quantize: x must be a Tensor, got list"),
        (lambda: ops.quantize(x, None), TypeError, "quantize: out must be an Output, got NoneType"),
        (lambda: ops.quantize(x, out._replace(bits=33)), ValueError, r"bits must be in \[2, 32\], got 33"),
        (lambda: ops.quantize(x, out._replace(rounding=4)), ValueError, r"rounding must be in \[0, 3\], got 4"),
        (lambda: ops.quantize(x, out._replace(clamp=-1.0)), ValueError, "clamp must be 0"),
        (lambda: ops.quantize_weight(x.double(), out), TypeError, "quantize_weight: w must be a float32 Tensor, got"),
        (lambda: ops.quantize_weight(x, out, x.int()), TypeError, "quantize_weight: bias must be"),
        (lambda: ops.quantize_bias(x, 1.0, x), TypeError, "quantize_bias: x_scale must be a float32 Tensor, got float"),
        (lambda: ops.quantize_bias(x, x, x), ValueError, "quantize_bias: x_scale must have one element, got 3"),
        (lambda: ops.dequantize(x, torch.ones(())), TypeError, "dequantize: codes must be int8, int16 or int32"),
        (lambda: ops.codes_of(x, torch.ones(()), 25), ValueError, r"codes_of: bits must be in \[2, 24\], got 25"),
        (lambda: ops.quantize_codes(x, 127, 8), ValueError, r"quantize_codes: exp2 must be in \[-126, 126\], got 127"),
        (lambda: ops.quantize_codes(x, 1.0, 8), TypeError, "quantize_codes: exp2 must be an int, got float"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=text):
            bad()
