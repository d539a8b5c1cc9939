"""Files that must be refused: one ModelError that names node and reason, never a crash and never another exception."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import conv, image, model, network, node, weights

from linger.onnx import ModelError, OnnxRunner

SHAPE = {"x": [1, 2, 6, 6]}
QUANT = node("Quant", ["x"], ["q"], data_bits=8, scale_x=16.0)


def refused(data, text):
    with pytest.raises(ModelError, match=text):
        OnnxRunner(data).run(image())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scale_o": 7.0}, "Conv2dInt 'Conv2dInt_c': attribute 'scale_o' must be a power of two, got 7"),
        ({"scale_w": 0.0}, "'scale_w' must be a power of two"),
        ({"scale_w": -8.0}, "'scale_w' must be a power of two"),
        ({"scale_w": float("nan")}, "'scale_w' must be a finite number"),
        ({"scale_w": float("inf")}, "'scale_w' must be a finite number"),
        ({"scale_w": "8"}, "'scale_w' must be a finite number"),
        ({"scale_x": 8.0}, r"input 0 \('q'\) has scale 2\*\*4 where it is made, 2\*\*3 is written here"),
        ({"scale_o": 1024.0}, r"shift of q_x \+ q_w - q_o = -1 bits"),
        ({"scale_o": 2.0**-60}, "= 69 bits"),
        ({"scale_w": None}, "attribute 'scale_w' is missing"),
        ({"kernel_shape": [5, 5]}, "the weight has"),
        ({"kernel_shape": [3]}, "'kernel_shape' must be a list of 2"),
        ({"strides": [0, 1]}, "'strides' must hold sizes >= 1"),
        ({"strides": [-1, 1]}, "'strides' must hold sizes >= 1"),
        ({"pads": [1, 1]}, "'pads' must be a list of 4"),
        ({"pads": [-1, 0, 0, 0]}, "'pads' must lie within the kernel"),
        ({"pads": [1 << 40, 0, 0, 0]}, "'pads' must lie within the kernel"),
        ({"dilations": [1 << 19, 1]}, "does not fit into the padded input"),
        ({"group": 0}, "group 0 does not fit"),
        ({"group": 2}, "group 2 does not fit"),
        ({"group": -1}, "group -1 does not fit"),
        ({"group": 1.5}, "'group' must be an integer"),
        ({"data_bits": 16}, "'x_bits' must be 8"),
        ({"parameter_bits": 4}, "4-bit weights"),
        ({"parameter_bits": 3}, "'w_bits' must be 4 or 8"),
        ({"o_bits": 32}, "'o_bits' must be one of"),
        ({"act_type": 2}, "'act_type' must be 0 or 1"),
        ({"platform": "jupiter"}, "'platform' must be one of"),
        ({"platform": "venus"}, "'platform' is 'venus', but Quant 'Quant_q' says 'arcs'"),
    ],
)
def test_wrong_attributes(changes, text):
    refused(network(**changes), text)


def test_wrong_quant_and_dequant():
    refused(
        network(dequant={"scale_o": 4.0}), r"Dequant 'Dequant_y': input 0 \('f'\) has scale 2\*\*3 where it is made"
    )
    refused(network(quant={"data_bits": 16}), "input 0 must be int8, got int16")
    refused(network(quant={"data_bits": 12}), "'data_bits' must be 8, 16 or 32, got 12")
    refused(network(quant={"scale_x": 3.0}), "must be a power of two")
    refused(network(quant={"zero_point": 1}), "'zero_point' must be 0")


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([QUANT, node("Frobnicate", ["q"], ["y"])], "Frobnicate 'Frobnicate_y': unknown operator 'Frobnicate'"),
        ([QUANT, node("", ["q"], ["y"])], "no operator type"),
        ([QUANT, node("Relu", ["nowhere"], ["y"])], "input 'nowhere' is not defined"),
        ([node("Relu", ["y"], ["y"])], "a cycle"),
        ([node("Relu", ["b2"], ["a"]), node("Relu", ["a"], ["b2"]), node("Relu", ["a"], ["y"])], "a cycle"),
        ([QUANT, node("Relu", ["q"], ["q"])], "output 'q' is defined already"),
        ([QUANT, node("Relu", ["q"], ["x"])], "output 'x' is defined already"),
        ([QUANT, node("Relu", ["q"], ["z"])], "graph output 'y' is not defined"),
        ([QUANT, node("Relu", [""], ["y"])], "input 0 is missing"),
        ([QUANT, node("Relu", [], ["y"])], "input 0 is missing"),
        ([QUANT, node("Relu", ["q"], [])], "has no output"),
        ([QUANT, node("Relu", ["q"], ["y", "y2"])], "output 'y2' is not produced"),
        (
            [QUANT, node("Sigmoid", ["q"], ["y"])],
            r"Sigmoid 'Sigmoid_y': input 0 \('q'\) must be float32.*Dequant is missing",
        ),
        ([QUANT, node("Add", ["x", "q"], ["y"])], "Dequant is missing"),
        ([conv("x", "y")], "Quant is missing"),
        ([node("Dequant", ["x"], ["y"], scale_o=16.0)], "Quant is missing"),
        ([QUANT, node("Reshape", ["q", "b"], ["y"])], "shape must be an int64 list"),
        ([QUANT, node("Reshape", ["q", "shape3"], ["y"])], "cannot take the shape"),
        ([QUANT, node("Transpose", ["q"], ["y"], perm=[0, 1, 1, 2])], "does not order the 4 dimensions"),
        ([QUANT, node("Squeeze", ["q"], ["y"], axes=[1])], "not all of size 1"),
        ([QUANT, node("Squeeze", ["q"], ["y"], axes=[9])], "not different axes"),
        ([QUANT, node("Unsqueeze", ["q"], ["y"], axes=[0, 0])], "not different axes"),
        ([QUANT, node("Unsqueeze", ["q"], ["y"], axes=list(range(90)))], "would have shape"),
        ([QUANT, node("Slice", ["q", "s0", "s2", "s1", "s2"], ["y"])], "one axis and step 1"),
        ([QUANT, node("Slice", ["q", "s2", "s0", "s1"], ["y"])], "is empty"),
        ([QUANT, node("MaxPool", ["q"], ["y"], kernel_shape=[7, 7], strides=[1, 1], pads=[0] * 4)], "does not fit"),
        (
            [QUANT, node("MaxPool", ["q"], ["y"], kernel_shape=[2, 2], strides=[1, 1], pads=[9] * 4)],
            "within the kernel",
        ),
        ([QUANT, node("iqAdd", ["q", "q"], ["y"], scale_x=16.0, scale_y=8.0, scale_o=8.0)], "has scale"),
        ([QUANT, node("iqAdd", ["q", "q"], ["y"], scale_x=16.0, scale_y=16.0, scale_o=32.0)], "shift of q_x - q_o"),
        ([QUANT, node("iqCat", ["q"], ["y"], dim=1, scale_x_0=16.0, scale_o=16.0)], "at least two inputs"),
        ([QUANT, node("iqCat", ["q", "q"], ["y"], dim=4, scale_x_0=16.0, scale_x_1=16.0, scale_o=16.0)], "axis 4"),
        (
            [QUANT, node("iqCat", ["q", "q"], ["y"], dim=1, scale_x_0=16.0, scale_x_1=16.0, scale_o=4096.0)],
            "left shift of 8",
        ),
        ([QUANT, node("Requant", ["q"], ["y"], scale_x=16.0, scale_o=8.0, o_bits=32)], "needs scale_o >= scale_x"),
        (
            [QUANT, node("LinearInt", ["q", "w"], ["y"], scale_x=16.0, scale_w=2.0, scale_o=2.0)],
            "int8 initializer of 2 dimensions",
        ),
        ([QUANT, node("Conv2dInt", ["q", "q"], ["y"], scale_x=16.0)], "must be an initializer"),
    ],
)
def test_wrong_graphs(nodes, text):
    constants = {**weights(), "shape3": np.array([7, 7]), "s0": np.array([0]), "s1": np.array([1]), "s2": np.array([2])}
    refused(model(nodes, SHAPE, {"y": ["?"]}, constants), text)


def test_a_narrowing_concatenation_is_refused_on_venus_a():
    cat = {"dim": 1, "scale_x_0": 16.0, "scale_x_1": 16.0, "scale_o": 8.0}
    nodes = [QUANT, node("iqCat", ["q", "q"], ["y"], platform="venusA", **cat)]
    refused(model(nodes, SHAPE, {"y": ["?"]}), "venusA cannot narrow input 0")


def test_wrong_declared_shape_of_an_output():
    data = onnx.load_from_string(network())
    data.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 35
    refused(data.SerializeToString(), r"graph output 'y': declared shape \(1, 35\), computed \(1, 36\)")


def changed(edit):
    data = onnx.load_from_string(network())
    edit(data)
    return data.SerializeToString()


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 5), "initializer 'w': the data does not fill shape"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -4), r"shape \(-4, 2, 3, 3\) is not accepted"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 60), "is not accepted"),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 30), "is not accepted"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "element type 99"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING), "element type 8"),
        (lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL), "external data"),
        (lambda m: m.graph.initializer[0].external_data.add(key="location", value="/etc/passwd"), "external data"),
        (lambda m: setattr(m.graph.initializer[1], "name", "w"), "used twice"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse"),
        (lambda m: m.functions.add(), "functions"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", -2), "size -2"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", 1 << 50), "size 11258"),
        (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", 8), "element type 8"),
        (lambda m: m.graph.input[0].type.sequence_type.SetInParent(), "only tensors"),
        (lambda m: m.graph.ClearField("output"), "no output"),
        (lambda m: m.graph.output.add(name="y"), "graph output 'y'"),
        (lambda m: m.graph.node[0].attribute.add(name="scale_x", type=1), "used twice"),
        (lambda m: m.graph.node[0].attribute.add(name="body", type=5), "subgraphs"),
        (lambda m: m.graph.node[0].attribute.add(name="late", type=1, ref_attr_name="x"), "references"),
        (lambda m: m.graph.node[1].attribute.add(name="note", type=3, s=b"\xff\xfe"), "not UTF-8"),
        (lambda m: m.graph.node[1].attribute.add(name="note", type=3, s=b"a", i=3), "more than one kind of value: i"),
    ],
)
def test_broken_parts(edit, text):
    refused(changed(edit), text)


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a model", b"\x08\x07", b"\xff" * 100])
def test_what_is_no_model(data):
    with pytest.raises(ModelError):
        OnnxRunner(data)


def test_every_truncation_is_refused():
    data = network()
    complete = OnnxRunner(data).run(image())["y"]
    for n in range(len(data)):
        try:
            got = OnnxRunner(data[:n]).run(image())
        except ModelError:
            continue
        assert np.array_equal(got["y"], complete), n  # only trailing fields that say nothing may be missing


def check_survives(data):
    try:
        runner = OnnxRunner(bytes(data))
    except ModelError:
        return
    if all(v.dtype.is_floating_point and v.shape == (1, 2, 6, 6) for v in runner._graph.inputs) and runner.inputs == (
        "x",
    ):
        try:
            runner.run(image())
        except ModelError:
            return


def test_every_single_bit_flip_of_a_small_part_survives():
    data = bytearray(network())
    for at in range(0, len(data), 3):
        data[at] ^= 1 << (at % 8)
        check_survives(data)
        data[at] ^= 1 << (at % 8)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_survive(changes):
    data = bytearray(network())
    for at, value in changes:
        data[at % len(data)] = value
    check_survives(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_survive(data):
    check_survives(data)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: [helper.make_node("ConstantOfShape", ["big"], ["y"])], "more than this runner computes"),
        (lambda: [helper.make_node("Expand", ["x", "wide"], ["y"])], "more than this runner computes"),
        (lambda: [helper.make_node("Tile", ["x", "wide"], ["y"])], "more than this runner computes"),
        (lambda: [helper.make_node("Pad", ["x", "pads"], ["y"])], "more than this runner computes"),
        (lambda: [helper.make_node("Resize", ["x", "", "", "size"], ["y"], coordinate_transformation_mode="asymmetric",
                                   nearest_mode="floor")], "more than this runner computes"),
    ],
)  # fmt: skip
def test_sizes_are_bounded_before_memory_is_taken(build, text):
    constants = {
        "big": np.array([1 << 20, 1 << 20]),
        "wide": np.array([1 << 10, 1 << 10, 1 << 8, 1 << 8]) // np.array([1, 2, 6, 6]) * np.array([1, 2, 6, 6]),
        "pads": np.array([1 << 9] * 8),
        "size": np.array([1, 2, 1 << 18, 1 << 18]),
    }
    if build()[0].op_type == "Expand":
        constants["wide"] = np.array([1 << 20, 1 << 10, 2, 6, 6])
    refused(model(build(), SHAPE, {"y": ["?"]}, constants), text)
