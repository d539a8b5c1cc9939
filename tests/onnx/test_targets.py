"""Other forms of a file: QDQ, the names of 3.x; and the proof that evaluation, runner and onnxruntime agree."""

import copy
import io
import json
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from small_models import FLOAT, image, model, network, node
from standard_runs import run, session
from torch import nn

import linger
from linger import settings
from linger.errors import UnsupportedError
from linger.onnx import OnnxRunner, prove, to_linger3


class Net(nn.Module):
    """Every operator that QDQ has a form of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.up, self.norm, self.out = nn.ConvTranspose2d(6, 6, 2, 2), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        y = self.up(self.stem(x))
        y = torch.cat([y[:, :3] + y[:, 3:], y[:, 3:] * torch.sigmoid(y[:, :3])], 1)
        y = self.norm(nn.functional.avg_pool2d(y, 2).flatten(2).transpose(1, 2))
        y = torch.bmm(torch.softmax(torch.bmm(y, y.transpose(1, 2)), -1), y)
        return self.out(y)


X = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(3))


def trained(net, x=X, platform="arcs", **changes):
    """A net that has seen ``x``."""
    settings.use(replace(settings.defaults(), platform=platform, **changes))
    torch.manual_seed(0)
    converted = linger.init(copy.deepcopy(net), example_inputs=x)
    converted(x)
    return converted.eval()


def file_of(net, x=X, **options):
    """Bytes, quietly."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linger.onnx.export(net, x, file, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Net()


LAYERS = [nn.Conv2d(2, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, groups=6)]
PLAIN = nn.Sequential(*LAYERS, nn.Flatten(), nn.Linear(24, 5))


# a layer is off by one where it rounds a tie; LayerNorm and products of two tensors enlarge what came in
@pytest.mark.parametrize(("net", "most"), [(PLAIN, 2), (None, 16)], ids=["layers", "every operator"])
@pytest.mark.parametrize("platform", ["arcs", "venusA"])
def test_qdq_is_close_to_the_chip(small, platform, net, most):
    converted = trained(small if net is None else net, platform=platform)
    data, chip = file_of(converted, target="qdq"), OnnxRunner(file_of(converted))
    name = chip.inputs[0]
    real, codes = (chip.run(X.numpy(), integers=integers)["output"] for integers in (False, True))
    step = np.abs(real[codes != 0] / codes[codes != 0]).min()
    for entries in ({"disable_quant_qdq": "1"}, {"x64quantprecision": "1"}):
        (got,) = session(data, **entries).run(None, {name: X.numpy()})
        off = np.abs(got - real) / step
        assert np.array_equal(off, off.round()), "results stand on the chip's grid"
        assert off.max() <= most


def test_qdq_has_one_reader_per_initializer_and_says_what_differs(small):
    m = onnx.load_from_string(file_of(trained(small), target="qdq"))
    kinds = Counter(n.op_type for n in m.graph.node)
    assert kinds["QuantizeLinear"] > 8 and {n.domain for n in m.graph.node} == {""}
    readers = Counter(i for n in m.graph.node for i in n.input)
    around = {i for n in m.graph.node if n.op_type.endswith("tizeLinear") for i in n.input}
    stored = [t for t in m.graph.initializer if t.name in around]
    assert stored and all(readers[t.name] == 1 for t in stored)
    zeros = [t for t in stored if t.data_type == TensorProto.INT8 and not t.dims]
    assert zeros and all(onnx.numpy_helper.to_array(t) == 0 for t in zeros)
    said = {e.key: e.value for e in m.metadata_props}
    assert said["linger.form"] == "qdq" and "half to even" in said["linger.differs"]


def test_quant_method_onnx_writes_qdq(small):
    net = trained(small, quant_method="ONNX")
    assert "QuantizeLinear" in {n.op_type for n in onnx.load_from_string(file_of(net)).graph.node}
    assert "Conv2dInt" in {n.op_type for n in onnx.load_from_string(file_of(net, target="linger")).graph.node}


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_recurrent_layers_have_no_qdq(cell):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = cell(4, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    x = torch.randn(1, 3, 4)
    with pytest.raises(UnsupportedError, match=f"to_qdq: {cell.__name__}Int 'rnn.*': it has no form in QuantizeLinear"):
        file_of(trained(Recurrent(), x), x, target="qdq")


def test_linger3_has_the_names_of_3x(small, tmp_path):
    net = trained(small)
    linger.onnx.export(net, X, tmp_path / "a.onnx", target="linger3")
    m = onnx.load(tmp_path / "a.onnx")
    kinds = {n.op_type for n in m.graph.node}
    assert {"QConv2d", "QConvTranspose2d", "QAdd", "QMul", "QCat", "QAvgPool2d", "QSoftmax", "QBmm", "QLinear"} <= kinds
    assert not {k for k in kinds if k.endswith("Int") or k.startswith("iq")}
    assert {"x_bits", "w_bits", "scale_x"} <= {
        a.name for n in m.graph.node if n.op_type == "QConv2d" for a in n.attribute
    }
    want = OnnxRunner(file_of(net)).run(X.numpy(), integers=True)
    got = OnnxRunner(tmp_path / "a.onnx").run(X.numpy(), integers=True)
    assert all(np.array_equal(got[k], want[k]) for k in want)
    assert to_linger3(tmp_path / "a.onnx").SerializeToString() == m.SerializeToString(), "once is enough"


def test_export_standard(small, tmp_path):
    net = trained(small)
    linger.onnx.export(net, X, tmp_path / "s.onnx", target="standard", input_names=["x"], output_names=["y"])
    got = run((tmp_path / "s.onnx").read_bytes(), {"x": X.numpy()})["y"]
    assert np.array_equal(got, net(X).detach().numpy()) and got.dtype == np.float32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.onnx"], "the packer does not take it: nothing to say to it"
    assert onnx.load(tmp_path / "s.onnx").graph.input[0].type.tensor_type.elem_type == FLOAT


def test_arguments_of_export(small):
    net = trained(small)
    with pytest.raises(ValueError, match="target must be one of linger, standard, qdq, linger3, got 'onnx'"):
        file_of(net, target="onnx")
    with pytest.raises(ValueError, match="ask for one of them"):
        file_of(net, report=True, prove=True)


def test_prove_a_model_and_a_file(small, tmp_path):
    net = trained(small)
    net.train()
    flags = [m.training for m in net.modules()]
    proof = prove(net, X, tmp_path / "standard.onnx")
    assert flags == [m.training for m in net.modules()]
    assert proof and proof.ok and proof.differing == 0 and [r.evaluation for r in proof.rows] == [0]
    assert str(proof).endswith(f"all {proof.rows[0].elements} integers are the same")
    name = OnnxRunner(file_of(net)).inputs[0]
    assert np.array_equal(
        run((tmp_path / "standard.onnx").read_bytes(), {name: X.numpy()})["output"], net.eval()(X).detach()
    )
    again = prove(file_of(net), X)
    assert again.ok and again.rows[0].evaluation is None and "-" in str(again)
    with pytest.raises(TypeError, match="'strict' is an option of export; a file is written already"):
        prove(file_of(net), X, strict=True)


def test_export_proves(small, tmp_path):
    net = trained(small)
    proof = linger.onnx.export(net, X, tmp_path / "m.onnx", prove=True)
    assert proof.ok and (tmp_path / "m.onnx").exists()
    broken = onnx.load(tmp_path / "m.onnx")
    bias = next(i for i in broken.graph.initializer if i.data_type == TensorProto.INT32)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 9999, bias.name))
    from linger.onnx.proof import prove_written

    wrong = prove_written(net, X, broken.SerializeToString())
    assert not wrong.ok and wrong.rows[0].onnxruntime == 0 and wrong.rows[0].evaluation == wrong.differing > 0
    assert f"{wrong.differing} of" in str(wrong)


def test_proof_of_states_and_of_float_ends():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 6, batch_first=True)

        def forward(self, x):
            y, (h, c) = self.rnn(x)
            return y, h, c

    for platform in ("arcs", "venus"):
        x = torch.randn(1, 3, 4)
        proof = prove(trained(Stream(), x, platform), x)
        assert proof.ok and len(proof.rows) == 3
    nodes = [
        node("Quant", ["x"], ["q"], data_bits=8, scale_x=8.0, platform="arcs"),
        node("Dequant", ["q"], ["f"], scale_o=8.0),
        onnx.helper.make_node("Sigmoid", ["f"], ["y"]),
    ]
    data = model(nodes, {"x": [3]}, {"y": [3]}, {"k": np.zeros(1, np.int8)})
    with pytest.warns(UserWarning, match="compute in float"):
        (row,) = prove(data, np.array([1, 2, 3], np.float32)).rows
    assert row.distance < 1e-6 and "float, within" in row.cells()[-1]
    assert prove(network(), image()).ok
    assert json.loads(json.dumps(prove(network(), {"x": image()}).to_dict()))["differing"] == 0
