"""What ``linger.onnx.export`` takes and gives: nested inputs and outputs, targets, names, open axes; or a sentence why not."""

import collections
import dataclasses
import io
import os

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.onnx import ExportError, OnnxRunner

Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass(frozen=True)
class Record:
    """Tensors by field."""

    a: object
    b: object = None


class Holder:
    """Tensors out of sight."""

    def __init__(self, a):
        self.a = a


def net(body):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, *args, **kwargs):
            return body(self.layer, *args, **kwargs)

    torch.manual_seed(0)
    return linger.init(Net())


X, Y = torch.randn(1, 4), torch.randn(1, 4)


def exported(model, args, **kwargs):
    buffer = io.BytesIO()
    linger.onnx.export(model, args, buffer, **kwargs)
    return OnnxRunner(buffer.getvalue())


OUTPUTS = {
    "dict": lambda y: {"a": y[0], "b": y[1]},
    "nested": lambda y: [y[0], (y[1], {"c": [y[2]]})],
    "none between": lambda y: (y[0], None, y[1]),
    "numbers beside": lambda y: (y[0], 3, "text", 0.5),
    "namedtuple": lambda y: Pair(y[0], y[1]),
    "dataclass": lambda y: Record(y[0], [y[1]]),
    "ordered dict": lambda y: collections.OrderedDict(b=y[0], a=y[1]),
    "twice": lambda y: (y[0], y[0]),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_in_any_nesting(case):
    made = []

    def body(layer, x):
        made[:] = [layer(x), layer(x) + layer(x), layer(x) * 2]
        return OUTPUTS[case](made)

    model = net(body)
    model(X)
    model.eval()(X)
    want = {"nested": made, "numbers beside": made[:1], "twice": [made[0], made[0]]}.get(case, made[:2])
    want = [t.detach().numpy() for t in want]
    got = exported(model, X).run(X)
    assert list(got) == ["output", "output1", "output2"][: len(want)]
    assert all(np.array_equal(a, b) for a, b in zip(got.values(), want, strict=True))


INPUTS = {
    "tuple": (lambda layer, p: layer(p[0]) + p[1][0], ((X, (Y,)),), {}),
    "dict": (lambda layer, p: layer(p["a"]) + p["b"], ({"a": X, "b": Y},), {}),
    "ordered dict": (lambda layer, p: layer(p["a"]) + p["b"], (collections.OrderedDict(a=X, b=Y),), {}),
    "mapping": (lambda layer, p: layer(p["a"]) + p["b"], (collections.UserDict(a=X, b=Y),), {}),
    "namedtuple": (lambda layer, p: layer(p.a) + p.b, (Pair(X, Y),), {}),
    "dataclass": (lambda layer, p: layer(p.a) + p.b, (Record(X, Y),), {}),
    "keyword": (lambda layer, x, *, y: layer(x) + y, (X,), {"y": Y}),
    "none and numbers": (lambda layer, x, m, n, *, y: layer(x) * n + y, (X, None, 2), {"y": Y}),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_in_any_nesting_are_inputs_of_the_file(case):
    body, args, kwargs = INPUTS[case]
    model = net(body)
    model(*args, **kwargs)
    want = model.eval()(*args, **kwargs).detach().numpy()
    runner = exported(model, args, kwargs=kwargs)
    assert runner.inputs == ("input", "input1")
    assert np.array_equal(runner.run([X, Y])["output"], want)
    other = runner.run([X, -Y])["output"]
    assert not np.array_equal(other, want)


REFUSED = {
    "only None": (lambda layer, x: None, (X,), ExportError, "the model returned no tensor, but NoneType"),
    "a text": (lambda layer, x: "text", (X,), ExportError, "the model returned no tensor, but str"),
    "a set": (lambda layer, x: {layer(x)}, (X,), TypeError, "the model returned a set, whose tensors have no order"),
    "a generator": (lambda layer, x: (layer(x) for _ in "ab"), (X,), TypeError, "the model returned a generator"),
    "an object": (lambda layer, x: Holder(layer(x)), (X,), TypeError, "the model returned a Holder"),
    "an object as input": (lambda layer, p: layer(p.a), (Holder(X),), TypeError, "an argument is a Holder"),
    "a numpy array": (lambda layer, x: layer(torch.as_tensor(x)), (X.numpy(),), TypeError, "is a numpy array"),
    "no tensor": (
        lambda layer, n: layer(torch.ones(1, 4) * n),
        (2,),
        ExportError,
        "no argument of the model is a tensor",
    ),
    "a constant": (
        lambda layer, x: (layer(x), torch.ones(2)),
        (X,),
        ExportError,
        "output 1 does not depend on the inputs",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_place_in_a_file_is_refused_in_words(case):
    body, args, error, text = REFUSED[case]
    model = net(body)
    model(*args)
    with pytest.raises(error, match=text):
        exported(model, args)


def ready():
    model = net(lambda layer, x: layer(x))
    model(X)
    return model


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"f": None}, TypeError, "f must be a path or an object that bytes can be written to, got NoneType"),
        ({"f": 3}, TypeError, "f must be a path .* got int"),
        ({"f": io.StringIO()}, TypeError, "got StringIO that takes text"),
        ({"f": ""}, IsADirectoryError, "cannot write '': the path is empty"),
        ({"input_names": "input"}, TypeError, "input_names must be a list of names, got 'input'"),
        ({"output_names": [3]}, TypeError, r"output_names must be a list of names, got \[3\]"),
        ({"dynamic_axes": ["input"]}, TypeError, r"dynamic_axes must be a dict by tensor name, got \['input'\]"),
        ({"dynamic_axes": {"input": "n"}}, TypeError, r"'input' needs \{axis: symbol\} or a list of axes, got 'n'"),
        ({"dynamic_axes": {"input": {0: ""}}}, ExportError, "axis 0 of 'input' needs a name, got ''"),
        ({"opset_version": "12"}, ExportError, "opset_version must be 11 or 12 .* got '12'"),
        ({"model": X}, TypeError, r"model must be a torch\.nn\.Module, got Tensor"),
    ],
)
def test_arguments_of_the_wrong_kind(given, error, text):
    call = {"model": ready(), "args": X, "f": io.BytesIO(), **given}
    with pytest.raises(error, match=text):
        linger.onnx.export(**call)


def test_a_folder_as_target_stays_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"cannot write '{tmp_path}': it is a folder"):
        linger.onnx.export(ready(), X, tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_output_follows_the_open_axes_of_the_inputs():
    model = ready()
    buffer = io.BytesIO()
    linger.onnx.export(model, X, buffer, dynamic_axes={"input": {0: "n"}})
    (dims,) = [v.type.tensor_type.shape.dim for v in onnx.load_from_string(buffer.getvalue()).graph.output]
    assert [d.dim_param or d.dim_value for d in dims] == ["n", 4]
    many = torch.randn(3, 4)
    got = OnnxRunner(buffer.getvalue()).run(many)["output"]
    assert np.array_equal(got, model.eval()(many).detach().numpy())


def test_another_shape_than_the_files_is_told_with_the_way_out():
    runner = exported(ready(), X)
    with pytest.raises(
        ValueError, match=r"must have shape \(1, 4\), got \(3, 4\); .*dynamic_axes=\{'input': \{0: 'n'\}\}"
    ):
        runner.run(torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"must have shape \(1, 4\), got \(4,\)$"):
        runner.run(torch.randn(4))
