"""Sigmoid, tanh, GELU and swish of codes: int64 oracle, every width and scale, gradients of the exact functions, refusals."""

import math

import numpy as np
import pytest
import torch
from functions_oracle import GELU, SWISH, fixed, rhu, sat, sigmoid, tanh, wide
from ops_oracle import LAYOUTS, SIZES, bits_of, coded, codes8, exp2_of_peak, output, stats
from ops_oracle import fixed as fixed_scale
from torch import Tensor

from linger import ops
from linger.chip import CURVES
from linger.ops.spec import GRAD, OBSERVE

native = torch.ops.linger
NARROW = [(f, p, b) for f in ("sigmoid", "tanh") for p, row in CURVES[f].items() for b in row.bits if p != "mars"]
EXACT = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "swish": torch.nn.functional.silu,
}
TABLES = {"gelu": GELU, "swish": SWISH}


def want_codes(function: str, platform: str, q: np.ndarray, exp2: int, bits: int) -> np.ndarray:
    x = fixed(q, exp2, 11, 16) if platform == "venus" else fixed(q, exp2, 27, 32)
    if function in TABLES:
        return wide(TABLES[function], x, bits)
    return (sigmoid if function == "sigmoid" else tanh)(x, platform, bits)


def slope(function: str, x: Tensor) -> Tensor:
    """Derivative of the exact function, by autograd in float64."""
    y = x.double().requires_grad_()
    return torch.autograd.grad(EXACT[function](y).sum(), y)[0]


@pytest.mark.parametrize(("function", "platform", "bits"), NARROW)
def test_every_int8_code_at_every_scale(function: str, platform: str, bits: int, isa: str) -> None:
    q = torch.arange(-128, 128, dtype=torch.int8)
    for exp2 in (*range(-6, 31), 60, -60):
        want = want_codes(function, platform, q.numpy(), exp2, bits)
        got = ops.activation_codes(q, exp2, CURVES[function][platform].table, bits)
        assert got.dtype == {8: torch.int8, 16: torch.int16, 32: torch.int32}[bits]
        assert np.array_equal(got.numpy(), want)


@pytest.mark.parametrize(("function", "platform", "bits"), NARROW)
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_wide_operands(function: str, platform: str, bits: int, dtype: torch.dtype, isa: str) -> None:
    info = torch.iinfo(dtype)
    q = torch.randint(info.min, info.max, (777,), dtype=dtype, generator=torch.Generator().manual_seed(bits))
    q[:5] = torch.tensor([info.min, info.max, 0, 1, -1], dtype=dtype)
    q[300:] >>= 7
    for exp2 in (0, 8, 11, 14, 27, 30):
        got = ops.activation_codes(q, exp2, CURVES[function][platform].table, bits)
        assert np.array_equal(got.numpy(), want_codes(function, platform, q.numpy(), exp2, bits))


@pytest.mark.parametrize("n", [*SIZES, 255, 256, 257, 1025, 40000])
@pytest.mark.parametrize(("function", "platform"), [("sigmoid", "arcs"), ("tanh", "venus"), ("tanh", "venusA")])
def test_values_are_codes_over_scale(n: int, function: str, platform: str, isa: str) -> None:
    x, table = coded(codes8(n), 4), CURVES[function][platform].table
    y = ops.activation(x, table, 8)
    assert np.array_equal(y.codes.numpy(), want_codes(function, platform, x.codes.numpy(), 4, 8))
    assert torch.equal(y.value, y.codes / 128.0)
    assert y.scale == 128.0
    if n:
        assert torch.equal(
            ops.activation(x, table, CURVES[function][platform].bits[-1]).scale.log2() % 8, torch.tensor(7.0)
        )


def _random_calls(seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        function = str(rng.choice(list(CURVES)))
        platform = str(rng.choice(sorted(CURVES[function])))
        row, arithmetic = CURVES[function][platform], "arcs" if platform == "mars" else platform
        bits, exp2 = int(rng.choice(row.bits)), int(rng.integers(-3, 28))
        width = int(rng.choice([8, 16, 32]))
        q = rng.integers(-(1 << (width - 1)), 1 << (width - 1), int(rng.integers(1, 3000)))
        q = (q >> int(rng.integers(0, width))).astype({8: np.int8, 16: np.int16, 32: np.int32}[width])
        got = ops.activation_codes(torch.from_numpy(q), exp2, row.table, bits)
        assert np.array_equal(got.numpy(), want_codes(function, arithmetic, q, exp2, bits)), seed


def test_random_calls() -> None:
    _random_calls(range(100))


@pytest.mark.slow
def test_many_random_calls() -> None:
    _random_calls(range(100, 5000))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_orders(layout: str) -> None:
    x = LAYOUTS[layout](codes8(120, 1).view(2, 3, 4, 5))
    for table, want in (
        (0, want_codes("sigmoid", "arcs", x.numpy(), 3, 8)),
        (1, want_codes("tanh", "arcs", x.numpy(), 3, 8)),
    ):
        assert np.array_equal(ops.activation_codes(x, 3, table, 8).numpy(), want)
        value = (x.float() / 8).requires_grad_()
        y = ops.activation(ops.Coded(value, x, torch.tensor(8.0)), table, 8)
        assert np.array_equal(y.codes.numpy(), want)
        g = torch.randn(y.value.shape)
        (got,) = torch.autograd.grad(y.value, value, g)
        torch.testing.assert_close(
            got.double(), g.double() * slope(("sigmoid", "tanh")[table], x / 8), rtol=1e-6, atol=1e-12
        )


@pytest.mark.parametrize("function", ["gelu", "swish"])
@pytest.mark.parametrize("exp2", [-1, 3, 6, 20])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_gelu_and_swish_follow_their_statistics(function: str, exp2: int, bits: int, isa: str) -> None:
    x, s = coded(codes8(700), exp2), stats()
    y = ops.quantized_activation(x, CURVES[function]["venusA"].table, output(s, bits=bits, observe=True))
    sums = want_codes(function, "venusA", x.codes.numpy(), exp2, 32)
    peak = float(np.abs(sums).max()) / 2**27
    e = exp2_of_peak(peak, bits)
    assert s.running == torch.tensor(peak)
    assert y.scale == 2.0**e
    want = torch.from_numpy(sat(rhu(sums, 27 - e), bits))
    assert torch.equal(y.codes.long(), want)
    assert torch.equal(y.value.double(), want / 2.0**e)
    assert y.codes.dtype == (torch.int8 if bits <= 8 else torch.int32)


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "gelu", "swish"])
@pytest.mark.parametrize("n", [33, 5000])
@pytest.mark.parametrize("wide_codes", [False, True])
def test_gradients_are_those_of_the_exact_function(function: str, n: int, wide_codes: bool) -> None:
    x = coded(codes8(n).to(torch.int32) * 200 if wide_codes else codes8(n), 12 if wide_codes else 4)
    value = x.value.requires_grad_()
    table = CURVES[function]["venusA"].table
    t = torch.tensor([1.5], requires_grad=True)  # rint(7 - 1.5) = 6: its limits cut large results
    if function in TABLES:
        y = ops.quantized_activation(x, table, output(stats(), threshold=t))
    else:
        y = ops.activation(x, table, 8)
    g = torch.randn(n, generator=torch.Generator().manual_seed(1))
    y.value.backward(g)
    want = g.double() * slope(function, value.detach())
    if function in TABLES:
        sums = torch.from_numpy(want_codes(function, "venusA", x.codes.numpy(), 12 if wide_codes else 4, 32)) / 2.0**21
        raw = (sums + 0.5).floor()
        inside = (raw >= -128) & (raw <= 127)
        assert not inside.all()
        want *= inside
        steps = torch.where(inside, raw - sums, raw.clamp(-128, 127))
        torch.testing.assert_close(t.grad, (math.log(2) / 64 * (g.double() * steps).sum()).float().reshape(1))
    torch.testing.assert_close(value.grad.double(), want, rtol=1e-6, atol=1e-9)


def test_nan() -> None:
    x, s = coded(codes8(40), math.nan), fixed_scale(4)
    x = x._replace(value=x.value.requires_grad_())
    a, b = ops.activation(x, 0, 8), ops.quantized_activation(x, 6, output(s, observe=True))
    for y in (a, b):
        assert y.value.isnan().all()
        assert y.scale.isnan()
        assert not y.codes.any()
        (g,) = torch.autograd.grad(y.value.sum(), x.value)
        assert not g.any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)


def test_other_float_types_and_no_gradient() -> None:
    x = coded(codes8(9), 3)
    half = ops.Coded(x.value.half().requires_grad_(), x.codes, x.scale)
    y = ops.activation(half, 0, 8)
    assert y.value.dtype == torch.float16
    y.value.sum().backward()
    assert half.value.grad.dtype == torch.float16
    with torch.no_grad():
        assert not ops.activation(half, 0, 8).value.requires_grad


def test_refusals() -> None:
    x, q = coded(codes8(4), 1), codes8(4)
    for bad, kind, text in [
        (lambda: ops.activation(q, 0, 8), TypeError, "activation: x must be Coded, got Tensor"),
        (lambda: ops.activation(x, 0, 16), RuntimeError, "activation: table 0 has no 16-bit result"),
        (lambda: ops.activation(x, 99, 8), RuntimeError, "activation: table 99 has no 8-bit result"),
        (lambda: ops.quantized_activation(x, 6, None), TypeError, "out must be an Output"),
        (lambda: ops.activation_codes(q.float(), 0, 0, 8), TypeError, "x must be int8, int16 or int32"),
        (lambda: ops.activation_codes(q, 127, 0, 8), ValueError, r"exp2 must be in \[-126, 126\], got 127"),
        (lambda: ops.chip_function(q, 0, 8), TypeError, "chip_function: x must be int32, got torch.int8"),
        (lambda: ops.chip_function(q.int(), 4, 32), RuntimeError, "table 4 has no 32-bit result"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 2, 2), torch.ones(())
    last = q.contiguous(memory_format=torch.channels_last)
    for x in (last, q[:, ::2]):
        torch.library.opcheck(native.activation.default, (x, one, 0, 8))
        torch.library.opcheck(native.activation_grad.default, (torch.randn(x.shape), x, one, 0))
    torch.library.opcheck(native.activation.default, (q.int(), one, 2, 16))
    torch.library.opcheck(native.activation_codes.default, (last, 3, 5, 16))
    for flags, t in ((0, None), (OBSERVE | GRAD, None), (OBSERVE | GRAD, torch.tensor([1.0]))):
        torch.library.opcheck(native.activation_quantized.default, (last, one, 6, *fixed_scale(0), t, 8, 0.0, 1, flags))
    torch.library.opcheck(native.chip_function.default, (q.int(), 3, 16))
    mask = native.activation_quantized(q, one, 6, *fixed_scale(5), None, 8, 0.0, 1, GRAD)[3]
    assert bits_of(mask, 32)[24:].sum() == 0
