"""Every recorded case in standard operators, in onnxruntime, with ``==``: the chips' own integers."""

import numpy as np
import pytest
from golden.cases import ARRAYS, CASES
from onnx import TensorProto, helper
from standard_runs import run

from linger.onnx import to_standard
from linger.onnx.standard.curves import write_segments
from linger.onnx.standard.graph import StandardGraph

STATES = ("hn", "cn", "hf", "cf", "hb", "cb")  # recorded without their axes of size one
FUNCTIONS = [c for c in ARRAYS if any(f in c.name for f in ("sigmoid", "tanh")) and c.op.startswith("kernel")]


def assert_recorded(case, got):
    assert set(got) == set(case.outputs)
    for name, want in case.outputs.items():
        array = got[name].reshape(want.shape) if name in STATES else got[name]
        assert array.dtype == want.dtype and np.array_equal(array, want)


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_integers_are_the_chips(case):
    kept = all(array.dtype != np.float32 for array in case.outputs.values())
    out = "codes" if kept else "floats"
    assert_recorded(case, run(to_standard(case.model, outputs=out), case.floats))
    if case.op != "Quant":  # they have floats only
        assert_recorded(case, run(to_standard(case.model, inputs="codes", outputs=out), case.inputs))


def segments(function, platform, x):
    """The function of int32 ``x`` by a graph of its own, as wide as the chip's table."""
    g = StandardGraph()
    y = write_segments(g, g.to("x", np.float64), [function], platform)
    g.op("Cast", y, out="y", to=TensorProto.INT32)
    ports = [helper.make_tensor_value_info(name, TensorProto.INT32, list(x.shape)) for name in ("x", "y")]
    graph = helper.make_graph(g.nodes, "g", ports[:1], ports[1:], g.initializers)
    return run(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), {"x": x})["y"]


@pytest.mark.parametrize("case", FUNCTIONS, ids=[case.id for case in FUNCTIONS])
def test_functions_inside_a_graph_are_the_chips(case):
    function, arrays = case.op.removeprefix("kernel_"), case.arrays
    if "in_q" in arrays:
        rows = [np.clip(arrays["in_x8"].astype(np.int64) << 27 - q, -(2**31), 2**31 - 1) for q in arrays["in_q"]]
        x = np.stack(rows).astype(np.int32)
    else:
        x = arrays["in_x"].astype(np.int32)
    got, bits = segments(function, case.platform, x[..., None])[..., 0], 16 if case.platform == "venus" else 32
    assert np.array_equal(got, arrays[f"out_y{bits}"])
    if case.platform != "venusA":  # there narrow results are rounded from more
        assert np.array_equal(
            np.clip((got.astype(np.int64) + (1 << bits - 9)) >> bits - 8, -128, 127), arrays["out_y8"]
        )
