"""What a runner replays is what its nodes compute: every recorded case and float islands, run again with other values."""

import threading

import numpy as np
import onnx
import pytest
import torch
from golden.cases import CASES
from onnx import helper
from small_models import conv, image, model, network, node, weights

from linger.onnx import OnnxRunner
from linger.onnx.native_plan import NativeRun


def replayed(runner):
    """Whether the kinds of input seen so far have a plan."""
    return [bool(plans) for plans in runner._plans.values()]


@pytest.fixture
def steps(monkeypatch):
    """Operators of the plan of a runner, to the floats."""
    found = []
    monkeypatch.setattr(
        "linger.onnx.plan.NativeRun", lambda part, wanted: found.append(part) or NativeRun(part, wanted)
    )
    return lambda runner: [getattr(s.function, "_schema", s.function) for s in found[0]]


def other(inputs, seed):
    """Inputs of the same kinds, their values in another order."""
    rng = np.random.default_rng(seed)
    return {k: rng.permutation(v.reshape(-1)).reshape(v.shape) for k, v in inputs.items()}


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_recorded_cases(case):
    lengths = case.op == "LSTMInt" and len(case.floats) > 1
    runner = OnnxRunner(case.model)
    runner.run(case.floats)
    for integers in (False, True):
        x = case.floats if lengths else other(case.floats, 1 + integers)
        want, got = OnnxRunner(case.model).run(x, integers), runner.run(x, integers)
        for name, array in want.items():
            assert got[name].dtype == array.dtype and np.array_equal(got[name], array)


@pytest.mark.parametrize("op", ["Conv2dInt", "LinearInt", "iqCat", "SoftmaxInt", "net"])
def test_cases_have_plans(op):
    for case in [c for c in CASES if c.op == op]:
        runner = OnnxRunner(case.model)
        runner.run(case.floats)
        assert replayed(runner) == [True], case.id


def test_a_layer_takes_its_relu_along_and_views_are_one(steps):
    nodes = [
        node("Quant", ["x"], ["q"], data_bits=8, scale_x=16.0, platform="arcs"),
        conv(),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["t"], ["u"], perm=[0, 3, 1, 2]),
        helper.make_node("Unsqueeze", ["u"], ["v"], axes=[0]),
        helper.make_node("Squeeze", ["v"], ["w1"], axes=[0]),
        node("Dequant", ["w1"], ["y"], scale_o=8.0),
    ]
    data = model(nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 4, 6, 6]}, weights())
    runner = OnnxRunner(data)
    for seed in range(3):
        got = runner.run(image(seed))["y"]
        assert np.array_equal(got, OnnxRunner(data).run(image(seed))["y"])
    named = [getattr(s, "name", "view") for s in steps(runner)]
    assert [n for n in named if n != "view"] == ["linger::quantize_codes", "linger::conv_codes", "linger::dequantize"]
    assert len(named) <= 4


def test_a_relu_of_two_readers_stays():
    proto = onnx.load_from_string(network())
    proto.graph.node.append(node("Dequant", ["c"], ["z"], scale_o=8.0))
    proto.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 4, 6, 6]))
    data = proto.SerializeToString()
    runner = OnnxRunner(data)
    for seed in range(2):
        got, want = runner.run(image(seed)), OnnxRunner(data).run(image(seed))
        assert all(np.array_equal(got[k], want[k]) for k in want) and (got["z"] < 0).any()


def test_values_that_shapes_depend_on_have_no_plan():
    nodes = [helper.make_node("Gather", ["table", "i"], ["g"], axis=0), node("Dequant", ["g"], ["y"], scale_o=8.0)]
    nodes[0].attribute.append(helper.make_attribute("scale_o", 8.0))
    table = np.arange(-6, 6).reshape(4, 3).astype(np.int8)
    data = model(nodes, {"i": (onnx.TensorProto.INT64, [2])}, {"y": [2, 3]}, {"table": table})
    runner = OnnxRunner(data)
    for i in ([0, 3], [2, -1], [1, 1]):
        assert np.array_equal(runner.run(np.array(i))["y"], table[i] / 8)
    with pytest.raises(ValueError, match="indices must lie in"):
        runner.run(np.array([0, 4]))


def test_other_shapes_and_kinds_are_recorded_for_themselves():
    proto = onnx.load_from_string(network())
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    data = proto.SerializeToString()
    runner, rng = OnnxRunner(data), np.random.default_rng(0)
    for n in (1, 3, 1, 2, 3):
        x = rng.normal(0, 2, (n, 2, 6, 6)).astype(np.float32)
        codes = rng.integers(-128, 128, x.shape).astype(np.int8)
        for given in (x, codes, x.astype(np.float64)):
            assert np.array_equal(runner.run(given)["y"], OnnxRunner(data).run(given)["y"])
    assert len(runner._plans) == 6 and all(replayed(runner))
    for n in range(4, 30):
        assert len(runner.run(np.zeros((n, 2, 6, 6), np.float32))["y"]) == n
    assert len(runner._plans) == 16, "what is remembered is bounded"


def test_inputs_are_left_alone_and_results_are_the_callers():
    runner, x = OnnxRunner(network()), image()
    kept = x.copy()
    first, second = runner.run(x)["y"], runner.run(x)["y"]
    second[:] = 7
    assert np.array_equal(runner.run(x)["y"], first) and np.array_equal(x, kept)
    x.flags.writeable = False
    strided = np.asfortranarray(np.repeat(x, 2, 3))[:, :, :, ::2]
    assert np.array_equal(runner.run(strided)["y"], first) and np.array_equal(runner.run(x)["y"], first)


def test_inputs_that_are_parts_of_others():
    """A view of an input starts where the input does, wherever that is in memory."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Slice", ["t", "one", "three", "one"], ["s"]),
        node("Quant", ["s"], ["q"], data_bits=8, scale_x=8.0, platform="arcs"),
        node("Dequant", ["q"], ["y"], scale_o=8.0),
    ]
    bounds = {"one": np.array([1]), "three": np.array([3])}
    runner = OnnxRunner(model(nodes, {"x": [1, 2, 4]}, {"y": [1, 2, 2]}, bounds))
    many = torch.arange(40.0).reshape(5, 2, 4) / 8
    for i in (3, 0, 4, 2):
        part = many[i : i + 1]
        for given in (part, part.numpy()):
            assert np.array_equal(runner.run(given)["y"], part.numpy().transpose(0, 2, 1)[:, 1:3])
    assert replayed(runner) == [True]


def test_threads_share_a_runner():
    runner, wanted, wrong = OnnxRunner(network()), [OnnxRunner(network()).run(image(i))["y"] for i in range(8)], []

    def work(i):
        for _ in range(20):
            if not np.array_equal(runner.run(image(i))["y"], wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
