"""Nets that users ship: written in forms that engine 562ddc7 computes, or called an error by check before training."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger import settings
from linger.onnx import OnnxRunner

CHIPS = ("arcs", "venusA", "venus")


class DSCNN(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(1, 64, (5, 4), 2, (2, 1)), nn.BatchNorm2d(64), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64), nn.ReLU()]
            layers += [nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU()]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(64, 12)

    def forward(self, x):
        y = self.body(x)
        return self.fc(F.avg_pool2d(y, y.shape[2:]).flatten(1))


class CRNN(nn.Module):
    def __init__(self, both=False, hidden=24):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d((1, 2)))
        self.rnn = nn.LSTM(4 * 5, hidden, 2 if both else 1, batch_first=True, bidirectional=both)
        self.fc = nn.Linear(hidden * (1 + both), 5)

    def forward(self, x):
        y = self.conv(x).permute(0, 2, 1, 3).flatten(2)
        return self.fc(self.rnn(y)[0])


class SE(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.conv, self.down, self.up, self.gate = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8), gate

    def forward(self, x):
        y = F.relu(self.conv(x))
        s = self.gate(self.up(F.relu(self.down(y.mean((2, 3))))))
        return y * s[:, :, None, None]


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = F.relu(self.a(x))
        return self.out(torch.cat([a, self.up(F.relu(self.b(a)))], 1))


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)

    def forward(self, x):
        y = F.relu(self.a(x))
        n, c, h, w = y.shape
        return self.b(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Conv2d(1, 1, 1)
        self.arm = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 6))

    def forward(self, x, y):
        return torch.cat([self.arm(x), self.arm(self.gain(y) * 4.0)], 1)


class FSMN(nn.Module):
    def __init__(self, taps=9):
        super().__init__()
        self.inner, self.out = nn.Linear(10, 16), nn.Linear(16, 10)
        self.memory = nn.Conv1d(16, 16, taps, padding=taps // 2, groups=16)

    def forward(self, x):
        y = F.relu(self.inner(x))
        return self.out(y + self.memory(y.transpose(1, 2)).transpose(1, 2))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x):
        return self.layer(x)


MAP = (torch.randn(1, 3, 8, 8),)
NETS = {
    "DS-CNN": (DSCNN, (torch.randn(1, 1, 49, 40),), {}),
    "CRNN": (CRNN, (torch.randn(1, 1, 12, 10),), {}),
    "BiLSTM": (lambda: CRNN(True), (torch.randn(1, 1, 12, 10),), {}),
    "CRNN of 40 units": (lambda: CRNN(hidden=40), (torch.randn(1, 1, 12, 10),), {"venusA": {"hidden size"}}),
    "SE, sigmoid": (lambda: SE(nn.Sigmoid()), MAP, {"venusA": {"engine revision of", "sigmoid"}}),
    "SE, hard sigmoid": (lambda: SE(nn.Hardsigmoid()), MAP, {}),
    "U-Net": (UNet, (torch.randn(1, 1, 12, 16),), {}),
    "shuffle": (Shuffle, MAP, {}),
    "siamese": (Siamese, (torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 8)), {}),
    "FSMN": (FSMN, (torch.randn(1, 30, 10),), {}),
    "FSMN of 25 taps": (lambda: FSMN(25), (torch.randn(1, 30, 10),), {}),
    "encoder": (Encoder, (torch.randn(1, 9, 16),), {"venus": {"float operator"}}),
}


@pytest.fixture(autouse=True)
def _settings():
    before = settings.current()
    yield
    settings.use(before)


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("name", NETS)
def test_written_or_refused_before_training(name, platform, tmp_path):
    make, inputs, errors = NETS[name]
    torch.manual_seed(0)
    settings.use(replace(settings.defaults(), platform=platform))
    report = linger.check(make(), platform, inputs)
    assert {v.what for v in report.errors} == errors.get(platform, set()), str(report)
    assert report.ok == (not errors.get(platform)) and report.warnings == [], str(report)
    lstm = platform != "venus" and ("CRNN" in name or "LSTM" in name)
    assert report.options == ["--dma_prefetch False"] * lstm
    model = linger.init(make(), example_inputs=inputs)
    for _ in range(2):
        model.train()(*inputs)
    with torch.no_grad():
        want = model.eval()(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linger.onnx.export(model, inputs, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run([x.numpy() for x in inputs]).values()
    assert np.array_equal(got, want.numpy())
    assert linger.check(tmp_path / "m.onnx").ok == report.ok == linger.check(model, example_inputs=inputs).ok
    assert (tmp_path / "m.pack.txt").exists() == (not report.ok or bool(report.options))
    if not report.ok:
        with pytest.raises(linger.onnx.ExportError):
            linger.onnx.export(model, inputs, tmp_path / "strict.onnx", strict=True)


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize(
    ("taps", "dilation", "stride", "groups"),
    [
        (6, 1, 1, 8),
        (7, 1, 1, 1),
        (12, 1, 2, 8),
        (13, 1, 1, 8),
        (25, 1, 1, 8),
        (15, 2, 1, 8),
        (6, 3, 1, 8),
        (3, 16, 1, 8),
    ],
)
def test_long_kernels_along_one_axis(taps, dilation, stride, groups, platform, tmp_path):
    settings.use(replace(settings.defaults(), platform=platform))
    span = (taps - 1) * dilation
    for kind, size in ((nn.Conv1d, (40,)), (nn.Conv2d, (40, 1)), (nn.Conv2d, (1, 40))):
        shape = [(taps, 1)[s == 1] for s in size]
        pads, steps = [(k > 1) * (span // 2) for k in shape], [stride if k > 1 else 1 for k in shape]
        gaps = [dilation if k > 1 else 1 for k in shape]
        one = kind is nn.Conv1d
        net = nn.Sequential(
            kind(8, 8, *((shape, steps, pads, gaps) if not one else (taps, stride, span // 2, dilation)), groups)
        )
        x = torch.randn(1, 8, *size)
        report = linger.check(net, platform, x)
        assert report.ok, str(report)
        model = linger.init(net, example_inputs=x)
        model.train()(x)
        with torch.no_grad():
            want = model.eval()(x)
        linger.onnx.export(model, x, tmp_path / "m.onnx", input_names=["x"])
        assert np.array_equal(next(iter(OnnxRunner(tmp_path / "m.onnx").run(x).values())), want.numpy())
        linger.onnx.export(model, x, tmp_path / "m.onnx", input_names=["x"], dynamic_axes={"x": [0]})
        more = torch.randn(2, 8, *size)
        with torch.no_grad():
            assert np.array_equal(next(iter(OnnxRunner(tmp_path / "m.onnx").run(more).values())), model(more).numpy())


def test_a_kernel_that_is_too_long_names_the_taps_that_fit():
    report = linger.check(nn.Sequential(nn.Conv1d(4, 4, 27, groups=4)), "venus", torch.randn(1, 4, 40))
    (error,) = [v for v in report.errors if v.what == "kernel"]
    assert "25 taps" in error.remedy
