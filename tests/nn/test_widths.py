"""Widths by section: 4-bit weights, results of 16 and 32 bits, from configuration to file; what a chip lacks is refused."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.nn import Requant, requant
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


def section(name, **bits):
    values = ", ".join(f"{k}: {v}" for k, v in bits.items())
    return f"s_{abs(hash(name))}:\n  name: [{name}]\n  quant_info: {{{values}}}\n"


def widths(path):
    found = {}
    for node in onnx.load(path).graph.node:
        for a in node.attribute:
            if a.name == "o_bits":
                found.setdefault(node.op_type, []).append(a.i)
    return found


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x):
        return self.a(x) + self.b(x) + self.c(x)


@pytest.mark.parametrize("platform", ["arcs", "mars", "venusA"])
@pytest.mark.parametrize(("operand", "result"), [(8, 16), (8, 32), (32, 32)])
def test_wide_sums(operand, result, platform, tmp_path):
    torch.manual_seed(1)
    more = section("'_linger_qtensor_*'", output_bits=result) + section("'[abc]'", output_bits=operand)
    model = Sum()
    nodes = assert_same_everywhere(model, batches((5,)), tmp_path, platform, more=more)
    assert widths(tmp_path / "m.onnx")["iqAdd"] == [result] * 2
    assert nodes.count("Requant") == (3 if operand == 8 else 0)
    assert f"o_bits:{result}" in repr(model._linger_qtensor_qadd_0)
    assert f"o_bits:{operand}" in repr(model.a)


class PlusNumber(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 6)

    def forward(self, x):
        return self.a(x) + 1.0


def test_a_tensor_plus_a_number_has_the_width_of_its_node(tmp_path):
    (tmp_path / "c.yaml").write_text(section("'_linger_qtensor_*'", output_bits=16))
    model = linger.init(PlusNumber(), str(tmp_path / "c.yaml"))
    with pytest.raises(
        linger.UnsupportedError, match=r"output_bits 16 of '_linger_qtensor_qadd_0' .*adds numbers in 8 bits"
    ):
        model(torch.randn(2, 5))


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.mid, self.head = nn.Conv1d(3, 4, 3), nn.Conv1d(4, 4, 3), nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.mid(self.conv(x)))
        return self.head(x) @ x.transpose(1, 2)[:, :5]


WIDE = {"arcs": (32, 32), "mars": (32, 32), "venusA": (8, 32), "venus": (16, 16)}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_wide_layers(platform, tmp_path):
    """4-bit weights everywhere, wide results at the outputs."""

    class Outputs(Layers):
        def forward(self, x):
            x = torch.relu(self.conv(x))
            return self.mid(x), self.head(x)

    conv, linear = WIDE[platform]
    config = tmp_path / "config.yaml"
    text = f"platform: {platform}\nquant_info: {{weight_bits: 4}}\n"
    text += section("mid", output_bits=conv, weight_bits=8) + section("head", output_bits=linear)
    config.write_text(text)
    torch.manual_seed(1)
    x = torch.randn(1, 3, 8)
    model = linger.init(Outputs(), str(config), example_inputs=x)
    for _ in range(3):
        model(torch.randn(1, 3, 8))
    want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    got = OnnxRunner(tmp_path / "m.onnx").run(x, integers=True).values()
    for codes, value in zip(got, want, strict=True):
        fmt = info(value)
        assert np.array_equal(codes, fmt.codes.numpy())
        assert codes.dtype == {8: np.int8, 16: np.int16, 32: np.int32}[fmt.bits]
    found = widths(tmp_path / "m.onnx")
    assert found["LinearInt"] == [linear]
    assert conv in found["Conv2dInt" if platform == "venusA" else "Conv1dInt"]
    assert f"o_bits:{linear}, weight_bits:4" in repr(model.head)
    assert model.conv.weight_quantizer.bits == 4


@pytest.mark.parametrize(("platform", "bits"), [("arcs", 32), ("venusA", 16), ("venusA", 32)])
def test_wide_products_of_matrices(platform, bits, tmp_path):
    torch.manual_seed(1)
    more = section("'_linger_qtensor_*'", output_bits=bits)
    assert_same_everywhere(Layers(), batches((3, 10)), tmp_path, platform, more=more)
    assert widths(tmp_path / "m.onnx")["BmmInt"] == [bits]


REFUSED = [
    (
        "activate_bits: 16",
        r"conv \(Conv2d\): output_bits 16, venus has 8: set output_bits.*\n.*conv \(Conv2d\): input_bits 16",
    ),
    ("output_bits: 32", r"conv \(Conv2d\): output_bits 32, venus has 8"),
    ("input_bits: 16", r"fc \(Linear\): input_bits 16, venus has 8: set input_bits in its section"),
]


@pytest.mark.parametrize(("key", "text"), REFUSED)
def test_init_refuses_what_the_chip_lacks_and_leaves_the_model_alone(key, text, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: venus\nall:\n  name: ['*']\n  quant_info: {{{key}}}\n")
    model = nn.Sequential()
    model.conv, model.bn, model.fc = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 4)
    with pytest.raises(linger.UnsupportedError, match=text) as error:
        linger.init(model, str(config), example_inputs=torch.randn(2, 1, 6, 6))
    assert type(model.conv) is nn.Conv2d
    assert "bn (" not in str(error.value)  # it is folded
    config.write_text("platform: venus\n")
    linger.init(model, str(config), example_inputs=torch.randn(2, 1, 6, 6))


def test_operators_of_user_code_are_refused_when_they_are_created(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("platform: venus\n" + section("'_linger_qtensor_*'", output_bits=32))
    with pytest.raises(
        linger.UnsupportedError,
        match=r"output_bits 32 of '_linger_qtensor_qadd_0' \(iqAdd\): venus has 8; set output_bits",
    ):
        linger.init(Sum(), str(config), example_inputs=torch.randn(1, 5))


class Requants(nn.Module):
    def __init__(self, bits):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 6)
        self.same, self.wide = Requant(), Requant(bits)

    def forward(self, x):
        return self.wide(requant(self.b(self.same(self.a(x)))))


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_requant(bits, platform, method, tmp_path):
    torch.manual_seed(1)
    model = Requants(bits)
    x = torch.randn(1, 5)
    assert torch.equal(requant(x, bits), x)
    assert torch.equal(model(x), model.b(model.a(x)))
    nodes = assert_same_everywhere(model, batches((5,)), tmp_path, platform, method)
    assert nodes.count("Requant") == 3
    assert widths(tmp_path / "m.onnx")["Requant"] == [8, 8, bits]
    assert model.a.weight.grad.abs().sum() > 0
    assert "bits=8" in repr(model.same)


def test_requant_refusals(tmp_path):
    with pytest.raises(ValueError, match="requant: bits must be 8, 16 or 32, got 4"):
        requant(torch.ones(3), 4)
    with pytest.raises(ValueError, match="Requant: bits must be 8, 16 or 32, got 24"):
        Requant(24)
    model = linger.init(nn.Sequential(nn.Linear(4, 4), Requant(16), Requant(8)))
    with pytest.raises(linger.UnsupportedError, match="the operand has 16 bits, the chips take 8"):
        model(torch.randn(1, 4))


def test_wide_operands_of_int8_operators_stay_in_float(tmp_path):
    class Net(Sum):
        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return a * b, a - b, torch.cat([a, b]), a @ b.T, a + 1, a / 2, torch.abs(a), a.clamp(0, 1)

    config = tmp_path / "config.yaml"
    config.write_text("platform: arcs\n" + section("a, b", output_bits=32))
    model = linger.init(Net(), str(config))
    x = torch.randn(2, 5)
    model(x)
    assert {i.operator for i in islands_of(model)} == {"mul", "sub", "cat", "matmul", "add", "div", "abs", "clamp"}
