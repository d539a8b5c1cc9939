"""Neighbours: which pairs are found, by running and by reading, and which must not be fused."""

import copy
import logging
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convert.nets import Dynamic, Net, images, trained
from torch import nn

import linger
from linger.convert.neighbours import discover, fusable_pairs
from linger.nn.constrained.fused import EmptyBatchNorm, NormalizeConvBN2d


def found(model, example):
    adjacency = discover(model, example)
    names = {id(m): n for n, m in model.named_modules()}
    pairs = {(names[id(p.layer)], names[id(p.bn)]) for p in fusable_pairs(adjacency)}
    return pairs, {names[k] for k in adjacency.before_relu}, adjacency


WAYS = pytest.mark.parametrize("example", [None, images()], ids=["read", "run"])


@WAYS
def test_pairs_and_relus(example):
    pairs, relus, adjacency = found(Net(), example)
    assert pairs == {("conv", "bn"), ("body.0", "body.1"), ("fc", "norm")}
    assert "bn" in relus and "body.1" not in relus
    assert all(where.split(":")[0].endswith("nets.py") for where in adjacency.where.values())


class Wrong(nn.Module):
    """One convolution and BatchNorm that must not be fused, in several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.bn, self.bn2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.conv(x)
        match self.how:
            case "second consumer":
                return self.bn(y) + y
            case "returned too":
                return self.bn(y), y
            case "view in between":
                return self.bn(y.transpose(2, 3))
            case "dropout in between":
                return self.bn(self.drop(y))
            case "two norms":
                return self.bn(y) + self.bn2(self.conv(x))
            case "norm used twice":
                return self.bn(y) + self.bn(x)
            case "convolution used twice":
                return self.bn(y) + self.conv(y)
            case "changed in place":
                y.mul_(2)
                return self.bn(y)
            case "kept on the module":
                self.kept = y
                return self.bn(y)
            case "functional":
                return F.batch_norm(y, None, None, training=True)


HOWS = ["second consumer", "returned too", "view in between", "dropout in between", "two norms", "norm used twice"]
HOWS += ["convolution used twice", "changed in place", "functional"]


@WAYS
@pytest.mark.parametrize("how", HOWS)
def test_not_neighbours(how, example):
    assert found(Wrong(how), example)[0] == set()


def test_a_value_kept_on_the_module_has_another_reader():
    m = Wrong("kept on the module")
    assert found(m, images())[0] == set()
    assert not hasattr(m, "kept")


class Shapes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.skip = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Identity()

    def forward(self, x, scale=None, *, flag=False):
        y = self.skip(self.conv(x))
        n, c = y.size(0), y.shape[1]
        y = self.bn(y)
        return y.view(n, c, -1) if scale is None else y * scale


@WAYS
def test_reading_a_shape_and_identity_do_not_separate(example):
    assert found(Shapes(), example)[0] == {("conv", "bn")}


class Shared(nn.Module):
    """One block used twice: its convolution always feeds its own BatchNorm."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.again = self.block

    def forward(self, x):
        return self.again(self.block(x))


@WAYS
def test_shared_block_is_one_pair(example):
    assert found(Shared(), example)[0] == {("block.0", "block.1")}
    m = linger.constrain(trained(Shared), example_inputs=example)
    assert m.block is m.again and isinstance(m.block[0], NormalizeConvBN2d)


class Outer(nn.Module):
    """The BatchNorm stands in another module than its convolution; the second part is unreadable."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1))
        self.bn = nn.BatchNorm2d(4)
        self.tail = Dynamic()
        self.tail.conv, self.tail.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.tail(torch.relu(self.bn(self.stem(x))))


def test_unreadable_part_does_not_hide_the_rest(caplog):
    pairs, relus, adjacency = found(Outer(), None)
    assert pairs == {("stem.0", "bn")} and "bn" in relus and set(adjacency.blind) == {"tail"}
    assert found(Outer(), images())[0] == {("stem.0", "bn"), ("tail.conv", "tail.bn")}
    with caplog.at_level(logging.WARNING, "linger"):
        linger.constrain(Outer())
    assert "pass example_inputs" in caplog.text and "tail.bn" in caplog.text


class Training(nn.Module):
    """In training there is a second consumer."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y if self.training else self.bn(y)


@pytest.mark.parametrize("mode", [True, False])
def test_pairs_hold_in_both_modes(mode):
    assert found(Training().train(mode), None)[0] == set()


class Busy(nn.Module):
    """Leaves traces wherever a forward can."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout()
        self.calls, self.log = 0, []
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        self.seen += 1
        random.random(), np.random.rand()
        return self.drop(self.bn(self.conv(x))) + torch.rand(1) * 0


@WAYS
@pytest.mark.parametrize("mode", [True, False])
def test_discovery_leaves_no_trace(example, mode):
    m = trained(Busy)
    m.train(mode)
    m.bn.eval()
    handle = m.conv.register_forward_hook(lambda *a: None)
    before, calls = copy.deepcopy(m.state_dict()), (m.calls, list(m.log))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    assert found(m, example)[0] == {("conv", "bn")}
    assert all(torch.equal(a, b) for a, b in zip(before.values(), m.state_dict().values(), strict=True))
    assert (m.calls, m.log) == calls and m.training is mode and not m.bn.training
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])
    assert len(m.conv._forward_hooks) == 1 and not m.bn._forward_pre_hooks
    handle.remove()
    assert not m.conv._forward_hooks


def test_inputs_that_do_not_run_are_named():
    with pytest.raises(ValueError, match="example_inputs: the model does not run on them"):
        linger.constrain(Net(), example_inputs=torch.randn(2, 5, 8, 8))


@pytest.mark.parametrize("inputs", [images(), (images(),), {"x": images()}], ids=["tensor", "tuple", "dict"])
def test_forms_of_example_inputs(inputs):
    assert isinstance(linger.constrain(trained(), example_inputs=inputs).bn, EmptyBatchNorm)


def test_linear_and_batch_norm_over_another_axis():
    m = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    assert found(m, torch.randn(3, 4, 5))[0] == set()
    assert found(m, torch.randn(3, 5))[0] == {("0", "1")}


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), torch.jit.script(nn.ReLU())

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + self.other(y)


@WAYS
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_scripted_child_is_a_consumer(example):
    assert found(Scripted(), example)[0] == set()
