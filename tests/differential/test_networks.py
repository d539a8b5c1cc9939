"""Random networks: frozen training, eval and the exported file give the same integers, and gradients arrive."""

import copy

import numpy as np
import pytest
import torch

import linger
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of
from tests.differential.networks import Maker, describe

PLATFORMS = ("arcs", "mars", "venusA", "venus")
FLOAT = {"softmax", "silu", "gelu", "glu"}  # not on every chip


def runs_in_float(net):
    """Whether torch itself can train it: an in-place operator may destroy what a backward needs."""
    try:
        copy.deepcopy(net)(torch.randn(3, *net.shape)).square().mean().backward()
    except RuntimeError:
        return False
    return True


def check(seed, tmp_path):
    torch.manual_seed(seed)
    net = Maker(seed).network()
    if not runs_in_float(net):
        return "torch cannot train it"
    platform, method = PLATFORMS[seed % 4], "MOM" if seed % 3 else "TQT"
    where = f"seed {seed}, {platform}, {method}: {describe(net)}"
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    try:
        if seed % 5 == 0:
            net = linger.constrain(net, str(config))
            net(torch.randn(3, *net.shape)).square().mean().backward()
        net = linger.init(net, str(config), example_inputs=torch.randn(2, *net.shape))
        for _ in range(3):
            net(torch.randn(3, *net.shape)).square().mean().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters()), where
        x = torch.randn(1, *net.shape)
        with torch.no_grad():
            want = net.eval()(x)
            linger.freeze_statistics(net.train(), batch_norm=True)
            assert torch.equal(net(x), want), where
        assert {i.operator for i in islands_of(net)} <= FLOAT, f"{where}: {islands_of(net)}"
        net.eval()
        if seed % 2:
            again = Maker(seed).network()
            again = linger.constrain(again, str(config)) if seed % 5 == 0 else again
            sees = torch.randn(2, *net.shape) if "bn" in where else None  # a BatchNorm is folded into its neighbour
            again = linger.init(again, str(config), example_inputs=sees)
            again.load_state_dict(net.state_dict())
            assert torch.equal(again.eval()(x), want), where
        else:
            assert torch.equal(copy.deepcopy(net)(x), want), where
        try:
            linger.onnx.export(net, x, tmp_path / "m.onnx")
        except linger.onnx.ExportError as error:
            assert "cannot run" in str(error), where
            return str(error)
        (value,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
        assert np.array_equal(value, want.numpy()), where
        if info(want) is not None:
            (codes,) = OnnxRunner(tmp_path / "m.onnx").run(x, integers=True).values()
            assert np.array_equal(codes, (want * info(want).scale).round().to(torch.int64).numpy()), where
    except Exception as error:
        error.add_note(where)
        raise
    return ""


@pytest.mark.filterwarnings("ignore:linger")
@pytest.mark.parametrize("seed", range(8))
def test_networks(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:linger")
@pytest.mark.parametrize("block", range(10))
def test_networks_for_long(block, tmp_path):
    refused = [check(seed, tmp_path) for seed in range(8 + 50 * block, 58 + 50 * block)]
    assert sum(map(bool, refused)) < 35, refused
