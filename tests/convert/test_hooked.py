"""Feature hooks on layers that are fused: named once, or the layers are left unfused."""

import copy
import logging

import pytest
import torch
from torch import nn

import linger

NETS = {
    "conv, norm": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), "0", (4, 3, 8, 8)),
    "conv, relu": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "0", (4, 3, 8, 8)),
    "norm, relu": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.ReLU()), "1", (4, 3, 8, 8)),
    "linear, norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), "0", (16, 6)),
    "linear, relu": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), "0", (16, 6)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU()), "0", (4, 3, 9)),
}


@pytest.mark.parametrize("seen", ["read", "run"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", NETS)
def test_hooks_of_fused_layers(kind, keep, seen, caplog):
    make, name, shape = NETS[kind]
    torch.manual_seed(0)
    m, x = make().train(), torch.randn(shape)
    for norm in (p for p in m.modules() if isinstance(p, nn.modules.batchnorm._BatchNorm)):
        nn.init.constant_(norm.weight, 3.0), nn.init.constant_(norm.bias, -3.0)
    for _ in range(3):
        m(x)
    wanted, features = [], []
    reference = copy.deepcopy(m).eval()
    reference.get_submodule(name).register_forward_hook(lambda layer, args, y: wanted.append(y.detach()))
    reference(x)
    m.get_submodule(name).register_forward_hook(lambda layer, args, y: features.append(y.detach()))
    with caplog.at_level(logging.WARNING, "linger"):
        q = linger.init(m, keep_hooked=keep, example_inputs=x if seen == "run" else None)
    named = [line for line in caplog.text.splitlines() if "keep_hooked=True" in line and f"{name}: its hooks" in line]
    assert bool(named) is not keep
    assert all(caplog.text.count(line.split("linger.init: ")[-1]) == 1 for line in named)
    with linger.calibration(q, a_calibrate_name="abs_max"):
        q(x)
    features.clear()
    q.eval()(x)
    error = (features[0] - wanted[-1]).square().sum() / wanted[-1].square().sum()
    assert error < 0.1 if keep else error > 0.1


def test_a_model_without_hooks_is_fused_either_way():
    for keep in (False, True):
        q = linger.init(NETS["conv, norm"][0](), keep_hooked=keep)
        assert q[0].fused_relu and type(q[1]).__name__ == "EmptyBatchNorm" and not linger.summary(q).notes
