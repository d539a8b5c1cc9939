"""Gated linear units of codes: recorded integers, int64 oracle, statistics, gradients, refusals."""

import math

import numpy as np
import pytest
import torch
from functions_oracle import fixed, glu, rhu, sat, sigmoid
from golden.cases import ARRAYS
from ops_oracle import coded, codes8, exp2_of_peak, output, stats
from ops_oracle import fixed as fixed_scale

import linger
from linger import ops
from linger.chip import CHIPS
from linger.ops.glu import GATE_EXP2
from linger.ops.spec import GRAD, OBSERVE

native = torch.ops.linger
PLATFORMS = ("arcs", "venusA", "venus")


@pytest.mark.parametrize("case", [c for c in ARRAYS if c.op == "later_GluInt"], ids=lambda c: c.id)
def test_recorded_gates_of_the_later_engine(case):
    params, chip = case.about["params"], CHIPS[case.platform]
    x = torch.from_numpy(case.arrays["in_0"]).movedim(params["dim"], -1)
    shift = GATE_EXP2[chip] + params["q_x"] - params["q_o"]
    got = ops.glu_codes(x, params["q_x"], chip, shift, 8).movedim(-1, params["dim"])
    assert np.array_equal(got.numpy(), case.arrays["out_0"])


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("rows", "half"), [(0, 3), (1, 1), (5, 7), (3, 16), (40, 33), (9, 1200)])
def test_gates(platform, rows, half, isa):
    q, chip = codes8(rows * half * 2, half).view(rows, 2 * half), CHIPS[platform]
    for exp2 in (-2, 0, 4, 20):
        for less in (8, 5, 1, 0):
            shift = GATE_EXP2[chip] + exp2 - exp2 - 7 + less
            for bits in (8, 16, 32):
                got = ops.glu_codes(q, exp2, chip, max(shift, 0), bits)
                assert np.array_equal(got.numpy(), glu(q.numpy(), exp2, platform, max(shift, 0), bits))
    for left in (1, 9, 24, 31):
        assert np.array_equal(ops.glu_codes(q, 3, 1, -left, 32).numpy(), glu(q.numpy(), 3, "venusA", -left, 32))


def _random_calls(seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        platform = str(rng.choice(PLATFORMS))
        shape = (int(rng.integers(1, 12)), int(rng.integers(1, 5)), 2 * int(rng.integers(1, 90)))
        q = rng.integers(-128, 128, shape).astype(np.int8)
        exp2, shift, bits = int(rng.integers(-3, 24)), int(rng.integers(0, 60)), int(rng.choice([8, 16, 32]))
        got = ops.glu_codes(torch.from_numpy(q), exp2, CHIPS[platform], shift, bits)
        assert np.array_equal(got.numpy(), glu(q, exp2, platform, shift, bits)), seed


def test_random_calls():
    _random_calls(range(100))


@pytest.mark.slow
def test_many_random_calls():
    _random_calls(range(100, 3000))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_statistics_and_gradient(platform, dim, isa):
    x, t = coded(codes8(6 * 10 * 8).view(6, 10, 8), 5), torch.tensor([0.0], requires_grad=True)  # scale 2**7
    value, chip, s = x.value.requires_grad_(), CHIPS[platform], stats()
    y = ops.glu(x, output(s, observe=True), chip=chip, dim=dim)
    a, b = np.split(np.moveaxis(x.codes.numpy(), dim, -1).astype(np.int64), 2, -1)
    frac, width, gate_bits = (11, 16, 8) if platform == "venus" else (27, 32, 32)
    gate = sigmoid(fixed(b, 5, frac, width), platform, gate_bits)
    sums = np.moveaxis(a * (rhu(gate, 16) if platform == "venusA" else gate), -1, dim)
    acc = 5 + GATE_EXP2[chip]
    peak = np.float32(np.abs(sums).max() / 2.0**acc)
    e = min(exp2_of_peak(float(peak), 8), acc)
    assert s.running == torch.tensor(peak)
    assert np.array_equal(y.codes.numpy(), sat(rhu(sums, acc - e), 8))
    assert torch.equal(y.value, y.codes / 2.0**e)

    y = ops.glu(x, output(stats(), threshold=t), chip=chip, dim=dim)
    g = torch.randn(y.value.shape, generator=torch.Generator().manual_seed(1))
    gx, gt = torch.autograd.grad(y.value, (value, t), g)
    raw = torch.from_numpy(rhu(sums, acc - 7))
    passes = (raw >= -128) & (raw <= 127)
    assert not passes.all()
    exact = value.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(torch.nn.functional.glu(exact, dim), exact, torch.where(passes, g.double(), 0.0))
    torch.testing.assert_close(gx.double(), want, rtol=1e-6, atol=1e-6)
    steps = torch.where(passes, raw - torch.from_numpy(sums) / 2.0 ** (acc - 7), raw.clamp(-128, 127).double())
    torch.testing.assert_close(gt, (math.log(2) / 128 * (g.double() * steps).sum()).float().reshape(1))


def test_nan():
    x, s = coded(codes8(40).view(4, 10), math.nan), fixed_scale(4)
    x = x._replace(value=x.value.requires_grad_())
    y = ops.glu(x, output(s, observe=True), chip=0)
    assert y.value.isnan().all()
    assert y.scale.isnan()
    assert not y.codes.any()
    assert not torch.autograd.grad(y.value.sum(), x.value)[0].any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)


def test_refusals():
    x, q, out = coded(codes8(4), 1), codes8(4), output(stats())
    for bad, kind, text in [
        (lambda: ops.glu(q, out, chip=0), TypeError, "glu: x must be Coded, got Tensor"),
        (lambda: ops.glu(coded(codes8(3), 1), out, chip=0), ValueError, "axis -1 must have an even length, got 3"),
        (lambda: ops.glu(coded(q.int(), 1), out, chip=0), linger.UnsupportedError, "at most 8 bits"),
        (lambda: ops.glu(x, out, chip=0, dim=1), ValueError, r"glu: dim must be in \[-1, 0\], got 1"),
        (lambda: ops.glu_codes(q.int(), 0, 0, 0, 8), TypeError, "glu_codes: x must be int8, got torch.int32"),
        (lambda: ops.glu_codes(q, 0, 0, 64, 8), ValueError, r"shift must be in \[-31, 63\], got 64"),
        (lambda: ops.glu_codes(q, 0, 3, 0, 8), RuntimeError, r"chip must be in \[0, 2\]"),
        (
            lambda: native.glu_grad(torch.ones(1), q[:2].view(2, 1), torch.ones(())),
            RuntimeError,
            "the last axis must be even, got 1",
        ),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck():
    q, one = codes8(24).view(2, 3, 4), torch.ones(())
    for x in (q, q.transpose(0, 2)[..., :2], q[:0]):
        torch.library.opcheck(native.glu_codes.default, (x, 3, 1, 0, 8, 8))
        torch.library.opcheck(native.glu_grad.default, (torch.randn(*x.shape[:-1], x.shape[-1] // 2), x, one))
        for flags in (0, OBSERVE | GRAD):
            for t in (None, torch.tensor([1.0])):
                torch.library.opcheck(native.glu.default, (x, one, 1, *fixed_scale(0), t, 8, 0.0, 1, flags))
