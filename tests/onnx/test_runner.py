"""OnnxRunner on well-formed files: forms of input and output, vocabularies, platforms, scales, float islands beside it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from small_models import conv, image, model, network, node, weights

from linger.onnx import ModelError, OnnxRunner


def codes_of(x, scale=16.0):
    return np.clip(np.floor(x * np.float32(scale) + np.float32(0.5)), -128, 127).astype(np.int8)


def oracle(x):
    """The network of small_models in int64."""
    w = {name: torch.from_numpy(array).long() for name, array in weights().items()}
    acc = torch.nn.functional.conv2d(torch.from_numpy(codes_of(x)).double(), w["w"].double(), padding=1).long()
    c = ((acc + w["b"].view(-1, 1, 1) + 32) >> 6).clamp(-128, 127).relu()
    return torch.nn.functional.max_pool2d(c, 2).reshape(1, -1).to(torch.int8).numpy()


@pytest.fixture(scope="module")
def runner():
    return OnnxRunner(network())


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: torch.from_numpy(x),
        lambda x: {"x": x},
        lambda x: {"x": torch.from_numpy(x)},
        lambda x: [x],
        lambda x: (torch.from_numpy(x),),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: torch.from_numpy(x).to(memory_format=torch.channels_last),
        lambda x: torch.nn.Parameter(torch.from_numpy(x)),
        lambda x: x.astype(np.float64),
        codes_of,
        lambda x: codes_of(x).astype(np.int64),
        lambda x: torch.from_numpy(codes_of(x)),
    ],
)
def test_every_form_of_input_gives_the_same_integers(runner, form):
    x = image()
    got = runner.run(form(x), integers=True)
    assert list(got) == ["y"] and got["y"].dtype == np.int8
    assert np.array_equal(got["y"], oracle(x))


def test_without_integers_the_floats_behind_the_dequant_come_back(runner):
    got = runner.run(image())["y"]
    assert got.dtype == np.float32
    assert np.array_equal(got, oracle(image()).astype(np.float32) / 8)


def test_path_pathlike_and_bytes(tmp_path, runner):
    path = tmp_path / "net.onnx"
    path.write_bytes(network())
    for source in (path, os.fspath(path), bytearray(network()), memoryview(network())):
        assert np.array_equal(OnnxRunner(source).run(image())["y"], runner.run(image())["y"])
    with pytest.raises(FileNotFoundError):
        OnnxRunner(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="path or the bytes"):
        OnnxRunner(3)


def test_names_of_inputs_outputs_and_platform(runner):
    assert (runner.inputs, runner.outputs, runner.platform) == (("x",), ("y",), "arcs")


def test_inputs_are_not_changed_and_results_not_shared(runner):
    x = image()
    kept = x.copy()
    first = runner.run(x)["y"]
    first[:] = 7
    assert np.array_equal(x, kept)
    assert not np.array_equal(runner.run(x)["y"], first)


def test_nan_and_infinity(runner):
    x = image()
    x[0, 0, 0, 0], x[0, 0, 0, 1], x[0, 1, 2, 2] = np.nan, np.inf, -np.inf
    clean = x.copy()
    clean[0, 0, 0, 0], clean[0, 0, 0, 1], clean[0, 1, 2, 2] = 0, 1e9, -1e9
    assert np.array_equal(runner.run(x)["y"], runner.run(clean)["y"])


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ({}, ValueError, r"missing \['x'\]"),
        ({"x": image(), "z": image()}, ValueError, r"unknown \['z'\]"),
        ([image(), image()], ValueError, "1 inputs .* got 2 arrays"),
        (image()[0], ValueError, r"must have shape \(1, 2, 6, 6\), got \(2, 6, 6\)"),
        (image()[:, :1], ValueError, r"got \(1, 1, 6, 6\)"),
        (np.full((1, 2, 6, 6), 200), ValueError, r"outside \[-128, 127\]"),
        (image() > 0, TypeError, "must hold floats"),
        (image().astype(np.complex64), TypeError, "torch tensor of numbers"),
        (image().astype(object), TypeError, "torch tensor of numbers"),
        ("image.png", TypeError, "got str"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_wrong_inputs_are_named(runner, inputs, error, text):
    with pytest.raises(error, match=text) as caught:
        runner.run(inputs)
    assert not isinstance(caught.value, ModelError)


def test_both_vocabularies_and_attribute_synonyms():
    other = conv(
        data_bits=None, parameter_bits=None, x_bits=8, w_bits=8, strides=None, stride=[1, 1], scale_x=None, scale_i=16.0
    )
    other.op_type, other.domain = "QConv2d", "thinker"
    nodes = [node("Quant", ["x"], ["q"], data_bits=8, scale_x=16.0), other, node("Dequant", ["c"], ["y"], scale_o=8.0)]
    plain = [nodes[0], conv(), nodes[2]]
    pair = [OnnxRunner(model(n, {"x": [1, 2, 6, 6]}, {"y": [1, 4, 6, 6]}, weights())) for n in (nodes, plain)]
    assert np.array_equal(*(r.run(image())["y"] for r in pair))


def test_platform_is_inherited_and_venus_by_default():
    relu = [node("Quant", ["x"], ["q"], scale_x=4.0), node("Relu", ["q"], ["y"])]
    assert OnnxRunner(model(relu, {"x": [2]}, {"y": (TensorProto.INT8, [2])})).platform == "venus"
    relu[1].attribute.append(helper.make_attribute("platform", "venusA"))
    assert OnnxRunner(model(relu, {"x": [2]}, {"y": (TensorProto.INT8, [2])})).platform == "venusA"
    relu[1].attribute[0].s = b"mars"
    assert OnnxRunner(model(relu, {"x": [2]}, {"y": (TensorProto.INT8, [2])})).platform == "arcs"


def test_int8_graph_input_takes_its_scale_from_the_first_consumer():
    nodes = [conv("x"), node("Dequant", ["c"], ["y"], scale_o=8.0)]
    runner = OnnxRunner(model(nodes, {"x": (TensorProto.INT8, [1, 2, 6, 6])}, {"y": [1, 4, 6, 6]}, weights()))
    quantized = OnnxRunner(
        model([node("Quant", ["x"], ["q"], scale_x=16.0), conv(), nodes[1]], {"x": [1, 2, 6, 6]}, {"y": []}, weights())
    )
    assert np.array_equal(runner.run(codes_of(image()))["y"], quantized.run(image())["y"])
    with pytest.raises(TypeError, match="must hold integers"):
        runner.run(image())


def test_quant_behind_shape_operators_takes_integers_too():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        node("Quant", ["t"], ["q"], scale_x=16.0),
        node("Dequant", ["q"], ["y"], scale_o=16.0),
    ]
    runner = OnnxRunner(model(nodes, {"x": [1, 2, 3]}, {"y": [1, 3, 2]}))
    x = np.arange(-3, 3, dtype=np.float32).reshape(1, 2, 3) / 16
    want = codes_of(x).transpose(0, 2, 1)
    assert np.array_equal(runner.run(x, integers=True)["y"], want)
    assert np.array_equal(runner.run(codes_of(x), integers=True)["y"], want)


def test_open_dimensions_share_their_symbol():
    nodes = [node("Quant", ["x"], ["q"], scale_x=16.0), node("Quant", ["z"], ["p"], scale_x=16.0)]
    nodes += [node("iqAdd", ["q", "p"], ["s"], scale_x=16.0, scale_y=16.0, scale_o=16.0)]
    nodes += [node("Dequant", ["s"], ["y"], scale_o=16.0)]
    runner = OnnxRunner(model(nodes, {"x": ["N", 3], "z": ["N", 3]}, {"y": ["N", 3]}))
    for n in (1, 5):
        assert runner.run([np.ones((n, 3), np.float32)] * 2, integers=True)["y"].tolist() == [[32] * 3] * n
    with pytest.raises(ValueError, match=r"input 'z' must have shape \(N, 3\), got \(2, 3\)"):
        runner.run([np.ones((1, 3), np.float32), np.ones((2, 3), np.float32)])


def test_several_outputs_with_and_without_dequant():
    nodes = [
        node("Quant", ["x"], ["q"], scale_x=16.0),
        node("Relu", ["q"], ["r"]),
        node("Dequant", ["q"], ["y"], scale_o=16.0),
    ]
    runner = OnnxRunner(model(nodes, {"x": [1, 2]}, {"y": [1, 2], "r": (TensorProto.INT8, [1, 2])}))
    x = np.array([[-1, 1]], np.float32)
    assert {k: v.tolist() for k, v in runner.run(x).items()} == {"y": [[-1.0, 1.0]], "r": [[0, 16]]}
    assert {k: v.tolist() for k, v in runner.run(x, integers=True).items()} == {"y": [[-16, 16]], "r": [[0, 16]]}


def test_constant_nodes_and_newer_axes_inputs():
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[0, -1])
    nodes = [node("Quant", ["x"], ["q"], scale_x=16.0), axes, helper.make_node("Unsqueeze", ["q", "axes"], ["u"])]
    nodes += [helper.make_node("Squeeze", ["u", "first"], ["y"])]
    runner = OnnxRunner(
        model(nodes, {"x": [2, 3]}, {"y": (TensorProto.INT8, [2, 3, 1])}, {"first": np.array([0])}, opset=13)
    )
    assert runner.run(np.ones((2, 3), np.float32))["y"].shape == (2, 3, 1)


def test_squeeze_keeps_two_dimensions_unless_the_file_declares_fewer():
    nodes = [node("Quant", ["x"], ["q"], scale_x=16.0), helper.make_node("Squeeze", ["q"], ["y"], axes=[0, 2])]
    x = np.ones((1, 3, 1), np.float32)
    assert OnnxRunner(model(nodes, {"x": [1, 3, 1]}, {"y": (TensorProto.INT8, ["a", "b"])})).run(x)["y"].shape == (1, 3)
    assert OnnxRunner(model(nodes, {"x": [1, 3, 1]}, {"y": (TensorProto.INT8, [3])})).run(x)["y"].shape == (3,)


def test_flatten_of_codes_ignores_the_axis_as_the_engine_does():
    nodes = [node("Quant", ["x"], ["q"], scale_x=16.0), helper.make_node("Flatten", ["q"], ["y"], axis=2)]
    runner = OnnxRunner(model(nodes, {"x": [2, 3, 4]}, {"y": (TensorProto.INT8, [2, 12])}))
    assert runner.run(np.zeros((2, 3, 4), np.float32))["y"].shape == (2, 12)


@pytest.mark.parametrize("platform", ["arcs", "venusA"])
def test_wide_linear_with_a_finer_scale_shifts_left(platform):
    linear = node(
        *("LinearInt", ["q", "w"], ["y"]),
        scale_x=2.0,
        scale_w=2.0,
        scale_o=64.0,
        o_bits=32,
        x_bits=8,
        w_bits=8,
        platform=platform,
    )
    nodes = [node("Quant", ["x"], ["q"], scale_x=2.0), linear]
    runner = OnnxRunner(
        model(nodes, {"x": [1, 2]}, {"y": (TensorProto.INT32, [1, 1])}, {"w": np.array([[3, -5]], np.int8)})
    )
    got = runner.run(np.array([[1, 2]], np.float32))["y"]
    assert got.dtype == np.int32 and got.tolist() == [[(2 * 3 - 4 * 5) * 16]]


def average(platform, scale_o, kernel, size):
    pool = node(
        *("AvgPool2dInt", ["q"], ["y"]),
        kernel_shape=kernel,
        strides=[1, 1],
        pads=[0] * 4,
        ceil_mode=0,
        scale_x=16.0,
        scale_o=scale_o,
        platform=platform,
    )
    out = [1, 1, size[0] - kernel[0] + 1, size[1] - kernel[1] + 1]
    nodes = [node("Quant", ["x"], ["q"], scale_x=16.0), pool]
    return model(nodes, {"x": [1, 1, *size]}, {"y": (TensorProto.INT8, out)})


def test_average_pooling_with_a_change_of_scale():
    x = np.random.default_rng(0).integers(-128, 128, (1, 1, 3, 4)).astype(np.int8)
    sums = torch.nn.functional.avg_pool2d(torch.from_numpy(x).double(), 2, 1, divisor_override=1).long()
    twice = ((((sums + 1) >> 1) + 2) >> 2).clamp(-128, 127)  # arcs: rescaled first, divided then
    assert np.array_equal(OnnxRunner(average("arcs", 8.0, [2, 2], (3, 4))).run(x)["y"], twice.numpy())
    ignored = ((sums + 2) >> 2).clamp(-128, 127)
    assert np.array_equal(OnnxRunner(average("venus", 8.0, [2, 2], (3, 4))).run(x)["y"], ignored.numpy())
    with pytest.raises(ModelError, match="write scale_o = scale_x"):
        OnnxRunner(average("arcs", 32.0, [2, 2], (3, 4)))
    with pytest.raises(ModelError, match="write scale_o = scale_x"):
        OnnxRunner(average("venus", 8.0, [1, 3], (3, 4)))


def test_a_missing_onnx_package_is_one_sentence():
    code = """
import sys
sys.modules["onnx"] = None
from linger.onnx import OnnxRunner
try:
    OnnxRunner(b"x")
except ImportError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "reading and writing ONNX files needs the onnx package: pip install onnx"


def test_a_runner_shows_its_chip_and_its_ports():
    graph = model([node("Quant", ["x"], ["y"], scale_x=16.0)], {"x": ["N", 3]}, {"y": (TensorProto.INT8, ["N", 3])})
    assert repr(OnnxRunner(graph)) == "OnnxRunner(venus: x (N, 3) -> y (N, 3))"
