"""Nodes of chip functions in files: the later engine's GLU, GELU and swish, every refusal."""

import numpy as np
import pytest
from functions_oracle import GELU, SWISH, fixed, glu, rhu, sat, sigmoid, softmax, tanh, wide
from golden.cases import ARRAYS
from small_models import model, node

from linger.errors import ModelError
from linger.onnx import OnnxRunner

CODES = np.arange(-128, 128, dtype=np.int8).reshape(4, 64)


def file(op, platform, shape, q_x=4, q_o=7, x_bits=8, x_name="data_bits", result=None, **attributes):
    """Quant, the node, Dequant."""
    common = {"platform": platform, "scale_x": 2.0**q_x, "scale_o": 2.0**q_o, "x_bits": x_bits, "o_bits": 8}
    nodes = [
        node("Quant", ["x"], ["q"], platform=platform, scale_x=2.0**q_x, **{x_name: x_bits}),
        node(op, ["q"], ["y"], **{k: v for k, v in {**common, **attributes}.items() if v is not None}),
        node("Dequant", ["y"], ["out"], scale_o=2.0**q_o),
    ]
    return model(nodes, {"x": list(shape)}, {"out": list(result or shape)})


def run(data, codes):
    (got,) = OnnxRunner(data).run({"x": codes}, integers=True).values()
    return got


@pytest.mark.parametrize("case", [c for c in ARRAYS if c.op == "later_GluInt"], ids=lambda c: c.id)
def test_the_later_engines_glu(case):
    x, want, params = case.arrays["in_0"], case.arrays["out_0"], case.about["params"]
    data = file("GluInt", case.platform, x.shape, params["q_x"], params["q_o"], result=want.shape, dim=params["dim"])
    assert np.array_equal(run(data, x), want)


@pytest.mark.parametrize(("op", "table"), [("QGelu", GELU), ("QSwish", SWISH)])
@pytest.mark.parametrize(("bits", "q_o"), [(8, 4), (8, 7), (16, 11), (32, 27)])
def test_gelu_and_swish(op, table, bits, q_o):
    for q_x in (0, 5, 20):
        want = sat(rhu(wide(table, fixed(CODES, q_x, 27, 32), 32), 27 - q_o), bits)
        got = run(file(op, "venusA", CODES.shape, q_x, q_o, o_bits=bits), CODES)
        assert got.dtype.itemsize * 8 == bits
        assert np.array_equal(got, want)


@pytest.mark.parametrize("platform", ["arcs", "venusA"])
@pytest.mark.parametrize("q_x", [0, 4, 12, 13])
def test_what_the_engine_means_where_it_computes_something_else(platform, q_x):
    x = fixed(CODES, q_x, 27, 32)
    assert np.array_equal(run(file("iqSigmoid", platform, CODES.shape, q_x), CODES), sigmoid(x, platform, 8))
    for bits in (8, 16):
        got = run(file("iqTanh", platform, CODES.shape, q_x, x_bits=bits), CODES)
        assert np.array_equal(got, tanh(x, platform, 8))


def test_a_row_is_all_that_follows_the_axis():
    rows = CODES.reshape(2, 2, 64)
    want = sat(rhu(softmax(fixed(rows.reshape(2, 128), 4, 25, 32), "arcs"), 8), 8).reshape(rows.shape)
    for platform, axis in (("arcs", 1), ("arcs", 2), ("venusA", 1), ("venusA", -2)):
        if platform == "arcs":  # every axis >= 0 is read as 1
            assert np.array_equal(run(file("SoftmaxInt", platform, rows.shape, axis=axis), rows), want)
        got = run(file("SoftmaxInt", platform, rows.shape, dim=axis), rows)
        oracle = softmax(fixed(rows.reshape(2, 128), 4, 25, 32), platform)
        assert np.array_equal(got, sat(rhu(oracle, 8), 8).reshape(rows.shape))


@pytest.mark.parametrize(
    ("op", "platform", "settings", "text"),
    [
        ("iqSigmoid", "arcs", {"q_o": 6}, "scale_o must be 128"),
        ("iqSigmoid", "arcs", {"q_x": 28}, r"scale_x must be 2\*\*-3..2\*\*27, got 2\*\*28"),
        ("iqSigmoid", "arcs", {"x_bits": 16}, "input 0 must be int8 on arcs, got int16"),
        ("iqSigmoid", "venus", {}, "input 0 must be int16 on venus, got int8"),
        ("iqSigmoid", "arcs", {"o_bits": 16}, "'o_bits' must be 8"),
        ("iqTanh", "venusA", {"x_bits": 32}, "input 0 must be int8 or int16 on venusA, got int32"),
        ("SoftmaxInt", "venus", {}, "no defined arithmetic on venus: no simulator confirms it"),
        ("LogSoftmaxInt", "arcs", {}, "logarithm of raw integers"),
        ("SoftmaxInt", "arcs", {"x_bits": 16}, "input 0 must be int8 on arcs"),
        ("SoftmaxInt", "venusA", {"axis": 2}, r"'axis' must be in \[-2, 1\], got 2"),
        ("SoftmaxInt", "venusA", {"q_o": 16}, "15 - q_o = -1 bits"),
        ("SoftmaxInt", "venusA", {"q_x": 26}, r"scale_x must be 2\*\*-5..2\*\*25"),
        ("SoftmaxInt", "venusA", {"shape": (1, 2049)}, "2049 elements, the chip takes at most 2048"),
        ("SoftmaxInt", "arcs", {"shape": (9,), "axis": 0}, "arcs reads axis 0 as 1, which an input of rank 1 lacks"),
        ("GluInt", "venus", {}, "does not exist on venus"),
        ("GluInt", "arcs", {"dim": 2}, "'dim' must be an axis of even length"),
        ("GluInt", "arcs", {"shape": (4, 7)}, "'dim' must be an axis of even length"),
        ("GluInt", "arcs", {"q_o": 36}, "31 \\+ q_x - q_o = -1 bits"),
        ("QGelu", "arcs", {}, "arcs has no gelu"),
        ("QSwish", "venusA", {"o_bits": 12}, "'o_bits' must be one of"),
    ],
)
def test_refusals(op, platform, settings, text):
    settings = {"shape": CODES.shape, **settings}
    result = (*settings["shape"][:-1], settings["shape"][-1] // 2) if op == "GluInt" else None
    with pytest.raises(ModelError, match=text):
        OnnxRunner(file(op, platform, result=result, **settings))


def test_shifts_of_glu_to_the_left():
    data = file("GluInt", "venusA", CODES.shape, 1, 20, result=(4, 32), o_bits=32)
    assert np.array_equal(run(data, CODES), glu(CODES, 1, "venusA", -4, 32))
