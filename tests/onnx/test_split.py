"""``export(..., split_float=True)``: float ends in files of their own, which run in a row to the integers of one file."""

import io

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.onnx import OnnxRunner


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 5)

    def codes(self, x):
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


class Before(Net):
    def forward(self, x):
        return self.codes(torch.log(x.abs() + 1).cumsum(-1))


class After(Net):
    def forward(self, x):
        return torch.softmax(torch.sin(self.codes(x)), -1).cumsum(-1)


class Both(Net):
    def forward(self, x):
        y = self.codes(torch.sin(x))
        return y, torch.cumsum(torch.sin(y), 1)


class Around(Net):
    """The float result of the front is read behind the chip's part, too, and so is the input."""

    def forward(self, x):
        y = torch.sin(x)
        return torch.sin(self.codes(y)) * y.sum((1, 2, 3))[:, None] + x.amax((1, 2, 3))[:, None]


class Between(Net):
    def forward(self, x):
        return self.codes(torch.sin(self.conv(x))[:, :1])


def initialised(cls):
    torch.manual_seed(0)
    model, x = linger.init(cls()), torch.randn(2, 1, 6, 7)
    with linger.calibration(model):
        model(x)
    return model.eval(), x[:1]


def run(path, given):
    """Every output of a file by name, from those of ``given`` that are its inputs."""
    graph = onnx.load(path).graph
    return OnnxRunner(path).run({i.name: given[i.name] for i in graph.input})


def operators(path):
    return {n.op_type for n in onnx.load(path).graph.node}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("cls", "sides"),
    [
        (Before, {"before"}),
        (After, {"after"}),
        (Both, {"before", "after"}),
        (Around, {"before", "after"}),
        (Between, set()),
    ],
)
@pytest.mark.parametrize("open_batch", [False, True])
def test_parts_in_a_row(tmp_path, cls, sides, open_batch):
    model, x = initialised(cls)
    axes = {"x": {0: "n"}} if open_batch else None
    linger.onnx.export(model, x, tmp_path / "whole.onnx", input_names=["x"], dynamic_axes=axes)
    linger.onnx.export(model, x, tmp_path / "m.onnx", input_names=["x"], dynamic_axes=axes, split_float=True)
    names = {p.name for p in tmp_path.glob("m*.onnx")}
    assert names == {"m.onnx", *(f"m.{side}.onnx" for side in sides)}
    known = {"x": (torch.cat([x, x * 2]) if open_batch else x).numpy()}
    wanted = run(tmp_path / "whole.onnx", known)
    for name in ("m.before.onnx", "m.onnx", "m.after.onnx"):
        if name in names:
            known |= run(tmp_path / name, known)
    for name, value in wanted.items():
        assert known[name].shape == value.shape
        assert (known[name] == value).all()
    assert linger.check(tmp_path / "m.onnx").ok == (cls is not Between)
    if sides:
        said = (tmp_path / "m.pack.txt").read_text()
        order = " -> ".join(n for n in ("m.before.onnx", "m.onnx", "m.after.onnx") if n in names)
        assert f"The application runs {order}:" in said
        assert "Sin" not in operators(tmp_path / "m.onnx")
        for side in sides:
            assert {n.domain for n in onnx.load(tmp_path / f"m.{side}.onnx").graph.node} == {""}


@pytest.mark.filterwarnings("ignore")
def test_strict_takes_float_ends_that_are_split_off(tmp_path):
    model, x = initialised(Both)
    with pytest.raises(linger.onnx.ExportError, match="float operator sin"):
        linger.onnx.export(model, x, tmp_path / "m.onnx", strict=True)
    linger.onnx.export(model, x, tmp_path / "m.onnx", strict=True, split_float=True)
    model, x = initialised(Between)
    with pytest.raises(linger.onnx.ExportError, match="float operator sin"):
        linger.onnx.export(model, x, tmp_path / "n.onnx", strict=True, split_float=True)


@pytest.mark.filterwarnings("ignore")
def test_integer_inputs_are_those_of_the_whole_graph(tmp_path):
    model, x = initialised(Both)
    linger.onnx.export(model, x, tmp_path / "m.onnx", split_float=True, is_input_quant=True)
    port = onnx.load(tmp_path / "m.onnx").graph.input[0]
    assert port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT  # what comes before gives floats


def test_nothing_in_float_is_one_file(tmp_path):
    model, x = initialised(type("Plain", (Net,), {"forward": Net.codes}))
    linger.onnx.export(model, x, tmp_path / "m.onnx", split_float=True)
    assert [p.name for p in tmp_path.glob("*.onnx")] == ["m.onnx"]


def test_a_stream_has_no_place_beside_it():
    model, x = initialised(After)
    with pytest.raises(TypeError, match="split_float writes files beside f, which must be a path then, got BytesIO"):
        linger.onnx.export(model, x, io.BytesIO(), split_float=True)
