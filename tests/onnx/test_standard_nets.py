"""Nets from our exporter in standard operators: every family of layers, every chip, ``==`` in onnxruntime."""

import copy
import io
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from standard_runs import assert_exact
from torch import nn

import linger
from linger import settings


class Net(nn.Module):
    """Layers, functions, shapes and a recurrent layer of a small audio net."""

    def __init__(self, cell, attention):
        super().__init__()
        layers = [nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
        self.conv, self.up = (
            nn.Sequential(*layers, nn.Conv2d(4, 4, 3, padding=1, groups=4)),
            nn.ConvTranspose2d(4, 4, 2, 2),
        )
        self.rnn, self.norm, self.out = cell(4 * 12, 8, batch_first=True), nn.LayerNorm(8), nn.Linear(8, 5)
        self.attention = attention

    def forward(self, x):
        y = self.up(torch.relu(self.conv(x)))
        y = y * torch.sigmoid(y) + torch.cat([y[:, 2:], y[:, :2]], 1)
        y = self.rnn(F.avg_pool2d(y, 3, 1, 1).permute(0, 2, 1, 3).flatten(2))[0]
        y = self.norm(y)
        if self.attention:
            y = torch.bmm(torch.softmax(torch.bmm(y, y.transpose(1, 2)), -1), y)
        return self.out(y)


def exported(net, x, platform, **options):
    """Bytes of the file of a net that has seen ``x``."""
    settings.use(replace(settings.defaults(), platform=platform))
    trained = linger.init(copy.deepcopy(net), example_inputs=x)
    trained(x)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linger.onnx.export(trained.eval(), x, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("platform", ["arcs", "venusA", "mars", "venus"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_net_of_every_family(platform, cell):
    torch.manual_seed(0)
    data = exported(Net(cell, attention=platform != "venus"), torch.randn(1, 1, 16, 24) * 2, platform)
    for seed in range(2):
        assert_exact(data, seed=seed, levels=("none", "all") if seed else ("all",))


def test_an_open_batch_stays_open():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4), nn.LayerNorm(4))
    data = exported(net, torch.randn(1, 1, 6, 6), "venusA", input_names=["x"], dynamic_axes={"x": {0: "n"}})
    for batch in (1, 2, 5):
        m = assert_exact(data, batch=batch)
    assert m.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
