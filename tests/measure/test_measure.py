"""The numbers behind the reports, against sums over the layers' own tensors; nothing of the model moves."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.measure import measure


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.side = nn.Conv2d(4, 4, 1)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.cat([x, self.side(x) / 64], 1)
        x, _ = self.lstm(x.mean(3).transpose(1, 2))
        return self.head(self.drop(x) + torch.sin(x))


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    net = Net().eval()
    x = torch.randn(8, 1, 6, 6)
    reference = copy.deepcopy(net)
    model = linger.init(net)
    with linger.calibration():
        model(x)
    return model.train(), reference, x


def test_nothing_of_the_model_moves(made):
    model, reference, x = made
    calls = []
    handle = model.head.register_forward_hook(lambda *_: calls.append(1))
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [(m, m.training, type(m), dict(m.__dict__)) for m in model.modules()]
    other = {k: v.clone() for k, v in reference.state_dict().items()}
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    measure(model, [(x, torch.zeros(8)), (x + 1, torch.zeros(8))], reference)
    assert all(torch.equal(kept[k], v) for k, v in model.state_dict().items()) and len(kept) == len(model.state_dict())
    assert all(torch.equal(other[k], v) for k, v in reference.state_dict().items())
    for m, training, cls, attributes in modes:
        assert m.training == training and type(m) is cls and m.__dict__.keys() == attributes.keys()
        assert list(m._forward_hooks) == list(attributes["_forward_hooks"])
    assert torch.equal(torch.random.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    handle.remove()


@torch.no_grad()
def test_energies_are_those_of_the_layers(made):
    model, reference, x = made
    batches = [x, 2 * x]
    found = measure(model, batches, reference)
    model.eval()
    signal = noise = own_signal = own_noise = 0.0
    for batch in batches:
        got = []
        hooks = model.side.register_forward_hook(lambda m, a, y, got=got: got.append((a[0], y)))
        y, wanted = model(batch), reference(batch)
        hooks.remove()
        a, q = got[0]
        own = F.conv2d(a, model.side.weight, model.side.bias)
        own_signal, own_noise = own_signal + own.square().sum(), own_noise + (own - q).square().sum()
        signal, noise = signal + wanted.square().sum(), noise + (wanted - y).square().sum()
    row = found.rows["side"]
    assert row.own.sqnr == pytest.approx(10 * math.log10(own_signal / own_noise), abs=1e-3)
    assert found.output.sqnr == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
    assert row.values.count == 2 * 8 * 4 * 36 and sum(row.values.histogram.counts) == row.values.count
    assert (row.bits, row.scale) == (8, float(model.side.output_quantizer.scale))
    assert len(row.own.channels[0]) == 4
    model.train()


def test_who_reads_whose_result(made):
    model, _, x = made
    rows = measure(model, x).rows
    assert rows["conv"].inputs == ["input"] and rows["side"].inputs == ["conv"]
    cat = rows["_linger_qtensor_qcat_1"]
    assert cat.inputs == ["conv", "_linger_qtensor_qdiv_0"]
    assert cat.place.endswith(f"test_measure.py:{Net.forward.__code__.co_firstlineno + 2}")
    lost = [o.bits_lost for o in cat.operands]
    scales = [2.0 ** round(math.log2(o)) for o in (2.0 ** lost[0], 2.0 ** lost[1])]
    assert lost[0] == 0 and lost[1] >= 4 and scales[1] == 2.0 ** lost[1]
    assert rows["head"].alone.sqnr > found_sqnr(model, x)


def found_sqnr(model, x):
    return measure(model, x).output.sqnr


@torch.no_grad()
def test_islands_unseen_ranges_and_losses(made):
    model, reference, x = made
    found = measure(model, x, loss=lambda y, batch: (y - 1).square().mean())
    assert [i.operator for i in found.islands] == ["sin"] and not found.unseen
    assert found.losses[1] == pytest.approx(float((reference(x) - 1).square().mean()), rel=1e-4)
    fresh = linger.init(copy.deepcopy(reference))
    assert "head.output_quantizer" in measure(fresh, x).unseen


def test_a_batch_that_does_not_fit_is_named(made):
    model, _, x = made
    with pytest.raises(ValueError, match="measure: the model does not run on batch 1 of type Tensor"):
        measure(model, [x, x[:, :, 0]])
