"""Pooling in every spelling and every window, on every chip, from module to file; against torch and int64 sums."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.runtime import SPELLINGS, info, islands_of, resolve
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Net(nn.Module):
    """A convolution, so that the pooling meets codes; ``change`` pools."""

    def __init__(self, change, flat=False):
        super().__init__()
        self.layer, self.change = (nn.Conv1d if flat else nn.Conv2d)(2, 4, 1), copy.deepcopy(change)

    def forward(self, x):
        return self.change(self.layer(x))


AVERAGES = {
    "plain": lambda x: F.avg_pool2d(x, 2),
    "overlap": lambda x: F.avg_pool2d(x, (3, 2), stride=1),
    "padding": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "padding not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "wide padding not counted": lambda x: F.avg_pool2d(x, (5, 4), 1, 2, count_include_pad=False),
    "ceil mode": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
    "ceil mode, padding": lambda x: F.avg_pool2d(x, 3, (2, 3), 1, True),
    "ceil mode, padding not counted": nn.AvgPool2d((4, 3), 3, 1, ceil_mode=True, count_include_pad=False),
    "kernel below stride": lambda x: F.avg_pool2d(x, 1, 2),
    "kernel below stride, padding": lambda x: F.avg_pool2d(x, 2, 3, 1),
    "global": nn.AdaptiveAvgPool2d(1),
    "adaptive, divides": lambda x: F.adaptive_avg_pool2d(x, (7, 3)),
    "adaptive, does not divide": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "adaptive, larger": nn.AdaptiveAvgPool2d((None, 11)),
    "whole": nn.AvgPool2d((7, 9)),
    "mean": lambda x: x.mean((2, 3)),
    "mean, kept": lambda x: torch.mean(x, dim=(-1, -2), keepdim=True),
    "mean of channels": lambda x: x.mean(1),
    "mean of rows": lambda x: x.mean(dim=2, keepdim=True),
    "mean of the last": lambda x: x.mean(-1),
    "mean apart": lambda x: x.mean((1, 3)),
    "mean of all": lambda x: x.mean([1, 2, 3]),
    "mean by axis": lambda x: x.mean(axis=(2, 3)),
    "mean of a matrix": lambda x: x[:, :, 0].mean(2)[:, None].mean(1, True),
    "no batch": lambda x: F.avg_pool2d(x[0], 3, 2, 1, count_include_pad=False)[None],
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", AVERAGES)
def test_averages_are_the_same_everywhere(case, platform, tmp_path):
    torch.manual_seed(0)
    change = AVERAGES[case]
    nodes = assert_same_everywhere(Net(change), [(torch.randn(1, 2, 7, 9),) for _ in range(2)], tmp_path, platform)
    moves = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "iqCat"}
    product = {"LinearInt"} if (case, platform) == ("mean of all", "venus") else set()  # 252 elements
    assert set(nodes) - moves <= {"Quant", "Conv2dInt", "Dequant"} | (product or {"AvgPool2dInt"})
    assert product <= set(nodes)
    if case in ("plain", "overlap", "padding", "adaptive, divides"):
        every = ["Gather"] if case == "adaptive, divides" and platform != "venus" else []  # of windows 3 apart
        assert nodes == ["Quant", "Conv2dInt", "AvgPool2dInt", *every, "Dequant"]


def _pooled(case, x):
    """(value, input codes, scale) of a case in eval."""
    torch.manual_seed(0)
    model = linger.init(Net(AVERAGES[case]))
    model(x)
    model.eval()
    kept = []
    model.layer.register_forward_hook(lambda m, a, y: kept.append(y))
    y = model(x)
    fmt = info(kept[0])
    return y, (kept[0] * fmt.scale).round().long(), float(fmt.scale), kept[0]


@pytest.mark.parametrize("case", [c for c in AVERAGES if c != "no batch"])
def test_averages_are_torchs_within_half_a_step(case):
    """The window and its divisor are torch's; the sum is exact and rounded once."""
    y, codes, scale, _ = _pooled(case, torch.randn(2, 2, 7, 9))
    want = AVERAGES[case](codes.double())
    limit = 1.0 if case == "mean of a matrix" else 0.5  # rounded twice there
    assert (y.double() * scale - want).abs().max() <= limit + 1e-6
    assert torch.equal((y * scale).round(), y * scale)


@pytest.mark.parametrize("case", [c for c in AVERAGES if c not in ("mean of a matrix", "no batch")])
def test_gradients_of_averages_are_the_float_ones(case):
    y, _, _, x = _pooled(case, torch.randn(2, 2, 7, 9))
    grad = torch.randn(y.shape)
    leaf = x.detach().clone().requires_grad_()
    (want,) = torch.autograd.grad(AVERAGES[case](leaf), leaf, grad)
    (got,) = torch.autograd.grad(y, x, grad)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("kernel", "divisor"), [((3, 3), 4), ((2, 2), 4), ((2, 3), 12), (3, 1)])
def test_another_divisor_is_a_factor_behind_the_average(kernel, divisor, platform, tmp_path):
    torch.manual_seed(0)
    pool = nn.AvgPool2d(kernel, 2, 1, ceil_mode=True, divisor_override=divisor)
    batches = [(torch.randn(1, 2, 7, 9),) for _ in range(2)]
    nodes = assert_same_everywhere(Net(pool), batches, tmp_path, platform)
    assert nodes.count("AvgPool2dInt") == 1
    assert nodes.count("iqMul") == (kernel != (2, 2))


def _divide(total, n):
    """S / n, rounded half up; by the accelerator's reciprocal where n is no power of two."""
    if n & (n - 1) == 0:
        return (2 * total + n) // (2 * n)
    e = (n - 1).bit_length()
    f = Fraction(n, 2**e)
    half = Fraction(1, 2)
    r = Fraction(math.floor(Fraction(2**29) / Fraction(math.floor(32 * f), 32) + half), 2**29)
    for _ in range(3):
        t = Fraction(math.floor((2 - f * r) * 2**30 + half), 2**30)
        r = Fraction(math.floor(r * t * 2**29 + half), 2**29)
    return math.floor(total * r / 2**e + half)


@pytest.mark.parametrize("seed", range(30))
def test_random_windows_against_integer_sums(seed):
    """Every output is its own window's sum over its own divisor."""
    g = np.random.default_rng(seed)
    h, w = int(g.integers(4, 12)), int(g.integers(4, 12))
    kernel = [int(g.integers(1, 5)), int(g.integers(1, 5))]
    stride = [int(g.integers(1, 5)), int(g.integers(1, 5))]
    pad = [int(g.integers(0, k // 2 + 1)) for k in kernel]
    ceil, include = bool(g.integers(2)), bool(g.integers(2))
    torch.manual_seed(seed)
    model = linger.init(Net(nn.AvgPool2d(kernel, stride, pad, ceil, include)))
    model(torch.randn(1, 2, h, w))
    model.eval()
    kept = []
    model.layer.register_forward_hook(lambda m, a, y: kept.append(y))
    y = model(torch.randn(1, 2, h, w))
    scale = float(info(kept[0]).scale)
    x = (kept[0] * scale).round().long()[0]
    got = (y * scale).round().long()[0]
    assert got.shape == F.avg_pool2d(kept[0], kernel, stride, pad, ceil).shape[1:]
    for i in range(got.shape[1]):
        for j in range(got.shape[2]):
            rows, cols = (
                (a * s - p, min(a * s - p + k, size + p))
                for a, s, p, k, size in ((i, stride[0], pad[0], kernel[0], h), (j, stride[1], pad[1], kernel[1], w))
            )
            inside = [range(max(b, 0), min(e, size)) for (b, e), size in ((rows, h), (cols, w))]
            n = math.prod(e - b for b, e in (rows, cols)) if include else math.prod(map(len, inside))
            total = x[:, inside[0].start : inside[0].stop, inside[1].start : inside[1].stop].sum((1, 2))
            assert got[:, i, j].tolist() == [_divide(int(t), n) for t in total]


MAXIMA = {
    "plain": lambda x: F.max_pool2d(x, 2),
    "padding": nn.MaxPool2d(3, 2, 1),
    "one sided stride": lambda x: torch.max_pool2d(x, (2, 3), (1, 2)),
    "ceil mode": nn.MaxPool2d(2, ceil_mode=True),
    "ceil mode, padding": lambda x: F.max_pool2d(x, 3, (2, 3), 1, ceil_mode=True),
    "dilation": nn.MaxPool2d(3, 1, dilation=2),
    "dilation, padding": lambda x: F.max_pool2d(x, (3, 2), 2, 1, (2, 3), True),
    "kernel below stride": lambda x: F.max_pool2d(x, 1, 2),
    "large kernel": lambda x: F.max_pool2d(x, (6, 7), 1, (3, 3)),
    "pyramid": lambda x: torch.cat([x, F.max_pool2d(x, 9, 1, 4), F.max_pool2d(x, 13, 1, 6)], 1),
    "huge kernel": nn.MaxPool2d((14, 18), (2, 3), (7, 9), ceil_mode=True),
    "global": nn.AdaptiveMaxPool2d(1),
    "adaptive, divides": lambda x: F.adaptive_max_pool2d(x, (7, 3)),
    "adaptive, does not divide": lambda x: F.adaptive_max_pool2d(x, (3, 4)),
    "adaptive, larger": nn.AdaptiveMaxPool2d((10, None)),
    "amax": lambda x: x.amax((2, 3)),
    "amax of channels": lambda x: torch.amax(x, 1, keepdim=True),
    "amax apart": lambda x: torch.amax(x, dim=(1, 3)),
    "places unused": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "places unused, module": lambda x: nn.MaxPool2d(3, 1, return_indices=True)(x)[0],
    "adaptive places unused": lambda x: nn.AdaptiveMaxPool2d(2, return_indices=True)(x)[0],
    "no batch": lambda x: F.max_pool2d(x[0], 3, 2, 1)[None],
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", MAXIMA)
def test_maxima_are_the_same_everywhere(case, platform, tmp_path):
    torch.manual_seed(0)
    change = MAXIMA[case]
    batches = [(torch.randn(1, 2, 7, 9) - 3,) for _ in range(2)]  # padding with zeros would win
    nodes = assert_same_everywhere(Net(change), batches, tmp_path, platform)
    moves = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "iqCat"}
    assert set(nodes) - moves <= {"Quant", "Conv2dInt", "MaxPool", "Dequant"}
    if case in ("plain", "padding", "ceil mode", "ceil mode, padding", "adaptive, divides"):
        assert nodes == ["Quant", "Conv2dInt", "MaxPool", "Dequant"]


@pytest.mark.parametrize("platform", ["arcs", "venus"])
@pytest.mark.parametrize("size", [5, 8, 17])
def test_maxima_of_every_window_of_an_axis(size, platform, tmp_path):
    """The file's poolings against torch: kernels up to three times the chip's, all paddings, strides and dilations."""
    from linger.nn.nodes.file_tensor import FileTensor
    from linger.nn.pooling.maximum import _ONCE, _Axis, _plain, _write
    from tests.nn.moves.replay import Replay

    x = torch.randint(-128, 128, (1, 2, 1, size)).double()
    for kernel in range(1, 30 if platform == "arcs" else 14):
        for pad in range(kernel // 2 + 1):
            for stride in (1, 2, 3, 5):
                for dilation in (1, 2, 3):
                    for ceil in (False, True):
                        if size + 2 * pad < dilation * (kernel - 1) + 1:
                            continue
                        want = F.max_pool2d(x, (1, kernel), (1, stride), (0, pad), (1, dilation), ceil)
                        tape = Replay(platform, x)
                        axis = _plain(size, kernel, stride, pad, dilation, ceil)
                        in_file = _write(FileTensor(tape, "x", x.shape, 1.0, "t"), _Axis([[0]], 1), axis)
                        assert torch.equal(tape.values[in_file.value], want), (kernel, pad, stride, dilation, ceil)
                        assert in_file.shape == tuple(want.shape)
                        assert all(k <= (12 if platform == "arcs" else 5) for k in tape.kernels)
    assert _ONCE == (1, 1, 0, 0)


@pytest.mark.parametrize("flat", ["avg", "max"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_dimension(flat, platform, tmp_path):
    pools = {
        "avg": lambda x: (
            F.adaptive_avg_pool1d(F.avg_pool1d(x, 3, 2, 1, True, False), 2) + F.avg_pool1d(x, 5, 5)[..., :2]
        ),
        "max": lambda x: F.adaptive_max_pool1d(F.max_pool1d(x, 3, 2, 1, 2, True), 4) + nn.MaxPool1d(2)(x)[..., :4],
    }
    torch.manual_seed(0)
    assert_same_everywhere(Net(pools[flat], flat=True), [(torch.randn(1, 2, 13),)] * 2, tmp_path, platform)


def test_places_of_a_maximum_have_no_form(tmp_path):
    model = linger.init(Net(lambda x: F.max_pool2d(x, 2, return_indices=True)))
    x = torch.randn(1, 2, 4, 4)
    values, places = model(x)
    assert places.dtype == torch.int64
    assert linger.runtime.is_quantized(values)
    with pytest.raises(linger.onnx.ExportError, match="return_indices"):
        linger.onnx.export(model, x, tmp_path / "m.onnx")


SHAPES = [(64, 4, 4), (24, 4, 4), (4, 7, 7), (32, 7, 7), (8, 1, 6), (16, 6, 1), (8, 8, 8)]


@pytest.mark.parametrize("engine", ["562ddc7", "later"])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_windows_over_the_whole_map_do_not_meet_the_hazards(shape, platform, engine, tmp_path):
    """Either the window is not the whole padded map, or the engine's own path for it is right."""
    import onnx

    c, h, w = shape
    net = nn.Sequential(nn.Conv2d(2, c, 1), nn.AdaptiveAvgPool2d(1))
    model = linger.init(net, _config(tmp_path, platform), engine=engine)
    x = torch.randn(1, 2, h, w)
    model(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, model.eval()(x).detach().numpy())
    (node,) = [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type == "AvgPool2dInt"]
    got = {a.name: list(a.ints) for a in node.attribute}
    top, left, bottom, right = got["pads"]
    whole = [h + top + bottom, w + left + right] == got["kernel_shape"]
    power = h * w & (h * w - 1) == 0
    later = power if platform == "venus" else not power and 4 * c >= h * w
    assert whole == (later and engine == "later")
    assert all(k >= s for k, s in zip(got["kernel_shape"], got["strides"], strict=True))


def test_maps_above_the_buffer_are_pooled_some_channels_at_a_time(tmp_path):
    model = linger.init(nn.Sequential(nn.Conv2d(2, 30, 1), nn.AvgPool2d(2)))
    x = torch.randn(1, 2, 64, 60)
    model(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, model.eval()(x).detach().numpy())
    import onnx

    nodes = [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node]
    assert nodes.count("AvgPool2dInt") == 2
    assert nodes.count("iqCat") == 1


def _config(tmp_path, platform):
    path = tmp_path / "config.yaml"
    path.write_text(f"platform: {platform}\n")
    return str(path)


CALLS = {
    "avg_pool": lambda f, x: f(x, 2),
    "adaptive_avg_pool": lambda f, x: f(x, 2),
    "mean": lambda f, x: f(x, 2),
    "max_pool": lambda f, x: f(x, 2),
    "adaptive_max_pool": lambda f, x: f(x, 2),
    "amax": lambda f, x: f(x, 2),
}


@pytest.mark.parametrize(("name", "spelling"), [(n, s) for n in CALLS for s in SPELLINGS[n]])
def test_every_spelling_keeps_the_integers(name, spelling):
    func = resolve(spelling)
    model = linger.init(Net(lambda x: CALLS[name](func, x), flat="1d" in spelling))
    y = model(torch.randn(1, 2, 6) if "1d" in spelling else torch.randn(1, 2, 6, 6))
    assert linger.runtime.is_quantized(y[0] if isinstance(y, tuple) else y)
    assert islands_of(model) == []


def test_calibration_pools_in_float():
    model = linger.init(Net(lambda x: F.avg_pool2d(x, 3, 2, 1, True, False).mean((2, 3)) + x.amax((2, 3))))
    x = torch.randn(1, 2, 7, 9)
    with linger.calibration():
        model(x)
    assert linger.runtime.is_quantized(model.eval()(x))
