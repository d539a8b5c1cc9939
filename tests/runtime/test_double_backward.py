"""Gradients of gradients through converted models: gradient penalties, products of the Hessian with a vector."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.quantizers import Quantizer
from linger.runtime import Format, info, tag

LINEAR = {
    "quantize": lambda y: y,
    "add": lambda y: y + y.flip(0),
    "sub": lambda y: y - y.flip(1),
    "times number": lambda y: y * 0.5,
    "over number": lambda y: y / 2,
    "cat": lambda y: torch.cat([y, y], 1),
    "relu": F.relu,
    "average pool": lambda y: F.avg_pool2d(y, 2),
    "mean": lambda y: y.mean((2, 3)),
    "max pool": lambda y: F.max_pool2d(y, 2),
    "clamp": lambda y: y.clamp(-0.5, 0.5),
    "pad": lambda y: F.pad(y, (1, 1)),
    "shape": lambda y: y.permute(0, 2, 3, 1)[:, 1:].flatten(1),
}
CURVED = {
    "mul": lambda y: y * y.flip(0),
    "gate": lambda y: y * y.mean((2, 3), keepdim=True),
    "learned number": lambda y: y * nn.Parameter(torch.tensor(0.5)),
    "square": lambda y: y * y,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "leaky": lambda y: F.leaky_relu(y, 0.25),
    "glu": lambda y: F.glu(y, 1),
    "log_softmax": lambda y: y.log_softmax(1),
    "matmul": lambda y: y @ y.transpose(2, 3),
}


@pytest.fixture
def use(tmp_path):
    """Makes a platform and a method the settings of what follows."""

    def choose(platform, method="MOM"):
        file = tmp_path / "settings.yaml"
        file.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
        linger.settings.use(linger.settings.load(file))

    return choose


class _Model(nn.Module):
    """A function of user code behind a quantized operand."""

    def __init__(self, function):
        super().__init__()
        self.quantizer, self.function, self.child = Quantizer(8), function, nn.Identity()

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            out = self.quantizer(x)
            y = tag(out.value, Format(out.scale, 8, out.codes))
        return self.function(y)


def _second(y, x):
    (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x, allow_unused=True)[0]


@pytest.mark.parametrize("name", list(LINEAR))
def test_between_the_limits_they_are_those_of_float(name):
    torch.manual_seed(0)
    x = (torch.randint(-60, 61, (2, 4, 8, 8)) / 64).requires_grad_()
    model = linger.init(_Model(LINEAR[name]))
    y = model(x)
    assert info(y) is not None
    real = LINEAR[name](x)
    straight = real + (y - real).detach()  # the integers' values, float's gradients
    torch.testing.assert_close(_second(y, x), _second(straight, x), rtol=1e-4, atol=1e-4)


REAL = {"hardswish": lambda v: v * (v / 6 + 0.5), "hardsigmoid": lambda v: v / 6 + 0.5}  # torch derives its own once


@pytest.mark.parametrize("platform", ["arcs", "venusA"])
@pytest.mark.parametrize("name", list(CURVED))
def test_curved_operators_have_those_of_float(name, platform, use):
    torch.manual_seed(0)
    x = (torch.randint(-60, 61, (2, 4, 8, 8)) / 64).requires_grad_()
    use(platform)
    model = linger.init(_Model(CURVED[name]))
    model(2 * x.detach())
    model.eval()  # with room: nothing saturates
    y, x64 = model(x), x.detach().double().requires_grad_()
    real = REAL.get(name, CURVED[name])(x64)
    straight = real + (y.detach() - real).detach()
    near = 0.05 if name in REAL or name == "silu" else 1e-3  # 1 / 6 and the gates are int8 there
    torch.testing.assert_close(_second(y, x).double(), _second(straight, x64), rtol=near, atol=near)


def _penalised(model, x):
    """A WGAN-GP loss: the slope of the critic at x is pulled to 1."""
    x = x.clone().requires_grad_()
    y = model(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.mean() + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()


def _cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.25), nn.Conv2d(8, 8, 3, groups=4),
        nn.SiLU(), nn.ConvTranspose2d(8, 4, 3, stride=2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 1),
    )  # fmt: skip


def _mlp():
    layers = nn.Linear(256, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 1)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("build", [_cnn, _mlp])
def test_a_gradient_penalty_trains(build, method, use):
    """The parameters' gradients point where those of the float model do, and a step along them lowers the loss."""
    use("venusA", method)
    torch.manual_seed(0)
    x = torch.randn(8, 1, 16, 16) * torch.linspace(0.5, 1.5, 8).view(-1, 1, 1, 1)
    real = build().eval()
    model = linger.init(copy.deepcopy(real), example_inputs=(x,)).train()
    model(2 * x)  # with room: little saturates
    linger.freeze_statistics(model)
    before = _penalised(model, x)
    before.backward()
    _penalised(real, x).backward()
    mine = dict(model.named_parameters())
    for name, p in real.named_parameters():
        if name.endswith("weight") and p.dim() > 1:
            cosine = F.cosine_similarity(p.grad.flatten(), mine[name].grad.flatten(), 0)
            assert cosine > 0.6, (name, float(cosine))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.optim.SGD(model.parameters(), 1e-2).step()
    assert _penalised(model, x) < before


def test_the_first_gradient_is_the_same_with_a_graph(use):
    use("venusA")
    torch.manual_seed(0)
    x = torch.randn(4, 1, 16, 16, requires_grad=True)
    model = linger.init(_cnn(), example_inputs=(x.detach(),)).train()
    model(x)
    model.eval()
    inputs = [x, *(p for p in model.parameters() if p.requires_grad)]
    plain = torch.autograd.grad(model(x).sum(), inputs, allow_unused=True)
    graph = torch.autograd.grad(model(x).sum(), inputs, create_graph=True, allow_unused=True)
    for a, b in zip(plain, graph, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class _Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_recurrent_layers_refuse_by_name(layer):
    x = torch.randn(2, 5, 4, requires_grad=True)
    model = linger.init(_Recurrent(layer(4, 3, batch_first=True)))
    model(x)
    model.eval()
    (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    torch.testing.assert_close(first, torch.autograd.grad(model(x).sum(), x)[0])  # alone it is as good as any
    with pytest.raises(RuntimeError, match=f"{layer.__name__} has no second derivative.*leave recurrent layers out"):
        first.square().sum().backward()
