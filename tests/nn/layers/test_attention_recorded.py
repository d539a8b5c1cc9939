"""The recorded attention networks, rebuilt as modules with the recorded parameters and scales: the same integers in eval."""

import numpy as np
import pytest
import torch
from golden.cases import CASES
from torch import nn

import linger
from linger.quantizers import Quantizer
from linger.runtime import info, islands_of

RECORDED = {case.platform: case for case in CASES if case.name == "net/attention_small"}


class Arcs(nn.Module):
    """One head with projections, and a feed-forward block."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.f, self.g = nn.Linear(8, 16), nn.Linear(16, 8)
        self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        n = self.n1(x)
        q, k, v = self.q(n), self.k(n), self.v(n)
        scores = torch.bmm(q, k.transpose(1, 2))
        x = x + self.o(torch.bmm(scores.softmax(-1), v))
        return x + self.g(torch.relu(self.f(self.n2(x))))


class VenusA(nn.Module):
    """No projections; a classifier on all steps."""

    def __init__(self):
        super().__init__()
        self.f, self.g = nn.Linear(40, 24), nn.Linear(24, 4)
        self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        n = self.n1(x)
        x = x + torch.bmm(torch.bmm(n, n.transpose(1, 2)).softmax(-1), n)
        return self.g(torch.relu(self.f(self.n2(x).flatten(1)))).log_softmax(-1)


def set_scale(quantizer: Quantizer, scale: float) -> None:
    quantizer.set_range(torch.tensor(2.0 ** (quantizer.bits - 1) / scale))
    assert quantizer.scale == scale


@pytest.mark.parametrize("net", [Arcs, VenusA])
def test_eval_modules_give_the_recorded_integers(net, tmp_path):
    platform = {Arcs: "arcs", VenusA: "venusA"}[net]
    case = RECORDED[platform]
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\n")
    arrays = {w["name"]: case.arrays[w["key"]] for w in case.about["weights"]}
    nodes = [n for n in case.about["nodes"] if n["domain"] == "linger" and n["op_type"] != "Quant"]
    (x,) = case.floats.values()
    x = torch.from_numpy(x)
    model = linger.init(net(), str(config), example_inputs=x).eval()

    calls = []  # layers and operators in the order in which they run

    def note(module, inputs):
        calls.append(module)

    layers = [m for m in model.modules() if hasattr(m, "output_quantizer")]
    hooks = [m.register_forward_pre_hook(note) for m in layers]
    with torch.no_grad(), pytest.warns(UserWarning, match="seen no data"):
        model(x)
    for hook in hooks:
        hook.remove()
    assert len(calls) == len(nodes)
    for layer, node in zip(calls, nodes, strict=True):
        set_scale(layer.output_quantizer, node["attrs"]["scale_o"])
        if isinstance(layer.input_quantizer, Quantizer):
            set_scale(layer.input_quantizer, node["attrs"]["scale_x"])
        else:
            for quantizer in layer.input_quantizer:
                set_scale(quantizer, node["attrs"]["scale_x"])
        if hasattr(layer, "weight"):
            scale = node["attrs"]["scale_w"]
            norm = 2.0**10 if node["op_type"] == "LayerNormInt" else node["attrs"]["scale_x"]
            set_scale(layer.weight_quantizer, scale)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(arrays[node["inputs"][1]] / scale))
                layer.bias.copy_(torch.from_numpy(arrays[node["inputs"][2]] / (scale * norm)))
    with torch.no_grad():
        y = model(x)
    assert islands_of(model) == []
    (want,) = case.outputs.values()
    assert np.array_equal(info(y).codes.numpy(), want)
