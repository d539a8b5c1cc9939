"""Limits of the chips, as export applies them."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.errors import UnsupportedError
from linger.onnx import ExportError, OnnxRunner


def _export(net, x, tmp_path, platform, section=""):
    torch.manual_seed(0)
    (tmp_path / "c.yaml").write_text(f"platform: {platform}\n{section}")
    model = linger.init(net, str(tmp_path / "c.yaml"), example_inputs=x)
    model.train()(x)
    with torch.no_grad():
        want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, want.numpy())
    file = onnx.load(tmp_path / "m.onnx")
    return {n.op_type: {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute} for n in file.graph.node}


@pytest.mark.parametrize(
    ("platform", "kernel", "written"),
    [("arcs", 7, "Conv1dInt"), ("mars", 12, "Conv1dInt"), ("venus", 5, "Conv1dInt"), ("venus", 7, "Conv2dInt")],
)
def test_kernels_of_the_1d_node(platform, kernel, written, tmp_path):
    assert written in _export(nn.Sequential(nn.Conv1d(2, 3, kernel)), torch.randn(1, 2, 20), tmp_path, platform)


def test_kernels_beyond_the_1d_node_are_refused_with_what_fits(tmp_path):
    with pytest.raises(ExportError, match=r"0: kernel 26, the chip takes 1\.\.5 .* 25 taps fit"):
        _export(nn.Sequential(nn.Conv1d(2, 3, 26)), torch.randn(1, 2, 40), tmp_path, "venus")


@pytest.mark.parametrize("platform", ["arcs", "mars", "venusA", "venus"])
@pytest.mark.parametrize(
    ("layer", "shape", "allowed"),
    [
        (lambda: nn.Linear(4, 3), (1, 4), {"arcs": (8, 32), "venusA": (8, 32), "venus": (8, 16, 32)}),
        (lambda: nn.Conv1d(2, 3, 3), (1, 2, 6), {"arcs": (8, 32), "venusA": (8,), "venus": (8, 16, 32)}),
        (lambda: nn.Conv2d(2, 3, 3), (1, 2, 6, 6), {"arcs": (8,), "venusA": (8,), "venus": (8,)}),
    ],
)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_width_of_results(layer, shape, allowed, bits, platform, tmp_path):
    section = f"head:\n  name: ['0']\n  quant_info: {{output_bits: {bits}}}\n"
    if bits in allowed["arcs" if platform == "mars" else platform]:
        nodes = _export(nn.Sequential(layer()), torch.randn(shape), tmp_path, platform, section)
        assert [a["o_bits"] for op, a in nodes.items() if op.endswith("Int")] == [bits]
    else:
        with pytest.raises(UnsupportedError, match=rf"0 \(\w+\): output_bits {bits}"):
            _export(nn.Sequential(layer()), torch.randn(shape), tmp_path, platform, section)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus"])
def test_4_bit_convolutions(platform, bias, tmp_path):
    written = 8 if bias or platform == "venus" else 4
    nodes = _export(
        nn.Sequential(nn.Conv2d(2, 3, 3, bias=bias)),
        torch.randn(1, 2, 6, 6),
        tmp_path,
        platform,
        "quant_info: {weight_bits: 4}",
    )
    assert nodes["Conv2dInt"]["parameter_bits"] == written
    codes = onnx.numpy_helper.to_array(onnx.load(tmp_path / "m.onnx").graph.initializer[0])
    assert codes.min() >= -8 and codes.max() <= 7


def test_a_wide_operand_is_refused_with_the_layer(tmp_path):
    section = "wide:\n  name: ['0']\n  quant_info: {output_bits: 32}\n"
    with pytest.raises(UnsupportedError, match=r"'1\.input_quantizer': the operand has 32 bits"):
        _export(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(1, 4), tmp_path, "arcs", section)
