"""Softmax and log-softmax of codes: int64 oracle, axes, statistics, gradients as written, refusals."""

import math

import numpy as np
import pytest
import torch
from functions_oracle import fixed, log_softmax, rhu, sat, softmax
from ops_oracle import coded, codes8, exp2_of_peak, output, stats
from ops_oracle import fixed as fixed_scale

from linger import ops
from linger.ops.spec import GRAD, OBSERVE

native = torch.ops.linger
CHIPS = [(0, False), (1, False), (1, True)]


def sums_of(q: np.ndarray, exp2: int, chip: int, log: bool) -> np.ndarray:
    x = fixed(q, exp2, 25, 32)
    return log_softmax(x) if log else softmax(x, ("arcs", "venusA")[chip])


@pytest.mark.parametrize(("chip", "log"), CHIPS)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 33, 100, 1024, 1500])
def test_rows_of_codes(chip: int, log: bool, n: int, isa: str) -> None:
    for rows, exp2 in ((1, 4), (19, 3), (40, 0), (3, -2), (3, 22)):
        q = codes8(rows * n, rows).view(rows, n)
        want = sums_of(q.numpy(), exp2, chip, log)
        for shift, bits in ((0, 32), (8, 8), (11, 8), (1, 16)):
            got = ops.softmax_codes(q, exp2, chip, log, shift, bits)
            assert np.array_equal(got.numpy(), sat(rhu(want, shift), bits))


def _random_calls(seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        chip, log = CHIPS[int(rng.integers(3))]
        width, n = int(rng.choice([8, 16, 32])), int(rng.integers(1, 400))
        q = rng.integers(-(1 << (width - 1)), 1 << (width - 1), (int(rng.integers(1, 30)), n))
        q = (q >> int(rng.integers(0, width))).astype({8: np.int8, 16: np.int16, 32: np.int32}[width])
        exp2, shift, bits = int(rng.integers(-5, 26)), int(rng.integers(0, 16)), int(rng.choice([8, 16, 32]))
        got = ops.softmax_codes(torch.from_numpy(q), exp2, chip, log, shift, bits)
        assert np.array_equal(got.numpy(), sat(rhu(sums_of(q, exp2, chip, log), shift), bits)), seed


def test_random_calls() -> None:
    _random_calls(range(100))


@pytest.mark.slow
def test_many_random_calls() -> None:
    _random_calls(range(100, 3000))


@pytest.mark.parametrize(("chip", "log"), CHIPS)
@pytest.mark.parametrize("dim", [-1, 0, 1, 2])
def test_axes_and_statistics(chip: int, log: bool, dim: int, isa: str) -> None:
    q, s = codes8(2 * 30 * 9, dim).view(2, 30, 9), stats()
    y = ops.softmax(coded(q, 4), output(s, observe=True), chip=chip, log=log, dim=dim)
    sums = np.moveaxis(sums_of(np.moveaxis(q.numpy(), dim, -1), 4, chip, log), -1, dim)
    peak = np.abs(sums).max() / 2**15
    e = min(exp2_of_peak(peak, 8), 15)
    assert s.running == torch.tensor(peak)
    assert y.scale == 2.0**e
    want = torch.from_numpy(sat(rhu(sums, 15 - e), 8))
    assert torch.equal(y.codes.long(), want)
    assert torch.equal(y.value.double(), want / 2.0**e)


def test_the_scale_stops_at_the_kernels() -> None:
    q = torch.zeros(3, 300, dtype=torch.int8)
    for bits, e in ((16, 15), (8, 15)):
        y = ops.softmax(coded(q, 4), output(fixed_scale(20), bits=bits), chip=1)
        assert y.scale == 2.0**e
    assert np.array_equal(y.codes.numpy(), sat(softmax(fixed(q.numpy(), 4, 25, 32), "venusA"), 8))


@pytest.mark.parametrize("chip", [0, 1])
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (4, 10), (300, 77)])
def test_softmax_gradient_is_the_jacobian_at_the_result(chip: int, rows: int, n: int) -> None:
    x, t = (
        coded(codes8(rows * n).view(rows, n), 4),
        torch.tensor([-1.0], requires_grad=True),
    )  # scale 2**8: ones saturate
    value = x.value.requires_grad_()
    y = ops.softmax(x, output(stats(), threshold=t), chip=chip)
    g = torch.randn(rows, n, generator=torch.Generator().manual_seed(n))
    gx, gt = torch.autograd.grad(y.value, (value, t), g)
    p = y.codes.double() / 256
    sums = torch.from_numpy(sums_of(x.codes.numpy(), 4, chip, False)) / 128.0
    raw = (sums + 0.5).floor()
    kept = g.double() * (raw <= 127)
    assert n == 1 or kept.any()
    torch.testing.assert_close(gx.double(), p * (kept - (kept * p).sum(-1, keepdim=True)), rtol=1e-6, atol=1e-9)
    steps = torch.where(raw <= 127, raw - sums, 127.0)
    torch.testing.assert_close(gt, (math.log(2) / 256 * (g.double() * steps).sum()).float().reshape(1))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dim", [0, -1])
def test_log_softmax_gradient_is_that_at_the_operand(wide: bool, dim: int) -> None:
    q = codes8(7 * 60).view(7, 60)
    x = coded(q.to(torch.int32) * 50 if wide else q, 10 if wide else 4)
    value = x.value.requires_grad_()
    y = ops.softmax(x, output(fixed_scale(3)), chip=1, log=True, dim=dim)
    g = torch.randn(7, 60)
    (gx,) = torch.autograd.grad(y.value, value, g)
    p = torch.softmax(value.detach().double(), dim)
    result = torch.from_numpy(sums_of(x.codes.movedim(dim, -1).numpy(), 10 if wide else 4, 1, True)).movedim(-1, dim)
    kept = g.double() * (torch.from_numpy(rhu(result.numpy(), 12)) >= -128)
    torch.testing.assert_close(gx.double(), kept - p * kept.sum(dim, keepdim=True), rtol=1e-6, atol=1e-6)


def test_nan() -> None:
    x, s = coded(codes8(40).view(4, 10), math.nan), fixed_scale(4)
    x = x._replace(value=x.value.requires_grad_())
    for log in (False, True):
        y = ops.softmax(x, output(s, observe=True), chip=1, log=log)
        assert y.value.isnan().all()
        assert y.scale.isnan()
        assert not y.codes.any()
        assert not torch.autograd.grad(y.value.sum(), x.value)[0].any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (2, 0)


def test_refusals() -> None:
    x, q, out = coded(codes8(4), 1), codes8(4), output(stats())
    empty = torch.zeros(2, 0, dtype=torch.int8)
    for bad, kind, text in [
        (lambda: ops.softmax(q, out, chip=0), TypeError, "softmax: x must be Coded, got Tensor"),
        (lambda: ops.softmax(x, out, chip=0, dim=1), ValueError, r"softmax: dim must be in \[-1, 0\], got 1"),
        (lambda: ops.softmax(x, out, chip=2), RuntimeError, r"chip must be in \[0, 1\]"),
        (lambda: ops.softmax_codes(q.float(), 0, 0, False, 0, 8), TypeError, "x must be int8, int16 or int32"),
        (lambda: ops.softmax_codes(q, 0, 0, False, 64, 8), ValueError, r"shift must be in \[0, 63\], got 64"),
        (lambda: ops.chip_softmax(q, 0, False), TypeError, "chip_softmax: x must be int32, got torch.int8"),
    ]:
        with pytest.raises(kind, match=text):
            bad()
    assert ops.softmax_codes(empty, 0, 0, False, 0, 8).shape == (2, 0)


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 4), torch.ones(())
    for x, log in ((q.transpose(0, 2), False), (q.int(), True), (q[:0], False)):
        torch.library.opcheck(native.softmax_codes.default, (x, 3, 1, log, 8, 8))
        torch.library.opcheck(native.softmax_grad.default, (torch.randn(x.shape), x, one, log))
    for flags, t in ((0, None), (OBSERVE | GRAD, None), (OBSERVE | GRAD, torch.tensor([1.0]))):
        arguments = (q.transpose(0, 2), one, 1, False, *fixed_scale(0), t, 8, 0.0, 1, flags)
        torch.library.opcheck(native.softmax.default, arguments)
    torch.library.opcheck(native.chip_softmax.default, (q.int().transpose(0, 1), 1, False))
