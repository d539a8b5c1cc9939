"""LayerNorm from module, function and file: the same integers, the recorded ones, on every chip."""

import numpy as np
import onnx
import pytest
import torch
from golden.cases import CASES
from torch import nn
from torch.nn import functional as F

import linger
from linger.nn import LayerNormInt
from linger.ops.layer_norm import nearest_eps
from linger.runtime import Format, info, islands_of, tag
from linger.settings import Settings
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere

GOLDEN = [case for case in CASES if case.op == "LayerNormInt"]


class Norms(nn.Module):
    """One and several axes, with and without affine parameters and offset, on ranks 2 to 4, one with a ReLU behind it."""

    def __init__(self):
        super().__init__()
        self.a, self.n1 = nn.Linear(8, 8), nn.LayerNorm(8)
        self.n2, self.n3 = nn.LayerNorm((5, 8), elementwise_affine=False), nn.LayerNorm(8, bias=False)
        self.n4, self.b, self.n5 = nn.LayerNorm((2, 5, 4)), nn.Linear(40, 6), nn.LayerNorm([6], eps=1e-3)
        for norm in (self.n1, self.n3, self.n4, self.n5):
            nn.init.normal_(norm.weight, 1.0, 0.3)
            if norm.bias is not None:
                nn.init.normal_(norm.bias)

    def forward(self, x):
        x = self.n2(F.relu(self.n1(self.a(x))))
        x = self.n3(x + self.a(x)).reshape(-1, 5, 2, 4).transpose(1, 2)
        return self.n5(self.b(self.n4(x).flatten(1)))


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_train_eval_and_file_agree(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Norms(), batches((5, 8)), tmp_path, platform, method)
    assert nodes.count("LayerNormInt") == 5
    assert nodes.count("iqMul") == 1  # eps = 1e-3
    (gamma,) = [i for i in onnx.load(tmp_path / "m.onnx").graph.initializer if i.name == "n1.weight"]
    assert onnx.numpy_helper.to_array(gamma).dtype == (np.int16 if platform == "venus" else np.int8)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_function_is_the_module(platform, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.gamma, self.beta = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.randn(6))

        def forward(self, x):
            x = F.layer_norm(self.a(x), (6,), self.gamma, bias=self.beta)
            return torch.layer_norm(x, [6], eps=1e-4)

    torch.manual_seed(2)
    nodes = assert_same_everywhere(Net(), batches((4, 6)), tmp_path, platform)
    assert nodes.count("LayerNormInt") == 2
    model = linger.init(Net(), example_inputs=torch.randn(1, 4, 6))
    model(torch.randn(2, 4, 6)).square().sum().backward()
    assert model.gamma.grad.abs().sum() > 0
    assert model.beta.grad.abs().sum() > 0
    state = model.state_dict()
    assert "_linger_qtensor_qlayer_norm_0.weight_quantizer.running_data" in state
    again = linger.init(Net())
    again.load_state_dict(state)
    x = torch.randn(2, 4, 6)
    assert torch.equal(again.eval()(x), model.eval()(x))


@pytest.mark.parametrize("case", GOLDEN, ids=[case.id for case in GOLDEN])
def test_eval_modules_give_the_recorded_integers(case):
    (codes,), (want,) = case.inputs.values(), case.outputs.values()
    gamma, beta = (case.arrays[w["key"]] for w in case.about["weights"])
    q = case.about["params"]
    bits = 4 if "int4" in case.id else 8
    settings = Settings(platform=case.platform).layer("")
    n = gamma.size
    shape = codes.shape[-1:] if codes.shape[-1] == n else codes.shape[-2:]
    norm = LayerNormInt(shape, quant=settings.__class__(**{**settings.__dict__, "weight_bits": bits})).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(gamma / 2.0 ** q["q_w"]).view(shape))
        norm.bias.copy_(torch.from_numpy(beta / 2.0 ** q["q_bias"]).view(shape))
    for quantizer, exp2 in ((norm.weight_quantizer, q["q_w"]), (norm.output_quantizer, q["q_o"])):
        quantizer.set_range(torch.tensor(2.0 ** (quantizer.bits - 1 - exp2)))
        assert quantizer.scale == 2.0**exp2
    scale = torch.tensor(2.0 ** q["q_x"])
    x = torch.from_numpy(codes)
    y = norm(tag(x / scale, Format(scale, 8, x)))
    exact = np.all(np.float32(beta) == beta)  # a float32 parameter holds 24 bits of the recorded offset
    if exact:
        assert np.array_equal(info(y).codes.numpy(), want)
        assert torch.equal(y.detach() * 2.0 ** q["q_o"], torch.from_numpy(want).float())
    else:
        assert "extreme_bias" in case.id
        assert np.abs(info(y).codes.numpy().astype(int) - want).max() <= 1


def test_the_vectors_are_there():
    assert len(GOLDEN) == 30


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-5, 1e-3, 0.1])
def test_eps_counts(platform, eps, tmp_path):
    """Rows of small variance: float and integers agree as far as eps can be met, a factor of two at most."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.LayerNorm(16, eps=eps))
    x = torch.randn(1, 4, 16) * torch.tensor([1.0, 0.1, 0.05, 0.02])[:, None] + 0.1
    near = 1e-5 * 4.0 ** nearest_eps(eps)
    assert 0.5 <= near / eps <= 2.0
    assert_same_everywhere(net, [(x,)] * 3, tmp_path, platform)
    y = net.eval()(x)
    scale, most = net[0].input_quantizer.scale, 127 / net[0].output_quantizer.scale
    seen = (x * scale + 0.5).floor().clamp(-128, 127) / scale  # what the input quantizer hands on
    gamma = 32767 / 32768 if platform == "venus" else 127 / 128  # 1, as the weights' rule rounds it
    want = (gamma * F.layer_norm(seen, (16,), eps=near)).clamp(-most, most)
    torch.testing.assert_close(y, want, atol=0.6 / 32, rtol=0.01)


def test_gradients_are_the_float_layers():
    torch.manual_seed(4)
    net = linger.init(nn.Sequential(nn.LayerNorm((3, 10))), example_inputs=torch.randn(1, 3, 10))
    nn.init.normal_(net[0].weight, 1.0, 0.2)
    x = torch.randn(4, 3, 10)
    for _ in range(2):
        net(x)
    linger.freeze_statistics(net)
    x.requires_grad_()
    y = net(x)
    g = torch.randn_like(y)
    y.backward(g)
    scale = net[0].input_quantizer.scale
    seen = ((x.detach() * scale + 0.5).floor().clamp(-128, 127) / scale).double().requires_grad_()
    gamma = (net[0].weight.detach() * net[0].weight_quantizer.scale).round() / net[0].weight_quantizer.scale
    gamma = gamma.clamp(max=127 / net[0].weight_quantizer.scale).double().requires_grad_()
    beta = net[0].bias.detach().double().requires_grad_()
    want = F.layer_norm(seen, (3, 10), gamma, beta)
    assert (y - want).abs().max() < 2 / net[0].output_quantizer.scale
    out = net[0].output_quantizer.scale
    inside = (y > -128 / out) & (y < 127 / out)
    want.backward(torch.where(inside, g, 0.0).double())
    passes = ((x.detach() * scale + 0.5).floor() >= -128) & ((x.detach() * scale + 0.5).floor() <= 127)
    torch.testing.assert_close(x.grad.double(), torch.where(passes, seen.grad, 0.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net[0].weight.grad.double(), gamma.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net[0].bias.grad.double(), beta.grad, atol=1e-5, rtol=1e-5)


def test_calibration_and_constraint(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("clamp_info:\n  clamp_weight_value: 0.75\n  clamp_activation_value: 2.0\n")
    torch.manual_seed(5)
    net = linger.constrain(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), str(path))
    x = torch.randn(6, 8)
    assert net(x).abs().max() <= 2.0
    net = linger.init(net, str(path))
    assert type(net[1]) is LayerNormInt
    assert net[1].weight.max() <= 0.75
    with linger.calibration(), torch.no_grad():
        net(x)
    y = net.eval()(x)
    assert islands_of(net) == []
    away = y - F.layer_norm(net[0](x), (8,), net[1].weight, net[1].bias)
    assert away.abs().median() < 0.02  # the default method leaves the ten largest out


def test_what_a_chip_cannot_is_said(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("platform: venus\n")
    net = linger.init(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), str(path))
    net(torch.randn(4, 3))
    with pytest.raises(linger.onnx.ExportError, match="normalised size 3, the chip takes at least 4"):
        linger.onnx.export(net, torch.randn(1, 3), tmp_path / "m.onnx")
    path.write_text("platform: arcs\nquant_info:\n  weight_bits: 4\n")
    net = linger.init(nn.Sequential(nn.LayerNorm(24)), str(path))
    net(torch.randn(4, 24))
    with pytest.raises(linger.onnx.ExportError, match="4-bit gamma of 24 elements"):
        linger.onnx.export(net, torch.randn(1, 24), tmp_path / "m.onnx")
