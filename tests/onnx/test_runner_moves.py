"""iqPad, ShuffleChannel, ArgMax and Gather on codes in untrusted files: what they compute and what is refused."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import model, node

from linger.onnx import ModelError, OnnxRunner

X = np.random.default_rng(0).integers(-128, 128, (1, 4, 3, 5)).astype(np.int8)


def one(inner, out, constants=None, platform="venus", shape=(1, 4, 3, 5)):
    nodes = [node("Quant", ["x"], ["q"], data_bits=8, scale_x=16.0, platform=platform), inner]
    return model(nodes, {"x": list(shape)}, {"y": out}, constants or {})


def pad(widths, value=0, platform="venus", **attributes):
    inner = node(
        "iqPad", ["q", "w", "v"], ["y"], mode=attributes.pop("mode", "constant"), platform=platform, **attributes
    )
    constants = {"w": np.array(widths, np.int64), "v": np.array([value], np.int8)}
    return one(inner, (TensorProto.INT8, ["n", "c", "h", "w"]), constants, platform)


@pytest.mark.parametrize("widths", [[0, 0, 1, 2, 0, 0, 0, 3], [0, 1, 2, 0, 0, 3], [1, 2, 0, 3]])
def test_zeros_around_height_and_width(widths):
    got = OnnxRunner(pad(widths, scale_x=16.0, scale_o=16.0)).run(X)["y"]
    assert np.array_equal(got, np.pad(X, ((0, 0), (0, 0), (1, 0), (2, 3))))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (lambda: pad([0] * 8, platform="arcs"), "arcs scrambles"),
        (lambda: pad([0] * 8, mode="reflect"), "not what the engine computes"),
        (lambda: pad([0, 1, 0, 0, 0, 0, 0, 0]), "only height and width"),
        (lambda: pad([0, 0, -1, 0, 0, 0, 0, 0]), "only height and width"),
        (lambda: pad([1, 1]), "4, 6 or 8"),
        (lambda: pad([0] * 8, value=3), "value must be 0"),
        (lambda: pad([0] * 8, scale_x=8.0), "scale"),
        (lambda: pad([0] * 8, scale_o=8.0), "scale_o must be the scale of the input"),
        (lambda: pad([0, 0, 1 << 40, 0, 0, 0, 0, 0]), "more than this runner computes"),
    ],
)
def test_paddings_that_are_refused(file, said):
    with pytest.raises(ModelError, match=said):
        OnnxRunner(file()).run(X)


def shuffle(platform="venus", **attributes):
    return one(node("ShuffleChannel", ["q"], ["y"], **attributes), (TensorProto.INT8, [1, 4, 3, 5]), platform=platform)


def test_channels_of_the_groups_in_turn():
    assert np.array_equal(OnnxRunner(shuffle(groups=2)).run(X)["y"], X[:, [0, 2, 1, 3]])
    assert np.array_equal(OnnxRunner(shuffle(groups=5, axis=-1)).run(X)["y"], X)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (lambda: shuffle(), "'groups' is missing"),
        (lambda: shuffle(groups=3), "must divide 4"),
        (lambda: shuffle(groups=0), "must divide 4"),
        (lambda: shuffle(groups=2, axis=4), "axis 4"),
        (lambda: shuffle("arcs", groups=2), "arcs has no ShuffleChannel"),
    ],
)
def test_shuffles_that_are_refused(file, said):
    with pytest.raises(ModelError, match=said):
        OnnxRunner(file()).run(X)


def argmax(shape=(1, 4, 3, 5), **attributes):
    out = (TensorProto.INT32, [2, *shape[1:-1], 1])
    return one(helper.make_node("ArgMax", ["q"], ["y"], **attributes), out, shape=shape)


def test_maxima_then_the_first_places():
    ties = (X // 64).astype(np.int8)
    got = OnnxRunner(argmax(axis=-1)).run(ties)["y"]
    assert got.dtype == np.int32
    assert np.array_equal(got[0, ..., 0], ties[0].max(-1))
    assert np.array_equal(got[1, ..., 0], ties[0].argmax(-1))
    assert np.array_equal(OnnxRunner(argmax(axis=3, keepdims=1)).run(ties)["y"], got)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (lambda: argmax(axis=1), "last axis"),
        (lambda: argmax(), "last axis"),
        (lambda: argmax((2, 5), axis=-1), r"needs an input \[1, ...\]"),
        (lambda: argmax(axis=-1, keepdims=0), "keepdims = 1"),
        (lambda: argmax(axis=-1, select_last_index=1), "first of equals"),
    ],
)
def test_searches_that_are_refused(file, said):
    with pytest.raises(ModelError, match=said):
        OnnxRunner(file())
