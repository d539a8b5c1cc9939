"""What the caller switches off stays in float: layers, and every operator below a switched-off module."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.runtime import islands_of


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.gate = nn.Linear(6, 6), nn.Sigmoid()

    def forward(self, x, more):
        x = self.gate(self.fc(x) + more["y"][0])
        return torch.cat([x, x * x], 1)[:, 3:9]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.block, self.b = nn.Linear(6, 6), Block(), nn.Linear(6, 6)
        self.norm, self.c = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.a(x)
        return self.c(self.norm(self.b(self.block(x, {"y": (x,)}))))


def operators(model):
    return sorted(type(m).__name__ for m in model.modules() if type(m).__module__.startswith("linger.nn"))


@pytest.mark.parametrize(
    ("settings", "left", "island"),
    [
        ({"disable_submodel": "block"}, {"LayerNormInt": 1, "LinearInt": 3}, ("block", "Block")),
        ({"disable_submodel": "norm"}, {"LinearInt": 4, "AddInt": 1, "MulInt": 1, "CatInt": 1}, ("norm", "LayerNorm")),
        (
            {"disable_module": nn.LayerNorm},
            {"LinearInt": 4, "AddInt": 1, "MulInt": 1, "CatInt": 1},
            ("norm", "LayerNorm"),
        ),
        (
            {"disable_module": (nn.Sigmoid,)},
            {"LinearInt": 4, "LayerNormInt": 1, "AddInt": 1},
            ("block.gate", "Sigmoid"),
        ),
    ],
)
def test_nothing_of_it_is_quantized(settings, left, island, tmp_path):
    torch.manual_seed(0)
    model = linger.init(Net(), **settings)
    for _ in range(3):
        model(torch.randn(2, 6)).square().mean().backward()
    made = operators(model)
    for name, count in left.items():
        assert made.count(name) == count
    (found,) = [i for i in islands_of(model) if i.operator[0].isupper()]
    assert (found.owner, found.operator) == island
    x = torch.randn(1, 6)
    want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.allclose(got, want.detach().numpy(), atol=2.1 / float(model.c.output_quantizer.scale))


def test_constrained_layers_that_are_switched_off(tmp_path):
    model = linger.init(linger.constrain(Net()), disable_module=(nn.LayerNorm,))
    model(torch.randn(2, 6))
    assert "LayerNormInt" not in operators(model)
    assert not any("layer_norm" in name for name, _ in model.named_modules())
    again = linger.init(linger.constrain(Net()), disable_module=(nn.LayerNorm,))
    again.load_state_dict(model.state_dict())
