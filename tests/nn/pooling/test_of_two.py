"""The larger and the smaller of two tensors: integers against an oracle, gradients against torch, files against both."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.runtime import codes, info, islands_of
from tests.nn.same import PLATFORMS, assert_same_everywhere

SPELLINGS = {
    "maximum": torch.maximum,
    "Tensor.maximum": lambda x, y: x.maximum(y),
    "max of two": torch.max,
    "Tensor.max of two": lambda x, y: x.max(y),
    "max, named": lambda x, y: torch.max(x, other=y),
    "minimum": torch.minimum,
    "Tensor.minimum": lambda x, y: x.minimum(other=y),
    "min of two": torch.min,
}
SHAPES = {
    "one axis": ((6,), (6,)),
    "two axes": ((1, 6), (1, 6)),
    "three axes": ((1, 4, 6), (1, 4, 6)),
    "a map": ((1, 3, 4, 6), (1, 3, 4, 6)),
    "five axes": ((1, 2, 3, 4, 6), (1, 2, 3, 4, 6)),
    "per channel": ((1, 3, 4, 6), (1, 3, 1, 1)),
    "repeated left": ((1, 1, 6), (1, 4, 6)),
    "both repeated": ((1, 4, 1), (1, 1, 6)),
    "other rank": ((1, 4, 6), (1, 6)),
}


class Pair(nn.Module):
    """Both operands come from layers, whose results have scales of their own."""

    def __init__(self, call, shapes, scale=5.0):
        super().__init__()
        self.call = call
        self.a, self.b = (nn.Linear(s[-1], s[-1], bias=False) for s in shapes)
        with torch.no_grad():
            self.a.weight.copy_(torch.eye(len(self.a.weight)))
            self.b.weight.copy_(scale * torch.eye(len(self.b.weight)))

    def forward(self, x, y):
        return self.call(self.a(x), self.b(y))


def lowest(name):
    return "min" in name


def trained(call, *inputs, scale=5.0, platform="venusA", tmp_path=None, more=""):
    (tmp_path / "c.yaml").write_text(f"platform: {platform}\n{more}")
    model = linger.init(
        Pair(call, [t.shape for t in inputs], scale), str(tmp_path / "c.yaml"), example_inputs=inputs
    ).train()
    model(*inputs)
    return model.eval()


def parts(model, *inputs):
    """Codes and exponents of both operands and of the result."""
    seen = []
    hooks = [m.register_forward_hook(lambda m, x, y: seen.append(y)) for m in (model.a, model.b)]
    z = model(*inputs)
    for hook in hooks:
        hook.remove()
    return [(codes(t, info(t)).long().numpy(), int(info(t).scale.log2())) for t in (*seen, z)], z


def narrowed(x, shift):
    """``sat_8(RSH(x, shift))``."""
    moved = (x + (1 << shift >> 1)) >> shift if shift >= 0 else x << -shift
    return np.clip(moved, -128, 127)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", SPELLINGS)
def test_the_integers_of_the_larger_or_smaller(name, shapes, scale, tmp_path):
    torch.manual_seed(len(name))
    inputs = [torch.randn(s) for s in SHAPES[shapes]]
    model = trained(SPELLINGS[name], *inputs, scale=scale, tmp_path=tmp_path)
    with torch.no_grad():
        ((x, q_x), (y, q_y), (z, q_z)), value = parts(model, *inputs)
    pick = np.minimum if lowest(name) else np.maximum
    want = pick(narrowed(x, q_x - q_z), narrowed(y, q_y - q_z))
    assert np.array_equal(z, want) and np.array_equal(value.numpy(), (want * 2.0**-q_z).astype(np.float32))
    assert islands_of(model) == []


@pytest.mark.parametrize("name", ["maximum", "min of two"])
def test_every_pair_of_codes(name, tmp_path):
    every = torch.arange(-128, 128.0) / 128
    x, y = (t.reshape(-1, 1) for t in torch.meshgrid(every, every, indexing="ij"))
    model = trained(SPELLINGS[name], x, y, scale=1.0, tmp_path=tmp_path)
    with torch.no_grad():
        ((a, q_a), (b, q_b), (z, q_z)), _ = parts(model, x, y)
    pick = np.minimum if lowest(name) else np.maximum
    assert np.array_equal(z, pick(narrowed(a, q_a - q_z), narrowed(b, q_b - q_z)))


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", ["maximum", "minimum"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_files_run_the_same_integers(platform, name, shapes, tmp_path):
    torch.manual_seed(1)
    batches = [tuple(torch.randn(s) for s in SHAPES[shapes]) for _ in range(2)]
    nodes = assert_same_everywhere(Pair(SPELLINGS[name], SHAPES[shapes]), batches, tmp_path, platform)
    assert {"iqCat", "MaxPool"} <= set(nodes) and not {"Max", "Min", "Dequant"} & set(nodes[:-1])


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_gradients_are_torchs(name, tmp_path):
    """Of two equal operands each gets half, as torch gives it."""
    torch.manual_seed(2)
    x, y = torch.randn(1, 4, 6), torch.randn(1, 4, 1)
    model = trained(SPELLINGS[name], x, y, tmp_path=tmp_path, more="clamp_info: {clamp_activation_value: null}\n")
    kept = []
    for m in (model.a, model.b):
        m.register_forward_hook(lambda m, x, y: [y.retain_grad(), kept.append(y), None][2])
    model(x.requires_grad_(), y.requires_grad_()).square().sum().backward()
    a, b = (t.detach().clone().requires_grad_() for t in kept)
    scale = model._linger_qtensor_qcat_0.output_quantizer.scale
    z = SPELLINGS[name](a, b)
    z = z + ((z * scale + 0.5).floor().clamp(-128, 127) / scale - z).detach()
    z.square().sum().backward()
    assert torch.equal(kept[0].grad, a.grad) and torch.equal(kept[1].grad, b.grad)


FLOATS = {
    "a tensor without axes": lambda x, y: torch.maximum(x, torch.tensor(0.5)),
    "a float operand that is repeated": lambda x, y: torch.maximum(x, torch.ones(6)),
    "integers": lambda x, y: torch.maximum(x, torch.ones(1, 6, dtype=torch.int64)),
    "out": lambda x, y: torch.maximum(x, y, out=torch.empty(1, 6)),
}


@pytest.mark.parametrize("name", FLOATS)
def test_what_has_no_form_is_an_island(name, tmp_path):
    x, y = torch.randn(1, 6), torch.randn(1, 6)
    model = linger.init(Pair(FLOATS[name], [x.shape, y.shape]))
    with torch.no_grad():
        z = model.train()(x, y)
    assert info(z) is None and [i.operator for i in islands_of(model)] == ["maximum"]


def test_a_constant_of_the_same_shape_is_quantized(tmp_path):
    class Floor(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.least = nn.Linear(4, 6), nn.Parameter(torch.randn(1, 6))

        def forward(self, x):
            return torch.maximum(self.fc(x), self.least)

    torch.manual_seed(3)
    nodes = assert_same_everywhere(Floor(), [(torch.randn(1, 4),) for _ in range(2)], tmp_path, "arcs")
    assert "iqCat" in nodes and "MaxPool" in nodes


def test_wider_operands_stay_in_float(tmp_path):
    (tmp_path / "c.yaml").write_text("platform: venusA\nwide: {name: ['a'], quant_info: {output_bits: 32}}\n")

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.minimum(self.a(x), self.b(x))

    model = linger.init(Wide(), str(tmp_path / "c.yaml")).train()
    assert info(model(torch.randn(2, 4))) is None
    assert [i.operator for i in islands_of(model)] == ["minimum"]
