"""Kernels along one axis that are longer than a chip's: forms that engine 562ddc7 computes, or an error that names what fits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger import settings
from linger.onnx import OnnxRunner

CHIPS = ("arcs", "venusA", "venus")


@pytest.fixture(autouse=True)
def _settings():
    before = settings.current()
    yield
    settings.use(before)


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
