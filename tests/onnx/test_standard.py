"""Files in standard operators at the edges of their arithmetic: bounds of exact sums, shifts, NaN, widths; and refusals."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import INT8, conv, image, model, network, node
from standard_runs import assert_exact, run

from linger.errors import UnsupportedError
from linger.onnx import ModelError, OnnxRunner, to_standard

RELU = [helper.make_node("Relu", ["q"], ["p"])]
UNUSED = {"k": np.zeros(1, np.int8)}


def quant(scale=1.0, **changes):
    return node("Quant", ["x"], ["q"], **{"data_bits": 8, "scale_x": scale, "platform": "arcs", **changes})


def dequant(x, scale, y="y"):
    return node("Dequant", [x], [y], scale_o=scale)


def layer(weight, bias, shift=0, relu=False, op="Conv2dInt", bits=8, x_shape=(1, 1), **changes):
    """Bytes of one layer with a sum of given weights, on ``x_shape`` channels of one pixel, and the shape of x."""
    weight, axes = np.asarray(weight, np.int8), {"LinearInt": 0, "Conv1dInt": 1, "Conv2dInt": 2}[op]
    shape = [*x_shape, *[1] * axes]
    attributes = {"data_bits": 8, "parameter_bits": 8, "o_bits": bits, "platform": "arcs", "quant_mode": "floor_add"}
    attributes |= {"scale_x": 1.0, "scale_w": 2.0**shift, "scale_o": 1.0, **changes}
    if axes:
        weight, ones = weight.reshape(*weight.shape, *[1] * axes), [1] * axes
        attributes |= {"kernel_shape": ones, "strides": ones, "pads": [0] * 2 * axes, "dilations": ones}
    made = node(op, ["p" if relu else "q", "w", "b"], ["c"], **attributes)
    nodes = [quant(), *RELU * relu, made, dequant("c", attributes["scale_o"])]
    out = [shape[0], weight.shape[0], *shape[2:]]
    return model(nodes, {"x": shape}, {"y": out}, {"w": weight, "b": np.asarray(bias, np.int32)}), shape


def operators(proto):
    return [n.op_type for n in proto.graph.node]


# 128 * sum|w| + |bias + half| = 2**24 and one more: the last sum that float32 takes, and the first that it does not
@pytest.mark.parametrize(("more", "wide"), [(0, False), (1, True)])
@pytest.mark.parametrize("shift", [0, 1, 7, 20])
@pytest.mark.parametrize("op", ["Conv2dInt", "LinearInt"])
def test_sums_at_the_bound(more, wide, shift, op):
    half = 1 << shift - 1 if shift else 0
    weight = np.full((2, 1024), 127)
    weight[:, 900:] = 3
    bias = (1 << 24) - 128 * np.abs(weight).sum(1)[0] - half + more
    data, shape = layer(weight, [bias, -bias - 2 * half], shift, op=op, x_shape=(1, 1024))
    x = np.full(shape, -128, np.float32)
    assert_exact(data, {"x": np.abs(x)})
    m = assert_exact(data, {"x": x}, levels=("none", "all"))
    casts = {a.i for n in m.graph.node for a in n.attribute if a.name == "to"}
    assert (TensorProto.DOUBLE in casts) is wide


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("op", ["Conv2dInt", "LinearInt"])
def test_sums_above_the_bound_are_cut_into_slices(relu, op):
    rng, count = np.random.default_rng(1), 6000 if relu else 3000
    data, shape = layer(rng.integers(-128, 128, (3, count)), [1 << 30, 0, -5], 12, relu, op, x_shape=(2, count))
    for x in (rng.integers(-128, 128, shape), np.full(shape, -128), np.full(shape, 127)):
        m = assert_exact(data, {"x": x.astype(np.float32)}, levels=("none", "all"))
    split = next(n for n in m.graph.node if n.op_type == "Split")
    assert len(split.output) == 2  # behind a ReLU sums reach half as far


def test_long_sums_of_one_group_are_cut_into_digits():
    """A depthwise kernel has one channel: nothing to slice."""
    rng, shape = np.random.default_rng(2), [1, 2, 61, 60]
    weight = rng.integers(-128, 128, (2, 1, 60, 60)).astype(np.int8)
    scales = {"scale_x": 1.0, "scale_w": 2.0**15, "scale_o": 1.0}
    nodes = [quant(), conv(kernel_shape=[60, 60], pads=[0] * 4, group=2, **scales), dequant("c", 1.0)]
    data = model(nodes, {"x": shape}, {"y": [1, 2, 2, 1]}, {"w": weight, "b": np.array([9, -(1 << 20)], np.int32)})
    for fill in (-128, 127):
        x = np.full(shape, fill, np.float32)
        x[:, :, ::3] = rng.integers(-128, 128, x[:, :, ::3].shape)
        m = assert_exact(data, {"x": x}, levels=("none", "all"))
    assert operators(m).count("Conv") > 1


@pytest.mark.parametrize("shift", [0, 24, 25, 40, 63])
def test_shifts(shift):
    """Results of long shifts are 0 or -1: what half of the step adds decides."""
    bias = [(1 << min(shift, 31) - 1) - 1 if shift else 5, -(1 << 31), 7]
    data, shape = layer([[127] * 3, [-127] * 3, [0] * 3], bias, shift, x_shape=(4, 3))
    x = np.array([[-128, 127, 0], [127] * 3, [-128] * 3, [0] * 3], np.float32)
    assert_exact(data, {"x": x.reshape(shape)})


@pytest.mark.parametrize("op", ["LinearInt", "Conv1dInt"])
@pytest.mark.parametrize("left", [1, 12, 31, -3])
@pytest.mark.parametrize("act", [0, 1])
def test_32_bit_results_go_to_the_left(op, left, act):
    """Linear layers saturate, convolutions lose the upper bits."""
    weight, bias = np.array([[127] * 5, [-128] * 5, [1, 0, 0, 0, 0]]), [1 << 30, -(1 << 31), 3]
    changes = {"scale_w": 64.0, "scale_o": 2.0 ** (6 + left), "act_type": act, "bits": 32}
    data, shape = layer(weight, bias, op=op, x_shape=(2, 5), **changes)
    assert_exact(data, {"x": np.linspace(-130, 130, 10).reshape(shape).astype(np.float32)})


def test_what_is_no_number():
    x = image()
    x.flat[:8] = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, -0.0, np.nan]
    assert_exact(network(), {"x": x}, levels=("none", "all"))
    nodes = [quant(2.0**20, data_bits=32), dequant("q", 2.0**20)]
    wide = model(nodes, {"x": [12]}, {"y": [12]}, UNUSED)
    # above 2**23 float32 has no half: the sum is one of float64
    ties = np.array([4194304.5, 4194305.5, 8388607.5, 8388609, -4194304.5, 2**31, -(2.0**31), 3e9], np.float32) / 2**20
    assert_exact(wide, {"x": np.concatenate([ties, [np.nan, np.inf, -np.inf, 0]]).astype(np.float32)})


def test_inputs_and_outputs_as_codes():
    codes = np.random.default_rng(4).integers(-128, 128, (1, 2, 6, 6)).astype(np.int8)
    runner = OnnxRunner(network())
    m = to_standard(network(), inputs="codes", outputs="codes")
    assert [v.type.tensor_type.elem_type for v in (m.graph.input[0], m.graph.output[0])] == [INT8, INT8]
    assert np.array_equal(run(m, {"x": codes})["y"], runner.run({"x": codes}, integers=True)["y"])
    m = to_standard(network(), inputs="codes")
    assert np.array_equal(run(m, {"x": codes})["y"], runner.run({"x": codes})["y"])
    with pytest.raises(ValueError, match="inputs must be 'floats' or 'codes', got 'ints'"):
        to_standard(network(), inputs="ints")


def test_path_bytes_and_model(tmp_path):
    (tmp_path / "a.onnx").write_bytes(network())
    made = [to_standard(s).SerializeToString(deterministic=True) for s in (tmp_path / "a.onnx", network())]
    assert made[0] == made[1]
    proto = onnx.load_from_string(network())
    helper.set_model_props(proto, {"linger.engine": "562ddc7"})
    m = to_standard(proto)
    said = {e.key: e.value for e in m.metadata_props}
    assert said == {"linger.engine": "562ddc7", "platform": "arcs", "linger.form": "standard"}
    assert m.producer_name == "linger" and [(o.domain, o.version) for o in m.opset_import] == [("", 13)]
    assert {n.domain for n in m.graph.node} == {""}


def test_old_names_are_translated_too():
    proto = onnx.load_from_string(network())
    next(n for n in proto.graph.node if n.op_type == "Conv2dInt").op_type = "QConv2d"
    assert_exact(proto.SerializeToString(), {"x": image()})


def test_names_say_where_a_node_comes_from():
    proto = onnx.load_from_string(network())
    proto.graph.node[1].name = "stem.0"
    names = [n.name for n in to_standard(proto).graph.node]
    assert {"stem.0/Conv", "stem.0/Floor", "stem.0/Clip"} <= set(names) and len(names) == len(set(names))


def test_what_has_no_exact_form_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="Conv2dInt 'Conv2dInt_c': quant_mode 'floor'; the chips round half up"):
        to_standard(network(quant_mode="floor"))

    attributes = {"scale_x": 1.0, "scale_o": 1.0, "data_bits": 8, "o_bits": 8, "platform": "arcs", "ceil_mode": 0}
    pool = node("AvgPool2dInt", ["q"], ["p"], kernel_shape=[256, 128], strides=[1, 1], pads=[0] * 4, **attributes)
    data = model([quant(), pool, dequant("p", 1.0)], {"x": [1, 1, 256, 128]}, {"y": [1, 1, 1, 1]}, UNUSED)
    with pytest.raises(UnsupportedError, match="AvgPool2dInt 'AvgPool2dInt_p': a window of 256x128 elements"):
        to_standard(data)

    pair = [node("Quant", [n], [f"q{n}"], data_bits=32, scale_x=1.0, platform="arcs") for n in "ab"]
    attributes = {"scale_x": 1.0, "scale_y": 1.0, "scale_o": 1.0, "x_bits": 32, "y_bits": 32, "o_bits": 32}
    div = node("iqDiv", ["qa", "qb"], ["d"], platform="arcs", **attributes)
    data = model([*pair, div, dequant("d", 1.0)], {"a": [4], "b": [4]}, {"y": [4]}, UNUSED)
    with pytest.raises(UnsupportedError, match="iqDiv 'iqDiv_d': standard operators have no form of the quotient"):
        to_standard(data)

    broken = onnx.load_from_string(network())
    broken.graph.node[1].op_type = "Conv3dInt"
    with pytest.raises(ModelError, match="unknown operator 'Conv3dInt'"):
        to_standard(broken)


def test_float_operators_are_said_once():
    nodes = [quant(), dequant("q", 1.0, "f"), helper.make_node("Exp", ["f"], ["e"], name="e")]
    nodes += [helper.make_node("Softmax", ["e"], ["y"], name="s", axis=1)]
    data = model(nodes, {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, UNUSED)
    with pytest.warns(UserWarning, match="Exp 'e', Softmax 's' compute in float: another library") as said:
        m = to_standard(data)
    assert len(said) == 1
    x = np.random.default_rng(0).integers(-3, 3, (2, 3, 4)).astype(np.float32)
    assert np.allclose(run(m, {"x": x})["y"], OnnxRunner(data).run({"x": x})["y"], atol=1e-6)  # opset 12 joins the axes


def test_codes_do_not_reach_float_operators():
    nodes = [quant(), dequant("q", 1.0), helper.make_node("Exp", ["x"], ["z"])]
    data = model(nodes, {"x": [3]}, {"y": [3], "z": [3]}, UNUSED)
    said = pytest.warns(UserWarning, match="Exp 'Exp_z' compute in float")
    with (
        said,
        pytest.raises(UnsupportedError, match="Exp 'Exp_z': a float operator reads an input that is given as codes"),
    ):
        to_standard(data, inputs="codes")


def test_open_axes_and_undeclared_ones():
    proto = onnx.load_from_string(network())
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    for batch in (1, 3):
        assert_exact(proto.SerializeToString(), batch=batch)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UnsupportedError, match="does not say the shape of its input 'x'"):
        to_standard(proto)
