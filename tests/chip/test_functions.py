"""linger.chip.sigmoid ... log_softmax: recorded integers, whole domains, torch and numpy, refusals."""

import numpy as np
import pytest
import torch
from functions_oracle import GELU, SWISH, log_softmax, sigmoid, softmax, tanh, wide
from golden.cases import ARRAYS

import linger
from linger import chip
from linger.chip import CURVES

NAMES = {"logsoftmax": "log_softmax"}
ORACLES = {
    "gelu": lambda x, platform, bits: wide(GELU, x, bits),
    "swish": lambda x, platform, bits: wide(SWISH, x, bits),
}
ORACLES |= {"sigmoid": sigmoid, "tanh": tanh}
CALLS = [(f, p, b) for f, rows in CURVES.items() for p, row in rows.items() for b in row.bits]
DTYPES = {8: np.int8, 16: np.int16, 32: np.int32}


@pytest.mark.parametrize("case", [c for c in ARRAYS if c.op.startswith("kernel_")], ids=lambda c: c.id)
def test_recorded_functions(case, isa):
    arrays, name = case.arrays, case.op.removeprefix("kernel_")
    function = getattr(chip, NAMES.get(name, name))
    platforms = ("arcs", "mars") if case.platform == "arcs" else (case.platform,)
    for platform in platforms:
        if "softmax" in name:
            assert np.array_equal(function(arrays["in_x"], platform=platform), arrays["out_y32"])
            continue
        for bits in (8, 16, 32):
            if f"out_y{bits}" not in arrays:
                continue
            if "in_x8" in arrays:  # row k: the int8 codes at scale 2**q[k]
                scaled = [arrays["in_x8"].astype(np.float64) * 2.0 ** (27 - int(q)) for q in arrays["in_q"]]
                x = np.clip(scaled, -(2**31), 2**31 - 1).astype(np.int32)
            else:
                x = arrays["in_x"]
            got = function(x, platform=platform, out_bits=bits)
            assert got.dtype == arrays[f"out_y{bits}"].dtype
            assert np.array_equal(got, arrays[f"out_y{bits}"])


def _q27(seed, n=20000):
    """Segment ends, powers of two, limits, then random magnitudes."""
    rng = np.random.default_rng(seed)
    ends = np.concatenate([t[0] for t in (GELU, SWISH)])
    near = np.concatenate([ends + d for d in range(-2, 3)])
    edges = np.concatenate([near, -near, 1 << np.arange(31), -(1 << np.arange(32)), [0, 2**31 - 1, -(2**31)]])
    random = rng.integers(-(2**31), 2**31, n) >> rng.integers(0, 31, n)
    return np.clip(np.concatenate([edges, random]), -(2**31), 2**31 - 1).astype(np.int32)


@pytest.mark.parametrize(("function", "platform", "bits"), CALLS)
def test_functions_match_int64(function, platform, bits, isa):
    x = np.arange(-(2**15), 2**15).astype(np.int16) if platform == "venus" else _q27(bits)
    got = getattr(chip, function)(x, platform=platform, out_bits=bits)
    assert got.dtype == DTYPES[bits]
    assert np.array_equal(got, ORACLES[function](x, "arcs" if platform == "mars" else platform, bits))


@pytest.mark.slow
@pytest.mark.parametrize(("function", "platform", "bits"), CALLS)
def test_twins_equal_the_reference_on_the_whole_domain(function, platform, bits):
    from linger import _C

    call, step = getattr(chip, function), 1 if platform == "venus" else 257
    domain = range(-(2**15), 2**15) if platform == "venus" else range(-(2**31), 2**31, step)
    levels = sorted({m & -1 for m in (0, *_C.CPU_FLAGS.values(), 0xFFFFFFFF)})
    try:
        for at in range(0, len(domain), 1 << 22):
            part = domain[at : at + (1 << 22)]
            x = np.arange(part.start, part.stop, part.step, np.int64).astype(
                np.int16 if platform == "venus" else np.int32
            )
            _C.set_cpu_mask(0)
            want = call(x, platform=platform, out_bits=bits)
            for level in levels:
                _C.set_cpu_mask(level)
                assert np.array_equal(call(x, platform=platform, out_bits=bits), want)
    finally:
        _C.set_cpu_mask(0xFFFFFFFF)


def _rows(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 70)) if seed % 10 else int(rng.integers(257, 2049))
    x = rng.integers(-(2**31), 2**31, (3, n)) >> int(rng.integers(0, 32))
    if seed % 4 == 1:
        x[0] = x[0, 0]
    if seed % 5 == 2:
        x[1], x[2, 0] = -(2**31), 2**31 - 1
    return x.astype(np.int32)


def _check_rows(seeds):
    for seed in seeds:
        x = _rows(seed)
        for platform in ("arcs", "venusA"):
            assert np.array_equal(chip.softmax(x, platform=platform), softmax(x, platform))
            assert np.array_equal(chip.log_softmax(x, platform=platform), log_softmax(x))


def test_softmax_rows_match_int64(isa):
    _check_rows(range(60))


@pytest.mark.slow
def test_many_softmax_rows_match_int64(isa):
    _check_rows(range(60, 3000))


def test_any_axis_and_both_kinds():
    x = np.random.default_rng(0).integers(-(2**28), 2**28, (2, 3, 4)).astype(np.int32)
    for axis in range(-3, 3):
        want = np.moveaxis(softmax(np.moveaxis(x, axis, -1), "arcs"), -1, axis)
        got = chip.softmax(x, platform="mars", axis=axis)
        assert isinstance(got, np.ndarray)
        assert np.array_equal(got, want)
        tensor = chip.softmax(torch.from_numpy(x).transpose(0, 2), platform="arcs", axis=[2, 1, 0][axis % 3])
        assert torch.equal(tensor.transpose(0, 2), torch.from_numpy(want).int())
    read_only = x[:, ::2]
    read_only.setflags(write=False)
    assert chip.tanh(read_only, platform="arcs", out_bits=8).shape == (2, 2, 4)
    assert chip.sigmoid(torch.zeros((), dtype=torch.int32), platform="venusA", out_bits=16) == 2**14
    assert chip.gelu(np.zeros((0, 3), np.int32), platform="venusA", out_bits=32).shape == (0, 3)
    assert chip.softmax(np.zeros((0, 3), np.int32), platform="venusA").shape == (0, 3)


def test_floors_do_not_mirror():
    one = np.array([1, -1], np.int32)
    assert chip.tanh(one, platform="arcs", out_bits=32).tolist() == [15, -16]
    assert chip.softmax(np.array([[5]], np.int32), platform="arcs").item() == 32768


def test_refusals():
    x, q11 = np.zeros(3, np.int32), torch.zeros(3, dtype=torch.int16)
    for call, kind, text in [
        (
            lambda: chip.sigmoid(x.astype(np.int64), platform="arcs", out_bits=8),
            TypeError,
            "x must be int32, got int64",
        ),
        (lambda: chip.sigmoid(q11, platform="arcs", out_bits=8), TypeError, "sigmoid: x must be int32, got int16"),
        (lambda: chip.tanh(x, platform="venus", out_bits=8), TypeError, "tanh: x must be int16, got int32"),
        (lambda: chip.tanh([1, 2], platform="venus", out_bits=8), TypeError, "Tensor or a numpy array, got list"),
        (
            lambda: chip.sigmoid(x, platform="arcs", out_bits=16),
            ValueError,
            r"out_bits must be one of \(8, 32\) on arcs",
        ),
        (lambda: chip.tanh(q11, platform="venus", out_bits=32), ValueError, r"one of \(8, 16\) on venus, got 32"),
        (
            lambda: chip.sigmoid(x, platform="jupiter", out_bits=8),
            ValueError,
            "platform must be one of .*, got 'jupiter'",
        ),
        (lambda: chip.gelu(x, platform="arcs", out_bits=8), linger.UnsupportedError, "gelu: arcs has no such function"),
        (lambda: chip.swish(q11, platform="venus", out_bits=8), linger.UnsupportedError, "venusA has it"),
        (lambda: chip.softmax(x, platform="venus"), linger.UnsupportedError, "softmax: venus calls a vendor library"),
        (lambda: chip.log_softmax(x, platform="venus"), linger.UnsupportedError, "log_softmax: venus"),
        (lambda: chip.softmax(x, platform="arcs", axis=1), ValueError, r"axis must be in \[-1, 0\], got 1"),
        (lambda: chip.softmax(x.astype(np.float32), platform="arcs"), TypeError, "x must be int32, got float32"),
        (lambda: chip.softmax(x, platform="arcs", axis=0.5), TypeError, "axis must be an int, got float"),
    ]:
        with pytest.raises(kind, match=text):
            call()
