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
FLOAT = {"softmax", "gelu", "glu"}  # not on every chip


def runs_in_float(net):
    """Whether torch itself can train it: an in-place operator may destroy what a backward needs."""
    try:
        copy.deepcopy(net)(torch.randn(3, *net.shape)).square().mean().backward()
    except RuntimeError:
        return False
    return True


def make(seed, mixed):
    torch.manual_seed(seed)
    return Maker(seed).mixed() if mixed else Maker(seed).network()


def check(seed, tmp_path, mixed=False):
    """Empty, or why there is nothing to compare. ``mixed``: functions that some chip lacks run in float."""
    net = make(seed, mixed)
    if not runs_in_float(net):
        return "torch cannot train it"
    platform, method = PLATFORMS[seed % 4], "MOM" if seed % 3 else "TQT"
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    where = f"seed {seed}, {platform}, {method}: {describe(net)}"
    try:
        return compare(net, seed, str(config), tmp_path / "m.onnx", mixed)
    except Exception as error:
        raise AssertionError(where) from error


def compare(net, seed, config, file, mixed):
    if seed % 5 == 0:
        net = linger.constrain(net, config)
        net(torch.randn(3, *net.shape)).square().mean().backward()
    sample = torch.randn(2, *net.shape)
    net = linger.init(net, config, example_inputs=sample)
    for _ in range(3):
        net(torch.randn(3, *net.shape)).square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
    x = torch.randn(1, *net.shape)
    with torch.no_grad():
        want = net.eval()(x)
        linger.freeze_statistics(net.train(), batch_norm=True)
        assert torch.equal(net(x), want)
    net.eval()
    islands = {i.operator for i in islands_of(net)}
    assert mixed or islands <= FLOAT, islands
    if seed % 2:
        again = make(seed, mixed)
        again = linger.constrain(again, config) if seed % 5 == 0 else again
        sees = sample if "bn" in describe(again) else None  # a BatchNorm is folded into its neighbour
        again = linger.init(again, config, example_inputs=sees)
        again.load_state_dict(net.state_dict())
        assert torch.equal(again.eval()(x), want)
    else:
        assert torch.equal(copy.deepcopy(net)(x), want)
    try:
        linger.onnx.export(net, x, file)
    except linger.onnx.ExportError as error:
        assert "cannot run" in str(error) or islands, error
        return str(error)
    (value,) = OnnxRunner(file).run(x).values()
    if islands - {"softmax"}:  # torch's own vector functions may round otherwise at another alignment
        step = 1e-5 if info(want) is None else 2.1 / float(info(want).scale)
        assert np.allclose(value, want.numpy(), atol=step)
        return f"islands: {sorted(islands)}"
    assert np.array_equal(value, want.numpy())
    if info(want) is not None:
        (codes,) = OnnxRunner(file).run(x, integers=True).values()
        assert np.array_equal(codes, (want * info(want).scale).round().to(torch.int64).numpy())
    return ""


@pytest.mark.filterwarnings("ignore:linger")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mixed", [False, True])
def test_networks(mixed, seed, tmp_path):
    check(seed, tmp_path, mixed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:linger")
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("block", range(10))
def test_networks_for_long(block, mixed, tmp_path):
    other = [check(seed, tmp_path, mixed) for seed in range(8 + 50 * block, 58 + 50 * block)]
    assert other.count("") > 15, other
