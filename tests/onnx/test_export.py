"""linger.onnx.export seen from outside: which models, arguments and modes it takes, and what the file then holds."""

import io

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner


def _same(model, inputs, path):
    """Export, run, compare with the model's eval; returns the file."""
    with torch.no_grad():
        want = model.eval()(*inputs)
    linger.onnx.export(model, inputs, path)
    (got,) = OnnxRunner(path).run(list(inputs)).values()
    assert np.array_equal(got, want.numpy())
    return onnx.load(path)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1), (1, 2, 5, 5)),
        (nn.Conv1d(2, 3, 4, padding="same"), (1, 2, 9)),
        (nn.Linear(4, 3), (2, 4)),
        (nn.Linear(4, 3, bias=False), (1, 3, 5, 4)),
        (nn.Linear(4, 3), (4,)),
    ],
)
def test_a_bare_layer_is_a_model(layer, shape, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(shape)
    model = linger.init(layer)
    model.train()(x)
    file = _same(model, (x,), tmp_path / "m.onnx")
    assert [n.op_type for n in file.graph.node].count("Quant") == 1


class _Options(nn.Module):
    """Takes a tensor, then a tensor or a dict of tensors, then a keyword."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, extra=None, *, bias=None):
        x = self.layer(x)
        if extra is not None:
            x = x + (extra["m"] if isinstance(extra, dict) else extra)
        return x if bias is None else x + bias


A, B = torch.randn(2, 4), torch.randn(2, 4)
CALLS = [
    ((A, {"m": B}), (A, {"m": B}), {}),
    ((A, {"m": B}, {}), (A, {"m": B}), {}),
    ((A, {"extra": B}), (A, B), {}),
    ((A, {"bias": B}), (A,), {"bias": B}),
    ({"x": A, "bias": B}, (A,), {"bias": B}),
    ((A, B), (A, B), {}),
]


@pytest.mark.parametrize(("args", "positional", "keywords"), CALLS)
def test_positional_dictionaries_and_keywords(args, positional, keywords, tmp_path):
    model = linger.init(_Options())
    model.train()(*positional, **keywords)
    with torch.no_grad():
        want = model.eval()(*positional, **keywords)
    linger.onnx.export(model, args, tmp_path / "m.onnx")
    runner = OnnxRunner(tmp_path / "m.onnx")
    (got,) = runner.run([A, B]).values()
    assert np.array_equal(got, want.numpy())


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((A,), {"bias": B}),
        (A, {"bias": B}),
        ((), {"x": A, "bias": B}),
        (None, {"x": A, "bias": B}),
        ((A, {"m": B}), {}),
    ],
)
def test_keywords_as_torch_takes_them(args, kwargs, tmp_path):
    model = linger.init(_Options())
    positional = args if isinstance(args, tuple) else () if args is None else (args,)
    model.train()(*positional, **kwargs)
    want = model.eval()(*positional, **kwargs).detach()
    linger.onnx.export(model, args, tmp_path / "m.onnx", kwargs=kwargs, input_names=["a", "b"])
    (got,) = OnnxRunner(tmp_path / "m.onnx").run({"a": A, "b": B}).values()
    assert np.array_equal(got, want.numpy())


def test_keywords_in_two_places_are_refused(tmp_path):
    for args, kwargs in (({"x": A}, {"bias": B}), (A, [B])):
        with pytest.raises(TypeError, match="kwargs must be a dict, and args next to it positional"):
            linger.onnx.export(_linear(), args, tmp_path / "m.onnx", kwargs=kwargs)


def _linear():
    torch.manual_seed(0)
    model = linger.init(nn.Sequential(nn.Linear(4, 4)))
    model.train()(A)
    return model


def test_names_are_taken_as_they_are_given(tmp_path):
    linger.onnx.export(_linear(), A, tmp_path / "m.onnx", input_names=["x:0"], output_names=["Scale/y"])
    (got,) = OnnxRunner(tmp_path / "m.onnx").run({"x:0": A}).items()
    assert got[0] == "Scale/y"


@pytest.mark.parametrize(("inputs", "outputs"), [(["x"], ["x"]), ([""], ["y"])])
def test_names_must_differ(inputs, outputs, tmp_path):
    with pytest.raises(linger.onnx.ExportError, match="names of their own"):
        linger.onnx.export(_linear(), A, tmp_path / "m.onnx", input_names=inputs, output_names=outputs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_parameters_of_every_float_type_are_exported(dtype, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).to(dtype)
    x = torch.randn(1, 1, 4, 4).to(dtype)
    model = linger.init(net, example_inputs=x)
    model.train()(x)
    assert {p.dtype for p in model.parameters()} >= {dtype}
    with torch.no_grad():
        want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x.float()).values()
    assert np.array_equal(got, want.float().numpy())
    file = onnx.load(tmp_path / "m.onnx")
    assert file.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_operators_that_compute_in_float_are_named_with_their_line(tmp_path, caplog):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.GroupNorm(1, 1), nn.Linear(2, 2)

        def forward(self, x):
            return torch.exp(self.layer(self.norm(x).flatten(1)[:, :2]))

    x = torch.randn(1, 1, 4, 4)
    model = linger.init(Scaled())
    model.train()(x)
    caplog.clear()
    with caplog.at_level("WARNING", "linger"):
        _same(model, (x,), tmp_path / "m.onnx")
    (said,) = [r.getMessage() for r in caplog.records if "compute in float" in r.getMessage()]
    assert "group_norm: '(root)'" in said and "exp: '(root)'" in said and said.count("test_export.py:") == 2
    assert "latten" not in said and "lice" not in said


def test_a_file_without_float_operators_says_nothing(tmp_path, caplog):
    model = _linear()
    caplog.clear()  # what init says about the chip
    with caplog.at_level("INFO", "linger"):
        linger.onnx.export(model, A, tmp_path / "m.onnx")
    assert not caplog.records


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_an_in_place_float_operator_behind_a_quantized_layer(mode, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ELU(inplace=True), nn.Conv2d(2, 2, 1))
    x = torch.randn(1, 1, 5, 5)
    model = linger.init(net)
    model.train()(x)
    with mode():
        file = _same(model, (x,), tmp_path / "m.onnx")
    kinds = [n.op_type for n in file.graph.node]
    assert kinds == ["Quant", "Conv2dInt", "Dequant", "Elu", "Quant", "Conv2dInt", "Dequant"]


@pytest.mark.parametrize("integers", [False, True], ids=["float inputs", "int8 inputs"])
def test_only_what_computes_in_float_is_reported_so(integers, caplog):
    torch.manual_seed(0)
    x = torch.randn(1, 1, 8, 8)
    model = linger.init(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Softsign(), nn.Conv2d(2, 2, 3)))
    model.train()(x)
    file = io.BytesIO()
    with caplog.at_level("WARNING", "linger"):
        linger.onnx.export(model.eval(), (x,), file, is_input_quant=integers)
    (said,) = [r.getMessage() for r in caplog.records if "compute in float" in r.getMessage()]
    assert [line.split(":")[0].strip() for line in said.splitlines()[1:]] == ["softsign"]
    inputs = onnx.load_from_string(file.getvalue()).graph.input
    assert inputs[0].type.tensor_type.elem_type == (onnx.TensorProto.INT8 if integers else onnx.TensorProto.FLOAT)
