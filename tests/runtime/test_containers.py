"""Containers that compute: their operators are state, not layers."""

import copy

import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner

X = torch.linspace(-2, 2, 24).reshape(3, 8)


class Residual(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + x


class Steps(nn.Sequential):
    def forward(self, x):
        for layer in self:
            x = layer(x) + x
        return x


class Listed(nn.ModuleList):
    def forward(self, x):
        for i, layer in enumerate(self):
            x = torch.cat([layer(x)[:, :4], self[i - 1](x)[:, :4]], 1)
        return x


class Named(nn.ModuleDict):
    def forward(self, x):
        found = [x]
        for _, layer in self.items():
            found.append(layer(found[-1]))
        for name in self:
            found.append(torch.sigmoid(self[name](x)))
        return torch.cat(found, 1)[:, ::5]


class Children(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        for layer in self.children():
            x = torch.tanh(layer(x))
        return x


def pair():
    return nn.Linear(8, 8), nn.Linear(8, 8)


BLOCKS = {
    "residual": lambda: Residual(*pair()),
    "steps": lambda: Steps(*pair()),
    "list": lambda: Listed(pair()),
    "dict": lambda: Named(dict(zip("ab", pair(), strict=True))),
    "children": Children,
}


def file_result(model, path):
    linger.onnx.export(model, X[:1], path)
    return torch.from_numpy(OnnxRunner(path).run(X[:1].numpy())["output"])


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("block", BLOCKS)
def test_operators_of_a_container_are_not_its_layers(block, given, tmp_path):
    torch.manual_seed(0)
    float_model = nn.Sequential(BLOCKS[block](), nn.Identity())
    with torch.no_grad():
        near = float_model(X)
    model = linger.init(float_model, example_inputs=X if given else None)
    layers = 2
    for _ in range(3):  # each forward finds the operators of the one before
        y = model(X)
    y.sum().backward()
    assert (y - near).abs().median() < 0.15  # a few are cut at the range
    if block != "children":
        assert len(model[0]) == layers
    assert len(list(model[0].children())) > layers, "train, eval and to reach the operators"
    model.eval()
    assert not any(m.training for m in model.modules())
    want = model(X)
    assert torch.equal(file_result(model, tmp_path / "m.onnx"), want[:1])
    loaded = linger.init(nn.Sequential(BLOCKS[block](), nn.Identity()))
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded.eval()(X), want)
    assert torch.equal(copy.deepcopy(model)(X), want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own
@pytest.mark.parametrize("given", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("block", [b if b == "steps" else pytest.param(b, marks=pytest.mark.slow) for b in BLOCKS])
def test_computing_containers_compile_whole(block, given):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = linger.init(nn.Sequential(BLOCKS[block](), nn.Identity()), example_inputs=X if given else None)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.equal(model(X), compiled(X))


@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_that_compute_inside_a_sequential(when, tmp_path):
    f = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    if when == "before":
        f[0].register_forward_hook(lambda m, i, o: o * 0.5 + 0.25)
    model = linger.init(f)
    if when == "after":
        model[0].register_forward_hook(lambda m, i, o: o * 0.5 + 0.25)
    model(X)
    model(X).sum().backward()
    model.eval()
    assert torch.equal(file_result(model, tmp_path / "m.onnx"), model(X[:1]))


def test_a_late_activation_is_computed_once():
    model = linger.init(nn.Sequential(nn.Linear(8, 8)))
    model.append(nn.Sigmoid())  # its operator belongs to the Sequential
    model(X)
    y = model(X)
    assert torch.allclose(y, torch.sigmoid(model[0](X)), atol=0.01)
    assert len(model) == 2


@pytest.mark.parametrize("kind", [Steps, Listed])
def test_layers_are_numbered_without_the_operators(kind):
    a, b, c = pair() + (nn.Linear(8, 8),)
    model = linger.init(nn.Sequential(kind(pair()) if kind is Listed else kind(*pair())))[0]
    model(X)
    first, second = model
    operators = [name for name in model._modules if name.startswith("_linger_qtensor_")]
    assert operators
    model.append(a)
    assert list(model) == [first, second, a]
    assert model[-1] is a
    assert model[2] is a
    model.insert(0, b)
    assert list(model) == [b, first, second, a]
    model[1] = c
    del model[0]
    model += kind([b]) if kind is Listed else kind(b)
    assert list(model) == [c, second, a, b]
    assert list(model._modules)[:4] == ["0", "1", "2", "3"]
    assert [name for name in model._modules if name.startswith("_linger_qtensor_")] == operators
    assert list(model[1:3]) == [second, a]
    assert model.pop(0) is c
    assert len(model) == 3
    model(X)
    assert model[:2](X).shape == X.shape
