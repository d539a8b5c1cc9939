"""Activations that are rewritten in the operators the chips have: every spelling, every chip, from module to file."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.onnx import OnnxRunner
from linger.runtime import SPELLINGS, info, is_quantized, islands_of, resolve
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Activations(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)
        self.leaky, self.one, self.many = nn.LeakyReLU(0.2), nn.PReLU(), nn.PReLU(4, init=-0.3)
        self.hard, self.swish = nn.Hardtanh(-0.7, 0.4), nn.Hardswish()

    def forward(self, x):
        x = self.many(self.leaky(self.a(x)) - 0.3)
        x = self.swish(self.hard(self.b(x))) * F.hardsigmoid(x)
        x = self.c(x.clamp(min=-0.05).mean((2, 3)))
        return torch.abs(self.one(x) - 0.01).clamp_max(0.6) + F.leaky_relu(x)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_activations(platform, method, tmp_path):
    torch.manual_seed(1)
    model = Activations()
    nodes = assert_same_everywhere(model, batches((3, 6, 7)), tmp_path, platform, method)
    assert not {"LeakyRelu", "PRelu", "Clip", "HardSigmoid"} & set(nodes)
    if method == "MOM":
        assert model.one.weight.grad.abs().sum() > 0
        assert model.many.weight.grad.abs().sum() > 0


class Pointwise(nn.Module):
    """An activation on every int8 code at scale 2**q_x."""

    def __init__(self, call):
        super().__init__()
        self.same = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.same.weight)
        self.call = call

    def forward(self, x):
        return self.call(self.same(x))


def run(call, q_x, tmp_path):
    """Codes in, codes out (from module and file), the output's exponent, gradients."""
    codes = torch.arange(-128, 128).reshape(1, 1, 16, 16)
    x = codes / 2.0**q_x
    model = linger.init(Pointwise(call))
    model(x)
    for quantizer, exp2 in [
        (model.same.input_quantizer, q_x),
        (model.same.weight_quantizer, 6),
        (model.same.output_quantizer, q_x),
    ]:
        quantizer.scale.fill_(2.0**exp2)
    x.requires_grad_()
    y = model.eval()(x)
    y.sum().backward()
    q_o = int(np.log2(info(y).scale.item()))
    linger.onnx.export(model, x.detach(), tmp_path / "m.onnx")
    (file,) = OnnxRunner(tmp_path / "m.onnx").run(x.detach(), integers=True).values()
    got = (y.detach() * 2.0**q_o).long()
    assert np.array_equal(file, got.numpy())
    assert islands_of(model) == []
    return codes.flatten(), got.flatten(), q_o, x.grad.flatten()


def rsh(v, s):
    return (v + (1 << s >> 1)) >> s


@pytest.mark.parametrize("q_x", [0, 3, 7])
@pytest.mark.parametrize(("slope", "code", "exp2"), [(0.01, 82, 13), (0.25, 64, 8), (1.0, 64, 6), (-0.5, -64, 7)])
def test_leaky_relu(slope, code, exp2, q_x, tmp_path):
    x, got, q_o, grad = run(lambda v: F.leaky_relu(v, slope), q_x, tmp_path)
    negative = (-x).clamp(0, 127)
    want = (x.clamp_min(0) + rsh(-code * negative, exp2).clamp(-128, 127)).clamp(-128, 127)
    assert q_o == q_x
    assert torch.equal(got, want)
    torch.testing.assert_close(grad[129:], torch.ones(127))
    torch.testing.assert_close(grad[1:128], torch.full((127,), code / 2.0**exp2))


def test_abs(tmp_path):
    x, got, _, grad = run(torch.abs, 4, tmp_path)
    assert torch.equal(got, x.abs().clamp_max(127))
    assert torch.equal(grad[1:128], -torch.ones(127))


@pytest.mark.parametrize("q_x", [0, 3, 7])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 6), (-1, 1), (-0.3, 0.4), (None, 0.2), (0.1, None), (-7.3, 2), (-500, 500), (0, None), (3, 3)]
)
def test_clamp(low, high, q_x, tmp_path):
    x, got, q_o, grad = run(lambda v: torch.clamp(v, low, high), q_x, tmp_path)
    lo, hi = (
        np.clip(np.floor(v * 2.0**q_x + 0.5), -128, 127) if v is not None else d for v, d in ((low, -128), (high, 127))
    )
    assert q_o == q_x
    assert torch.equal(got, x.clamp(int(lo), int(hi)))
    assert torch.equal(grad, ((x >= lo) & (x <= hi)).float())


def test_hardtanh_has_no_gradient_at_its_limits(tmp_path):
    x, _, _, grad = run(nn.ReLU6(), 3, tmp_path)
    assert torch.equal(grad, ((x > 0) & (x < 48)).float())
    x, _, _, grad = run(nn.Hardtanh(), 3, tmp_path)
    assert torch.equal(grad, ((x > -8) & (x < 8)).float())


@pytest.mark.parametrize("q_x", [0, 3, 7])
def test_hardsigmoid(q_x, tmp_path):
    x, got, q_o, grad = run(F.hardsigmoid, q_x, tmp_path)
    assert q_o == 7
    assert torch.equal(got, rsh(x * 85 + 2 ** (q_x + 8), q_x + 2).clamp(0, 127))
    torch.testing.assert_close(got / 128.0, F.hardsigmoid(x / 2.0**q_x), atol=0.012, rtol=0)
    inside = (got > 0) & (got < 127)
    assert torch.equal(grad[inside], torch.full((int(inside.sum()),), 85 / 512))
    assert not grad[got == 0].any()


def test_hardswish(tmp_path):
    x, got, q_o, grad = run(F.hardswish, 4, tmp_path)
    value = (x / 16.0).requires_grad_()
    want = F.hardswish(value)
    inside = (got > -128) & (got < 127)
    torch.testing.assert_close((got / 2.0**q_o)[inside], want.detach()[inside], atol=0.08, rtol=0.01)
    want.sum().backward()
    torch.testing.assert_close(grad[inside], value.grad[inside], atol=0.2, rtol=0.02)


NAMES = ["clamp", "leaky_relu", "abs", "hardswish", "hardsigmoid", "relu"]


@pytest.mark.parametrize("spelling", [s for name in NAMES for s in SPELLINGS[name]])
def test_spellings(spelling):
    func = resolve(spelling)
    rest = {"clamp": (-0.1, 0.3), "clip": (-0.1, 0.3), "clamp_min": (-0.2,), "clamp_max": (0.1,)}
    args = rest.get(spelling.split(".")[1].rstrip("_"), ())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return func(self.a(x), *args)

    torch.manual_seed(0)
    model = linger.init(Net())
    x = torch.randn(2, 4)
    with linger.calibration():
        calibrated = model(x)
    y = model(x)
    assert is_quantized(y)
    assert calibrated.shape == y.shape
    a = model.a(x).detach()
    want = func(a.clone(), *args)
    assert torch.isclose(y, want, atol=0.03, rtol=0.05).sum() >= 8  # of 12: the largest may saturate


@pytest.mark.parametrize(
    "call",
    [
        lambda v: F.leaky_relu(v, 1.5),
        lambda v: torch.clamp(v, 1, 0),
        lambda v: torch.clamp(v, torch.zeros(6)),
        F.elu,
        F.softplus,
    ],
)
def test_what_stays_an_island(call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return call(self.a(x))

    model = linger.init(Net())
    model(torch.randn(2, 4))
    assert len(islands_of(model)) == 1


def test_modules_in_a_sequential_hold_their_own_state():
    model = linger.init(
        nn.Sequential(nn.Linear(4, 4), nn.Hardswish(), linger.nn.Requant(), nn.PReLU(), nn.Linear(4, 4))
    )
    for _ in range(2):
        assert is_quantized(model(torch.randn(2, 4)))
    assert len(model) == 5
    assert "_linger_qtensor_qhardswish_0" in dict(model[1].named_children())
    assert "_linger_qtensor_qrequant_0" in dict(model[2].named_children())
    assert islands_of(model) == []
