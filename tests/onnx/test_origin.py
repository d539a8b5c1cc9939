"""What people look for in a file: names of parameters, shapes of tensors, and where it comes from."""

import copy
import sys

import onnx
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner
from tests.nn.zoo import ZOO, batch

NETS = ("ConvNet", "Transformer", "Attention", "SmoothNet", "ShuffleUnit", "Probabilities")
TYPES = {torch.float32: 1, torch.int8: 3, torch.int16: 5, torch.int32: 6, torch.int64: 7, torch.bool: 9}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.words, self.rnn = nn.Embedding(9, 4), nn.LSTM(4, 4, bidirectional=True, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x, tokens):
        y = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.rnn(y + self.words(tokens))[0]))


def inputs():
    torch.manual_seed(0)
    return torch.randn(1, 1, 5, 5), torch.arange(9)[None]


def exported(folder, platform="venusA", **options):
    linger.settings.use(linger.settings.loads(f"platform: {platform}\n"))
    model = linger.init(Small(), example_inputs=inputs())
    model(*inputs())
    linger.onnx.export(model.eval(), inputs(), folder / "m.onnx", **options)
    return model, onnx.load(folder / "m.onnx")


@pytest.mark.parametrize("platform", ["venus", "mars", "arcs", "venusA"])
def test_initializers_are_named_as_the_parameters(platform, tmp_path):
    model, file = exported(tmp_path, platform)
    names = {i.name for i in file.graph.initializer}
    parameters = {name for name, _ in model.named_parameters()}
    assert "stem.0.weight" in names and "rnn.weight_ih_l0_reverse" in names
    assert {n for n in parameters if n.endswith(("weight", "bias")) or n.startswith("rnn.")} <= names
    assert not {
        n for n in names if n.rpartition(".")[2].isdecimal() and n.rpartition(".")[0] in dict(model.named_modules())
    }


class Seen(OnnxRunner):
    """A runner that keeps every tensor."""

    def __init__(self, source):
        self.seen = {}
        super().__init__(source)

    def _made(self, name, value):
        self.seen[name] = value


def shapes_of(file):
    return {
        v.name: (v.type.tensor_type.elem_type, tuple(d.dim_value for d in v.type.tensor_type.shape.dim))
        for v in file.graph.value_info
    }


def check_shapes(path, arrays):
    file, runner = onnx.load(path), Seen(path)
    runner.run(arrays)
    declared, ends = shapes_of(file), {o.name for o in file.graph.output}
    for node in file.graph.node:
        for name in node.output:
            value = runner.seen[name]
            if name not in ends and name in declared:
                tensor = value.tensor if value.codes is None or node.op_type == "Dequant" else value.codes
                kind = 1 if node.op_type == "Dequant" else TYPES[tensor.dtype]
                assert declared[name] == (kind, tuple(tensor.shape)), (node.op_type, name)
    return [n.op_type for n in file.graph.node for name in n.output if name not in declared and name not in ends]


@pytest.mark.parametrize("platform", ["venus", "venusA"])
def test_shapes_of_all_tensors_are_those_that_the_runner_makes(platform, tmp_path):
    exported(tmp_path, platform)
    assert check_shapes(tmp_path / "m.onnx", [t.numpy() for t in inputs()]) == []


@pytest.mark.parametrize("name", NETS)
def test_shapes_of_the_zoo(name, tmp_path):
    cls = ZOO[name]
    model = linger.init(cls(), example_inputs=batch(cls))
    model(*batch(cls))
    linger.onnx.export(model.eval(), batch(cls, 1), tmp_path / "m.onnx")
    unknown = check_shapes(tmp_path / "m.onnx", [t.numpy() for t in batch(cls, 1)])
    assert set(unknown) <= {"Erf", "Mul", "Add", "Softmax"}  # pieces of operators in float


def test_open_axes_declare_no_sizes_that_may_be_others(tmp_path):
    model = linger.init(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    model(torch.randn(1, 1, 5, 5))
    linger.onnx.export(
        model.eval(), torch.randn(1, 1, 5, 5), tmp_path / "m.onnx", input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    assert not onnx.load(tmp_path / "m.onnx").graph.value_info


def test_a_file_says_where_it_comes_from(tmp_path):
    model, file = exported(tmp_path, "arcs")
    known = {entry.key: entry.value for entry in file.metadata_props}
    assert (file.producer_name, file.producer_version) == ("linger", linger.__version__)
    assert (known["linger.platform"], known["linger.engine"]) == ("arcs", "562ddc7")
    assert linger.settings.loads(known["linger.settings"]) == linger.settings.current()
    assert known["linger.model"] == linger.onnx.fingerprint(model)
    linger.save(model, tmp_path / "m.pt")
    assert linger.onnx.fingerprint(linger.load(Small(), tmp_path / "m.pt")) == known["linger.model"]


def test_the_fingerprint_is_that_of_every_bit():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first, twin = linger.onnx.fingerprint(model), copy.deepcopy(model)
    assert linger.onnx.fingerprint(twin) == first
    with torch.no_grad():
        twin[0].weight[1, 2] = torch.nextafter(twin[0].weight[1, 2], torch.tensor(9.0))
    assert linger.onnx.fingerprint(twin) != first


@pytest.mark.parametrize("strict", [False, True])
def test_torchs_newer_exporter_gets_our_sentence(strict, monkeypatch):
    """It runs the model under torch.export, not strictly at first, then strictly, with this flag set."""
    model = linger.init(nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    model(torch.ones(1, 4))
    monkeypatch.setitem(sys.modules, "torch.onnx._internal.exporter", object())
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(linger.onnx.ExportError, match=r"call linger.onnx.export\(model, args"):
        torch.export.export(model.eval(), (torch.ones(1, 4),), strict=strict)
