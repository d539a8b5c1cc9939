"""Places of maxima: torch's from a module, the chip's [2, ...] from a file."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.runtime import islands_of
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Net(nn.Module):
    """A layer, so that the search meets codes; few levels, so that ties are common."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Conv2d(2, 5, 1), change

    def forward(self, x):
        return self.change(self.layer(x))


def _trained(change, platform, tmp_path, more=""):
    torch.manual_seed(0)
    path = tmp_path / "config.yaml"
    path.write_text(f"platform: {platform}\n{more}")
    model = linger.init(Net(change), str(path))
    model(20 * torch.randn(2, 2, 4, 6))
    return model.eval()


CASES = {
    "argmax": (lambda x: x.argmax(-1), -1),
    "argmax of channels": (lambda x: torch.argmax(x, dim=1, keepdim=True), 1),
    "argmax of rows": (lambda x: x.argmax(2), 2),
    "max": (lambda x: x.max(-1)[1], -1),
    "max of channels": (lambda x: torch.max(x, 1, keepdim=True).indices, 1),
    "a matrix": (lambda x: x.flatten(1).argmax(-1), None),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", CASES)
def test_places_of_the_first_maximum(case, platform, tmp_path):
    change, dim = CASES[case]
    model = _trained(change, platform, tmp_path)
    x = torch.randn(1, 2, 4, 6)
    with torch.no_grad():
        places, codes = model(x), (model.layer(x) * model.layer.output_quantizer.scale).round().int()
    assert islands_of(model) == []
    assert places.dtype == torch.int64
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert got.dtype == np.int32
    rows = codes.flatten(1) if dim is None else codes.movedim(dim, -1)
    assert got.shape == (2, *rows.shape[1:-1], 1)
    best = rows.amax(-1)
    first = [int(np.flatnonzero(row == row.max())[0]) for row in rows.numpy().reshape(-1, rows.shape[-1])]
    assert np.array_equal(got[0, ..., 0], best[0].numpy())
    assert got[1].reshape(-1).tolist() == first
    assert places.reshape(-1).tolist() == first


@pytest.mark.parametrize("platform", PLATFORMS)
def test_values_and_places_of_max(platform, tmp_path):
    model = _trained(lambda x: x.max(dim=2), platform, tmp_path)
    x = torch.randn(1, 2, 4, 6)
    linger.onnx.export(model, x, tmp_path / "m.onnx", output_names=["value", "place"])
    got = OnnxRunner(tmp_path / "m.onnx").run(x)
    with torch.no_grad():
        want = model(x)
    assert isinstance(want, torch.return_types.max)
    assert np.array_equal(got["value"], want.values.numpy())
    assert np.array_equal(got["place"][1, ..., 0], want.indices[0].numpy())


MINIMA = {
    "amin": lambda x: x.amin((2, 3)),
    "amin of channels": lambda x: torch.amin(x, 1, keepdim=True),
    "min": lambda x: x.min(-1)[0],
    "min of channels": lambda x: torch.min(x, axis=1, keepdims=True).values,
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", MINIMA)
def test_minima_are_the_same_everywhere(case, platform, tmp_path):
    torch.manual_seed(0)
    nodes = assert_same_everywhere(Net(MINIMA[case]), [(20 * torch.randn(1, 2, 4, 6),)] * 2, tmp_path, platform)
    assert nodes.count("BatchNorm2dInt") == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_places_of_the_first_minimum(platform, tmp_path):
    model = _trained(lambda x: x.min(1), platform, tmp_path)
    x = torch.randn(1, 2, 4, 6)
    linger.onnx.export(model, x, tmp_path / "m.onnx", output_names=["value", "place"])
    got = OnnxRunner(tmp_path / "m.onnx").run(x)
    with torch.no_grad():
        want, codes = model(x), model.layer(x)
    assert isinstance(want, torch.return_types.min)
    assert np.array_equal(got["value"], want.values.numpy())
    assert np.array_equal(got["place"][1, ..., 0], codes[0].numpy().argmin(0))
    assert islands_of(model) == []
    model.change = lambda x: x.argmin(dim=1)
    linger.onnx.export(model, x, tmp_path / "n.onnx")
    (place,) = OnnxRunner(tmp_path / "n.onnx").run(x).values()
    assert np.array_equal(place, got["place"])


def test_the_gradient_of_max_is_torchs():
    torch.manual_seed(0)
    model, kept = linger.init(Net(lambda x: torch.max(x, 1)[0])), []
    model.layer.register_forward_hook(lambda m, a, y: kept.append(y))
    y = model(torch.randn(2, 2, 4, 6))
    grad = torch.randn(y.shape)
    leaf = kept[0].detach().clone().requires_grad_()
    (want,) = torch.autograd.grad(leaf.max(1)[0], leaf, grad)
    (got,) = torch.autograd.grad(y, kept[0], grad)
    assert torch.equal(got, want)


@pytest.mark.parametrize(("platform", "ok"), [("arcs", True), ("venusA", True), ("venus", False)])
def test_results_of_32_bits(platform, ok, tmp_path):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 9)

        def forward(self, x):
            return self.fc(x).argmax(-1)

    path = tmp_path / "config.yaml"
    path.write_text(f"platform: {platform}\nfc:\n  name: [fc]\n  quant_info:\n    output_bits: 32\n")
    model, x = linger.init(Wide(), str(path)), torch.randn(1, 6)
    model(x)
    if not ok:
        with pytest.raises(linger.onnx.ExportError, match="width"):
            linger.onnx.export(model, x, tmp_path / "m.onnx")
        return
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert got[1, 0] == int(model.eval()(x))


def test_what_a_file_cannot_hold(tmp_path):
    x = torch.randn(1, 2, 4, 6)
    model = _trained(lambda y: y.flatten(2)[:, y.argmax(1).flatten()[0:1]], "arcs", tmp_path)
    with pytest.raises(linger.onnx.ExportError, match="another operator reads them"):
        linger.onnx.export(model, x, tmp_path / "m.onnx")


@pytest.mark.filterwarnings("ignore:.*exported with a batch of 3")
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", CASES)
def test_several_samples_are_rows_of_one(case, platform, tmp_path):
    change, dim = CASES[case]
    model = _trained(change, platform, tmp_path)
    x = 20 * torch.randn(3, 2, 4, 6)
    with torch.no_grad():
        places, codes = model(x), (model.layer(x) * model.layer.output_quantizer.scale).round().int()
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert islands_of(model) == []
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    rows = codes.flatten(1) if dim is None else codes.movedim(dim, -1)
    assert got.shape == (2, *rows.shape[:-1], 1)
    assert np.array_equal(got[0, ..., 0], rows.amax(-1).numpy())
    assert np.array_equal(got[1].ravel(), places.numpy().ravel())


def test_of_all_elements_stays_in_float():
    model = linger.init(Net(lambda x: x.argmax()))
    model(torch.randn(1, 2, 4, 6))
    assert [island.operator for island in islands_of(model)] == ["argmax"]
