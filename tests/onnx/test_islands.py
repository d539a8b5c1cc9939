"""Float islands: each operator against onnx's reference evaluator, layers against torch bit for bit, borders to codes.

The reference computes in numpy, often through float64 or in another order of summation: 2e-6 relative to the largest value
covers the float32 rounding of sums over the at most 60 terms used here. Integers and bools are compared exactly.
"""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from small_models import image, model, node
from torch import nn

from linger.onnx import ModelError, OnnxRunner
from linger.onnx.islands import ISLANDS

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1.5, (2, 3, 5, 6)).astype(np.float32)
P = np.abs(X) + np.float32(0.1)


def f32(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
CASES = [
    *[(op, [P], {}) for op in ("Log", "Sqrt", "Reciprocal")],
    *[(op, [np.tanh(X)], {}) for op in ("Asin", "Acos", "Atan")],
    *[(op, [X], {}) for op in ("Abs", "Neg", "Exp", "Erf", "Floor", "Ceil", "Round", "Sign")],
    *[(op, [X], {}) for op in ("Sin", "Cos", "Tan", "Sinh", "Cosh")],
    *[(op, [X], {}) for op in ("Sigmoid", "Tanh", "Softplus", "Softsign", "Selu")],
    *[(op, [X], {}) for op in ("Relu", "Identity", "Dropout", "IsNaN", "Shape")],
    *[(op, [X], {"alpha": 0.3}) for op in ("LeakyRelu", "Elu", "ThresholdedRelu")],
    ("HardSigmoid", [X], {"alpha": 0.2, "beta": 0.4}), ("Size", [X], {}),
    *[(op, [X, f32(3, 1, 1)], {}) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu")],
    *[(op, [X, f32(3, 1, 1)], {}) for op in ("Equal", "Greater", "LessOrEqual")],
    ("Pow", [P, np.float32(2)], {}), ("Max", [X, f32(6), f32(5, 1)], {}), ("Sum", [X, f32(6), f32(5, 1)], {}),
    ("Div", [ints(7, -7, 9), ints(2)], {}), ("Not", [X > 0], {}), ("And", [X > 0, X > 1], {}),
    ("Where", [X > 0, X, f32(6)], {}),
    ("Clip", [X, np.float32(-1), np.float32(0.5)], {}), ("Clip", [X, None, np.float32(0.5)], {}),
    ("Softmax", [X], {"axis": 1}), ("Softmax", [X], {"axis": -1}), ("LogSoftmax", [X], {"axis": 1}),
    *[(op, [P], {"axes": [1, -1]}) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")],
    ("ReduceLogSumExp", [X], {"axes": [2], "keepdims": 0}), ("ReduceMean", [X], {"keepdims": 0}),
    ("ReduceSum", [X, ints(1)], {}),
    ("ArgMax", [X], {"axis": 1}), ("ArgMin", [X], {"axis": 2, "keepdims": 0}),
    ("Concat", [X, X[:, :1], X], {"axis": 1}), ("Gather", [X, ints(1, 0, -1)], {"axis": 2}),
    ("Gather", [X, ints(2)[0]], {"axis": 1}),
    ("Cast", [X], {"to": 7}), ("Cast", [X], {"to": 9}), ("Cast", [ints(1, 2)], {"to": 1}),
    ("CumSum", [X, ints(2)[0]], {}),
    ("Expand", [f32(3, 1, 1), ints(2, 3, 5, 6)], {}), ("Tile", [X, ints(1, 2, 1, 3)], {}),
    ("Range", [ints(2)[0], ints(9)[0], ints(3)[0]], {}),
    ("Slice", [X, ints(4, 0), ints(-100, 2), ints(2, 3), ints(-2, 1)], {}), ("Flatten", [X], {"axis": 2}),
    ("Flatten", [X], {"axis": 0}),
    ("Split", [X, ints(1, 2)], {"axis": 1}), ("Transpose", [X], {}), ("Squeeze", [X[:1], ints(0)], {}),
    ("Unsqueeze", [X, ints(1)], {}),
    ("Conv", [X, f32(4, 3, 3, 2), f32(4)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [X, f32(6, 1, 3, 3)], {"group": 3, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ("Conv", [X[0], f32(4, 5, 3)[:, :5]], {}),
    ("ConvTranspose", [X, f32(3, 2, 3, 3), f32(2)], {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", [X, f32(3, 2, 3, 3)], {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
    ("Gemm", [f32(4, 5), f32(7, 5), f32(7)], {"transB": 1}),
    ("Gemm", [f32(5, 4), f32(5, 7), f32(7)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [f32(2, 4, 5), f32(5, 3)], {}), ("MatMul", [f32(5), f32(5, 3)], {}),
    ("InstanceNormalization", [X, f32(3), f32(3)], {}),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [2, 3], "pads": [1, 0, 0, 2]}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", [X], {}), ("GlobalMaxPool", [X], {}), ("DepthToSpace", [f32(1, 8, 2, 3)], {"blocksize": 2}),
    ("DepthToSpace", [f32(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(3)], {}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}),
    ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], NEAREST),
    ("Resize", [X, None, None, ints(2, 3, 10, 3)], NEAREST),
    ("Resize", [X, None, None, ints(2, 3, 10, 9)], {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
]  # fmt: skip
NUMPY_TO_ELEM = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL}


def one_node(op, inputs, attributes, opset=13, n_out=1, as_inputs=1):
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    outs = [f"y{k}" for k in range(n_out)]
    fed = {
        n: (NUMPY_TO_ELEM[np.asarray(a).dtype.kind], list(np.shape(a))) for n, a in zip(names, inputs, strict=True) if n
    }
    fed = dict(list(fed.items())[:as_inputs])
    constants = {n: a for n, a in zip(names, inputs, strict=True) if n and n not in fed}
    nodes = [helper.make_node(op, names, outs, **attributes)]
    return model(nodes, fed, {o: (TensorProto.FLOAT, ["?"]) for o in outs}, constants, opset), {
        n: a for n, a in zip(names, inputs, strict=True) if n in fed
    }


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=[f"{op}-{i}" for i, (op, _, _) in enumerate(CASES)])
def test_operator_matches_the_reference(op, inputs, attributes):
    data, feed = one_node(op, inputs, attributes, n_out=2 if op == "Split" else 1)
    got = list(OnnxRunner(data).run(feed).values())
    want = ReferenceEvaluator(data).run(None, {n: np.asarray(a) for n, a in feed.items()})
    for g, w in zip(got, want, strict=True):
        assert g.shape == np.shape(w)
        if g.dtype == np.float32:
            np.testing.assert_allclose(g, w, rtol=2e-6, atol=2e-6 * max(1.0, float(np.abs(w).max())))
        else:
            assert np.array_equal(g, w)


def test_the_table_is_covered():
    tested = {op for op, _, _ in CASES} | {
        "BatchNormalization",
        "LSTM",
        "GRU",
        "RNN",
        "LayerNormalization",
        "ConstantOfShape",
        "Mish",
        "Gelu",
        "Celu",
        "HardSwish",
    }
    same = {"GreaterOrEqual", "Less", "Or", "Xor", "IsInf"}  # one table row of the same form as a tested one
    assert set(ISLANDS) - tested - same == set()


@pytest.mark.parametrize("op", ["Mish", "Gelu", "Celu", "HardSwish"])
def test_newer_activations_are_torchs(op):
    data, feed = one_node(op, [X], {})
    layer = {"Mish": nn.Mish(), "Gelu": nn.GELU(), "Celu": nn.CELU(), "HardSwish": nn.Hardswish()}[op]
    assert np.array_equal(OnnxRunner(data).run(feed)["y0"], layer(torch.from_numpy(X)).numpy())


def test_softmax_before_opset_13_joins_the_axes():
    data, feed = one_node("Softmax", [X], {"axis": 1}, opset=12)
    want = torch.from_numpy(X).flatten(1).softmax(1).reshape(X.shape).numpy()
    assert np.array_equal(OnnxRunner(data).run(feed)["y0"], want)


def test_constant_of_shape():
    fill = helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])
    data, feed = one_node("ConstantOfShape", [ints(2, 3)], {"value": fill})
    assert OnnxRunner(data).run(feed)["y0"].tolist() == [[2.5] * 3] * 2


def test_layers_are_torchs_to_the_last_bit():
    x = torch.from_numpy(X)
    conv, linear = nn.Conv2d(3, 4, 3, 2, 1, bias=True), nn.Linear(6, 7)
    norm, bn = nn.LayerNorm(6), nn.BatchNorm2d(3).eval()
    arrays = lambda *tensors: [t.detach().numpy() for t in tensors]  # noqa: E731
    cases = [
        ("Conv", arrays(conv.weight, conv.bias), {"strides": [2, 2], "pads": [1] * 4}, conv, x),
        ("Gemm", arrays(linear.weight, linear.bias), {"transB": 1}, linear, x[0, 0]),
        ("LayerNormalization", arrays(norm.weight, norm.bias), {}, norm, x),
        ("BatchNormalization", arrays(bn.weight, bn.bias, bn.running_mean, bn.running_var), {}, bn, x),
    ]
    for op, constants, attributes, layer, value in cases:
        data, feed = one_node(op, [value.numpy(), *constants], attributes)
        assert np.array_equal(OnnxRunner(data).run(feed)["y0"], layer(value).detach().numpy()), op


def rnn_case(kind, direction, bias):
    torch.manual_seed(1)
    layer = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}[kind](
        5, 4, bidirectional=direction == "bidirectional", bias=bias
    )
    order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[kind]  # torch's rows -> ONNX's

    def rows(t):
        chunks = t.detach().chunk(len(order))
        return torch.cat([chunks[g] for g in order]).numpy()

    ends = ["", "_reverse"][: 2 if direction == "bidirectional" else 1]
    w, r = ([rows(getattr(layer, f"weight_{k}_l0{e}")) for e in ends] for k in ("ih", "hh"))
    b = (
        [np.concatenate([rows(getattr(layer, f"bias_{k}_l0{e}")) for k in ("ih", "hh")]) for e in ends]
        if bias
        else None
    )
    return layer, [np.stack(w), np.stack(r), np.stack(b) if bias else None]


@pytest.mark.parametrize("lengths", [None, [3, 6, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_are_torchs(kind, direction, bias, lengths):
    layer, weights = rnn_case(kind, direction, bias)
    n_dirs, n_states = len(weights[0]), 2 if kind == "LSTM" else 1
    x, states = torch.from_numpy(f32(6, 3, 5)), [torch.from_numpy(f32(n_dirs, 3, 4)) for _ in range(n_states)]
    given = np.array(lengths, np.int32) if lengths else None
    attributes = {"hidden_size": 4, "direction": direction, **({"linear_before_reset": 1} if kind == "GRU" else {})}
    inputs = [x.numpy(), *weights, given, *[s.numpy() for s in states]]
    data, feed = one_node(kind, inputs, attributes, n_out=1 + n_states)
    got = list(OnnxRunner(data).run(feed).values())

    spans = lengths or [6] * 3
    want = torch.zeros(6, n_dirs, 3, 4)
    for item, n in enumerate(spans):  # each sequence on its own; reverse = forward on the reversed sequence
        part = x[:n, item : item + 1]
        part = part.flip(0) if direction == "reverse" else part
        hx = tuple(s[:, item : item + 1].contiguous() for s in states)
        y, last = layer(part, hx if n_states == 2 else hx[0])
        y = y.flip(0) if direction == "reverse" else y
        want[:n, :, item] = y.reshape(n, n_dirs, 4).detach()
        for k, end in enumerate(last if n_states == 2 else (last,)):
            np.testing.assert_allclose(got[1 + k][:, item], end[:, 0].detach(), atol=1e-6)  # batching reorders sums
    np.testing.assert_allclose(got[0], want, atol=1e-6)


def test_islands_stand_between_dequant_and_quant():
    nodes = [
        node("Quant", ["x"], ["q"], scale_x=16.0),
        node("Dequant", ["q"], ["f"], scale_o=16.0),
        helper.make_node("Sigmoid", ["f"], ["s"]),
        node("Quant", ["s"], ["p"], scale_x=128.0),
        node("Dequant", ["p"], ["y"], scale_o=128.0),
    ]
    runner = OnnxRunner(model(nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 2, 6, 6]}))
    x = torch.from_numpy(image())
    coarse = (x * 16 + 0.5).floor().clamp(-128, 127) / 16
    want = (coarse.sigmoid() * 128 + 0.5).floor().clamp(-128, 127).to(torch.int8)
    assert np.array_equal(runner.run(x, integers=True)["y"], want.numpy())


def test_integers_for_an_input_that_stays_float_are_refused():
    data, _ = one_node("Sigmoid", [X], {})
    with pytest.raises(ValueError, match="input 'i0' reaches the float operator Sigmoid 'Sigmoid_y0': pass floats"):
        OnnxRunner(data).run(np.zeros(X.shape, np.int8))


def test_shape_arithmetic_may_look_at_codes():
    nodes = [
        node("Quant", ["x"], ["q"], scale_x=16.0),
        helper.make_node("Shape", ["q"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["q", "t"], ["y"]),
    ]
    constants = {"zero": ints(0), "rest": ints(-1)}
    runner = OnnxRunner(model(nodes, {"x": ["N", 2, 3]}, {"y": (TensorProto.INT8, ["N", 6])}, constants))
    assert runner.run(np.zeros((4, 2, 3), np.float32))["y"].shape == (4, 6)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "text"),
    [
        ("Conv", [X, f32(4, 3, 3, 3)], {"auto_pad": "SAME_UPPER"}, "write the pads"),
        ("Conv", [X, f32(4, 2, 3, 3)], {}, "cannot be executed"),
        ("Conv", [X, f32(4, 3, 9, 9)], {}, "does not fit into input"),
        ("Conv", [X, f32(4, 3, 3, 3)], {"pads": [1 << 19] * 4}, "sizes in 0..1024"),
        ("Add", [X, f32(4)], {}, "cannot be broadcast"),
        ("Concat", [X, f32(3)], {"axis": 0}, "differ in kind"),
        ("Softmax", [X], {"axis": 4}, "axis 4 is outside 4 dimensions"),
        ("GRU", [f32(2, 1, 3), f32(1, 6, 3), f32(1, 6, 2)], {}, "linear_before_reset"),
        ("LSTM", [f32(2, 1, 3), f32(1, 8, 3), f32(1, 8, 2)], {"direction": "sideways"}, "do not fit together"),
        ("LSTM", [f32(2, 1, 3), f32(1, 8, 3), f32(1, 8, 2), f32(1, 8)], {}, r"input 3 must have shape \(1, 16\)"),
        ("LSTM", [f32(2, 1, 3), f32(1, 8, 4), f32(1, 8, 2)], {}, r"input 1 must have shape \(1, 8, 3\)"),
        ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}, "asymmetric, floor"),
        ("Cast", [X], {"to": 8}, "'to' must be"),
        ("Gather", [f32(3), f32(3)], {}, "indices must be integers"),
        ("Slice", [X, ints(0), ints(1, 2)], {}, "do not fit together"),
        ("Range", [ints(0)[0], ints(9)[0], ints(0)[0]], {}, "step not 0"),
        ("MaxPool", [X], {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}, "pads below the kernel"),
    ],
)
def test_unsupported_forms_are_named(op, inputs, attributes, text):
    data, feed = one_node(op, inputs, attributes)
    with pytest.raises(ModelError, match=f"{op} '{op}_y0': .*{text}"):
        OnnxRunner(data).run(feed)
