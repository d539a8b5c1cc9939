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


LARGE = [
    # kernel, stride, padding, dilation, groups: of the map as it is, and of one with two rows
    (7, 2, 3, 1, 1),
    (7, 1, 3, 1, 8),
    ((7, 3), 1, (3, 1), 1, 8),
    (9, 4, 4, 1, 4),
    (6, (1, 2), (0, 2), 1, 2),
    ((3, 3), 1, (5, 1), (5, 1), 8),
    ((3, 3), (2, 1), 3, (3, 3), 1),
    ((2, 5), 1, (8, 4), (16, 2), 1),
    ((11, 2), 1, (5, 0), 1, 1),
]


@pytest.mark.parametrize("platform", CHIPS)
@pytest.mark.parametrize("form", LARGE, ids=str)
def test_large_and_dilated_kernels_of_maps(form, platform, tmp_path):
    settings.use(replace(settings.defaults(), platform=platform))
    kernel, stride, pads, gaps, groups = form
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, kernel, stride, pads, gaps, groups), nn.ReLU())
    x, more = torch.randn(1, 8, 20, 19), torch.randn(2, 8, 20, 19)
    report = linger.check(net, platform, x)
    assert report.ok and linger.check(net, platform).ok, str(report)
    model = linger.init(net, example_inputs=x)
    model.train()(x)
    model.eval()
    with torch.no_grad():
        linger.onnx.export(model, x, tmp_path / "m.onnx", input_names=["x"])
        assert np.array_equal(next(iter(OnnxRunner(tmp_path / "m.onnx").run(x).values())), model(x).numpy())
        linger.onnx.export(model, x, tmp_path / "n.onnx", input_names=["x"], dynamic_axes={"x": [0]})
        assert np.array_equal(next(iter(OnnxRunner(tmp_path / "n.onnx").run(more).values())), model(more).numpy())
    assert linger.check(tmp_path / "m.onnx").ok


def test_a_transposed_kernel_that_grows_by_its_dilation_runs_on_venus(tmp_path):
    settings.use(replace(settings.defaults(), platform="venus"))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 3, 1, (10, 1), dilation=(5, 1), groups=4))
    x = torch.randn(1, 4, 20, 7)
    assert linger.check(net, "venus", x).ok
    model = linger.init(net, example_inputs=x)
    model.train()(x)
    with torch.no_grad():
        want = model.eval()(x).numpy()
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert np.array_equal(next(iter(OnnxRunner(tmp_path / "m.onnx").run(x).values())), want)


def test_a_kernel_whose_blocks_do_not_fit_is_refused_before_training():
    report = linger.check(nn.Sequential(nn.Conv2d(64, 4, 11)), "arcs", torch.randn(1, 64, 20, 20))
    assert [v.what for v in report.errors] == ["input rows", "weight per output channel"]
