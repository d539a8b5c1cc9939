"""``average_scale: own``: means over whole axes with a scale of their own, one product and one rounding on every chip."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger import settings
from linger.chip import coarse_factor
from linger.onnx import OnnxRunner
from linger.runtime import info

MEANS = {
    "mean": (lambda h: h.mean((2, 3)), (2, 3)),
    "keepdim": (lambda h: h.mean((2, 3), keepdim=True), (2, 3)),
    "one axis": (lambda h: h.mean(2), (2,)),
    "last axis": (lambda h: torch.mean(h, -1, keepdim=True), (3,)),
    "channels": (lambda h: h.mean(1), (1,)),
    "apart": (lambda h: h.mean((1, 3)), (1, 3)),
    "adaptive": (lambda h: F.adaptive_avg_pool2d(h, 1), (2, 3)),
    "whole window": (lambda h: F.avg_pool2d(h, h.shape[2:]), (2, 3)),
    "flat": (lambda h: F.adaptive_avg_pool1d(h.flatten(2), 1), (2, 3)),
}


class Net(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.conv, self.mean = nn.Conv2d(2, 8, 3, padding=1, bias=False), mean

    def forward(self, x):
        h = self.conv(x)
        return h, self.mean(h)


def made(mean, size, platform="venusA", scale="own"):
    torch.manual_seed(0)
    x = torch.randn(4, 2, *size)
    quant = settings.QuantInfo(average_scale=scale)
    settings.use(settings.Settings(platform=platform, quant_info=quant))
    model = linger.init(Net(mean))
    with linger.calibration(model):
        model(x)
    return model.eval(), x


def loss(exact, value):
    """SQNR in dB."""
    return float(10 * torch.log10(exact.square().sum() / (exact - value).square().sum()))


@pytest.mark.parametrize("size", [(8, 8), (6, 5), (20, 12)])
@pytest.mark.parametrize("name", MEANS)
def test_integers(name, size):
    mean, axes = MEANS[name]
    model, x = made(mean, size)
    h, y = model(x)
    sums = info(h).codes.long().sum(axes)
    m, s = coarse_factor(h.numel() // sums.numel())
    shift = s + int(torch.log2(info(h).scale)) - int(torch.log2(info(y).scale))
    wanted = torch.floor(m * sums.double() / 2.0**shift + 0.5).clamp(-128, 127)
    assert (info(y).codes.double().reshape(wanted.shape) == wanted).all()
    assert info(y).scale >= info(h).scale


@pytest.mark.parametrize("platform", ["arcs", "mars", "venusA", "venus"])
@pytest.mark.parametrize("name", ["mean", "one axis", "apart", "adaptive"])
def test_file(tmp_path, platform, name):
    model, x = made(MEANS[name][0], (20, 12), platform)
    path = tmp_path / "m.onnx"
    linger.onnx.export(model, x[:1], path)
    results = OnnxRunner(path).run(x[:1].numpy()).values()
    for value, wanted in zip(results, model(x[:1]), strict=True):
        assert (torch.from_numpy(value) == wanted).all()
    assert linger.check(path).ok


@pytest.mark.parametrize("size", [(12, 12), (32, 32)])
def test_small_means_keep_their_bits(size):
    """The mean of many values is a few codes at their scale: 8 bits of its own keep 12 dB more."""
    found = {}
    for scale in ("input", "own"):
        model, x = made(MEANS["mean"][0], size, scale=scale)
        h, y = (t.detach() for t in model(x))
        found[scale] = loss(h.double().mean((2, 3)), y)
    assert found["own"] > found["input"] + 12


def test_gradient_is_that_of_the_mean():
    model, x = made(MEANS["mean"][0], (6, 5))
    model.train()
    h, y = model(x)
    h.retain_grad()
    y.sum().backward()
    factor, exponent = coarse_factor(30)
    kept = h.grad == factor / 2.0**exponent
    assert (kept | (h.grad == 0)).all()  # where the result was cut to its range
    assert kept.float().mean() > 0.9


def test_windows_keep_the_scale_of_the_operand():
    model, x = made(lambda h: F.avg_pool2d(h, 2), (6, 6))
    h, y = model(x)
    assert info(y).scale == info(h).scale
    assert not any("qmean" in key for key in model.state_dict())


def test_states_from_before_keep_the_scale_of_the_operand(tmp_path):
    model, x = made(MEANS["mean"][0], (6, 5), scale="input")
    h, y = model(x)
    assert info(y).scale == info(h).scale
    linger.save(model, tmp_path / "m.pt")
    other = linger.load(Net(MEANS["mean"][0]), tmp_path / "m.pt").eval()
    assert all((a == b).all() for a, b in zip(other(x), (h, y), strict=True))
