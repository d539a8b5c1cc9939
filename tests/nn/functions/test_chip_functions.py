"""Sigmoid, tanh, softmax, log-softmax, GELU, SiLU and GLU in every spelling, on every chip, from module to file."""

import copy
import io
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.chip import CHIPS, CURVES, OPERATORS
from linger.nn.functions.gelu import GeluInt, SiluInt
from linger.nn.functions.sigmoid import SigmoidInt
from linger.runtime import SPELLINGS, info, is_quantized, islands_of, resolve
from linger.settings import defaults
from tests.nn.same import PLATFORMS, assert_same_everywhere

METHODS = ("MOM", "TQT")


def batches(shape, n=4, spread=2.0):
    return [(torch.randn(1, *shape, generator=torch.Generator().manual_seed(i)) * spread,) for i in range(n)]


class Gates(nn.Module):
    """Modules, functions, methods and in-place forms of sigmoid and tanh."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act, self.t = nn.Sigmoid(), nn.Tanh()

    def forward(self, x):
        x = self.a(x)
        x = self.act(x) * self.t(self.b(x)) + torch.sigmoid(x).tanh()
        return self.out(F.tanh(F.sigmoid(x)).tanh_()).sigmoid_()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_gates(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Gates(), batches((6,)), tmp_path, platform, method)
    assert (nodes.count("iqSigmoid"), nodes.count("iqTanh")) == (4, 4)
    assert nodes.count("Requant") == (8 if platform == "venus" else 4)


class Attention(nn.Module):
    """Softmax over the last axis and over another one."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.soft = nn.Softmax(dim=1)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        weights = torch.bmm(q, k.transpose(1, 2)).softmax(-1)
        return self.out(torch.bmm(weights, v) + self.soft(v))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("platform", ["arcs", "mars", "venusA"])
def test_attention(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Attention(), batches((5, 8)), tmp_path, platform, method)
    assert nodes.count("SoftmaxInt") == 2


class Classifier(nn.Module):
    """Rank 4 softmax over channels, log-softmax at the end."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Conv2d(2, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = F.softmax(self.a(x), dim=1).mean((2, 3))
        return F.log_softmax(self.out(x), dim=-1)


@pytest.mark.parametrize("method", METHODS)
def test_log_softmax(method, tmp_path):
    nodes = assert_same_everywhere(Classifier(), batches((2, 4, 5)), tmp_path, "venusA", method)
    assert [n for n in nodes if "oftmax" in n or n == "Transpose"] == [
        "Transpose",
        "SoftmaxInt",
        "Transpose",
        "LogSoftmaxInt",
    ]


class Gated(nn.Module):
    """GLU over the last axis and over channels."""

    def __init__(self):
        super().__init__()
        self.a, self.out, self.glu = nn.Conv2d(3, 8, 1), nn.Linear(3, 6), nn.GLU(dim=1)

    def forward(self, x):
        return F.glu(self.out(self.glu(self.a(x))))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_glu(platform, method, tmp_path):
    nodes = assert_same_everywhere(Gated(), batches((3, 4, 3)), tmp_path, platform, method)
    if platform == "venus":
        assert (nodes.count("Slice"), nodes.count("iqSigmoid"), nodes.count("iqMul")) == (4, 2, 2)
    else:
        assert nodes.count("GluInt") == 2


class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        self.gelu, self.silu = nn.GELU(), nn.SiLU(inplace=True)

    def forward(self, x):
        return F.silu(self.b(self.silu(F.gelu(self.gelu(self.a(x))))))


@pytest.mark.parametrize("method", METHODS)
def test_gelu_and_silu(method, tmp_path):
    nodes = assert_same_everywhere(Smooth(), batches((6,)), tmp_path, "venusA", method)
    assert (nodes.count("QGelu"), nodes.count("QSwish")) == (2, 2)


class Swishes(nn.Module):
    """SiLU as module, in place and as a function, on two and four axes."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(2, 3, 3), nn.Linear(12, 8), nn.Linear(8, 4)
        self.act, self.into = nn.SiLU(), nn.SiLU(inplace=True)

    def forward(self, x):
        x = self.act(self.conv(x)).flatten(1)
        return F.silu(self.head(self.into(self.fc(x))), inplace=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_silu_runs_on_every_chip(platform, method, tmp_path):
    nodes = assert_same_everywhere(Swishes(), batches((2, 4, 4)), tmp_path, platform, method)
    if platform == "venusA":
        assert nodes.count("QSwish") == 3
    else:
        assert (nodes.count("iqSigmoid"), nodes.count("iqMul")) == (3, 3)
        assert nodes.count("Requant") == (3 if platform == "venus" else 0)


@pytest.mark.parametrize("q_x", [0, 2, 4, 7])
@pytest.mark.parametrize("platform", ["arcs", "mars", "venus"])
def test_silu_is_the_product_with_the_sigmoid(platform, q_x):
    """Every code: the chip's sigmoid in 8 bits, the exact product, one rounding; and the gradient of that product."""
    linger.QUANT_CONFIGS.platform = platform
    model = linger.init(nn.Sequential(nn.Linear(1, 1, bias=False), nn.SiLU()))
    nn.init.ones_(model[0].weight)
    x = torch.arange(-128, 128).reshape(-1, 1)
    value = (x / 2.0**q_x).requires_grad_()
    model(value)
    quantizers = model[0].input_quantizer, model[0].output_quantizer
    for quantizer, exp2 in (*((q, q_x) for q in quantizers), (model[0].weight_quantizer, 6)):
        quantizer.scale.fill_(2.0**exp2)
    y = model.eval()(value)
    q_o = round(math.log2(info(y).scale))
    if platform == "venus":
        fixed = (x << 11 - q_x).clamp(-(2**15), 2**15 - 1).to(torch.int16)
    else:
        fixed = (x << 27 - q_x).clamp(-(2**31), 2**31 - 1).to(torch.int32)
    gate = linger.chip.sigmoid(fixed, platform=platform, out_bits=8).long()
    shift = q_x + 7 - q_o
    want = (x * gate * 2 + 2**shift >> shift + 1).clamp(-128, 127)
    assert torch.equal((y * 2.0**q_o).long(), want)
    value.grad = None
    y.sum().backward()
    inner = torch.sigmoid(x.double() / 2.0**q_x)
    slope = gate / 128 + x / 2.0**q_x * inner * (1 - inner)
    inside = want.abs() < 127
    torch.testing.assert_close(value.grad[inside].double(), slope[inside], rtol=1e-5, atol=1e-7)


def test_wide_results_of_silu_are_refused_where_a_product_makes_them(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("platform: arcs\nact:\n  name: ['1*']\n  quant_info: {output_bits: 16}\n")
    model = linger.init(nn.Sequential(nn.Linear(4, 4), nn.SiLU()), str(config))
    with pytest.raises(linger.errors.UnsupportedError, match=r"output_bits 16 of .*QSwish.* arcs has 8"):
        model(torch.randn(2, 4))


@pytest.mark.parametrize(("net", "shape"), [(Smooth, (6,)), (Classifier, (2, 4, 5))])
@pytest.mark.parametrize("platform", ["arcs", "mars", "venus"])
def test_what_a_chip_lacks_is_an_island_that_the_file_keeps(net, shape, platform, tmp_path):
    linger.QUANT_CONFIGS.platform = platform
    model = linger.init(net(), example_inputs=batches(shape)[0])
    for (x,) in batches(shape):
        model(x).sum().backward()
    found = {island.operator for island in islands_of(model)}
    wanted = {"gelu"} if net is Smooth else {"log_softmax"} | ({"softmax"} if platform == "venus" else set())
    assert found == wanted
    x = batches(shape)[0][0]
    linger.onnx.export(model.eval(), x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x).values()
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach())


def test_revisions_that_compute_otherwise_are_said_at_export(tmp_path, caplog):
    linger.QUANT_CONFIGS.platform = "venusA"
    x = batches((6,))[0][0]
    model = linger.init(Gates())
    model(x)
    with caplog.at_level(logging.WARNING, "linger"):
        linger.onnx.export(model, x, tmp_path / "m.onnx")
    assert "engine revision of iqTanh: engine 562ddc7 reads its input as int32" in caplog.text
    assert "in 16 bits and is right from 2**13 on" in caplog.text
    assert "nn.Hardtanh, which every chip computes; or a later engine" in caplog.text


class Called(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.a, self.call = nn.Linear(4, 6), call

    def forward(self, x):
        return self.call(self.a(x))


SPELLED = [
    (n, s)
    for n in ("sigmoid", "sigmoid_", "tanh", "tanh_", "gelu", "silu", "softmax", "log_softmax", "glu")
    for s in SPELLINGS[n]
]
MODULES = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softmax": lambda: nn.Softmax(-1),
    "log_softmax": lambda: nn.LogSoftmax(-1),
    "glu": nn.GLU,
}


def trained(call):
    linger.QUANT_CONFIGS.platform = "venusA"
    torch.manual_seed(0)
    model = linger.init(Called(call))
    for (x,) in batches((4,), 2):
        y = model(x)
    return model, y


@pytest.mark.parametrize(("name", "spelling"), SPELLED)
def test_every_spelling_is_one_operator_with_one_state(name, spelling):
    """Function, method, in-place form and module: the same integers and the same state, in the module whose code calls."""
    func, base = resolve(spelling), name.rstrip("_")
    model, y = trained(lambda x: func(x, -1) if base in ("softmax", "log_softmax", "glu") else func(x))
    assert is_quantized(y)
    same, want = trained(MODULES[base]())
    assert torch.equal(y, want)
    mine, theirs = model.state_dict(), same.state_dict()
    assert list(mine) == [key.replace("call._linger", "_linger") for key in theirs]
    assert all(torch.equal(v, w) for v, w in zip(mine.values(), theirs.values(), strict=True))
    operator = {"silu": "qswish", "log_softmax": "qlogsoftmax"}.get(base, f"q{base}")
    assert f"_linger_qtensor_{operator}_0.output_quantizer.scale" in model.state_dict()
    exact = MODULES[base]()(model.a(batches((4,), 2)[-1][0]).detach())
    torch.testing.assert_close(y, exact, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("name", ["silu", "softmax", "log_softmax", "glu", "gelu"])
def test_keywords_and_torchs_defaults(name):
    calls = {
        "silu": lambda x: F.silu(input=x, inplace=True),
        "softmax": lambda x: F.softmax(input=x, dim=-1, dtype=torch.float32),
        "log_softmax": lambda x: torch.log_softmax(x, dim=-1, dtype=None),
        "glu": lambda x: F.glu(input=x),
        "gelu": lambda x: F.gelu(input=x, approximate="none"),
    }
    assert torch.equal(trained(calls[name])[1], trained(MODULES[name]())[1])


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("call", [lambda x: F.softmax(x), nn.Softmax()])
def test_the_implicit_axis_of_torch(call):
    assert torch.equal(trained(call)[1], trained(nn.Softmax(1))[1])


@pytest.mark.parametrize(
    ("call", "operator"),
    [
        (lambda x: F.gelu(x, approximate="tanh"), "gelu"),
        (lambda x: x.softmax(-1, torch.float64), "softmax"),
        (lambda x: torch.sigmoid(x, out=torch.empty(1, 6)), "sigmoid"),
    ],
)
def test_calls_that_ask_for_more_are_islands(call, operator):
    linger.QUANT_CONFIGS.platform = "venusA"
    model = linger.init(Called(call))
    with torch.no_grad():
        model(batches((4,))[0][0])
    assert operator in {island.operator for island in islands_of(model)}


def test_sigmoid_has_its_own_format_whatever_the_method():
    for method in METHODS:
        linger.QUANT_CONFIGS.quant_info.qat_method = method
        model = linger.init(Gates())
        y = model(batches((6,))[0][0])
        assert info(y).scale == 128
        text = repr(model)
        assert "(act): Sigmoid(\n    (_linger_qtensor_qsigmoid_0): iqsigmoidlayer()\n  )" in text
        assert "iqtanhlayer()" in text
        quantizer = model.act._linger_qtensor_qsigmoid_0.output_quantizer
        assert quantizer.scale == 128
        assert quantizer.ready
        state = model.state_dict()
        state["act._linger_qtensor_qsigmoid_0.output_quantizer.scale"] = torch.tensor(
            4.0
        )  # a venus file of 3.x learned it
        model.load_state_dict(state)
        assert quantizer.scale == 128
        y.sum().backward()
        assert (
            linger.check_optimizer(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1))
            is not None
        )


def test_no_data_is_needed_for_a_fixed_format(recwarn):
    linger.QUANT_CONFIGS.platform = "arcs"
    model = linger.init(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()))
    model(torch.randn(2, 4))
    model.eval()(torch.randn(2, 4))
    assert not recwarn.list


@pytest.mark.parametrize("net", [Gates, Attention, Gated, Smooth])
def test_calibration_copies_and_checkpoints(net):
    linger.QUANT_CONFIGS.platform = "venusA"
    shape = {Gates: (6,), Attention: (5, 8), Gated: (3, 4, 3), Smooth: (6,)}[net]
    model = linger.init(net(), example_inputs=batches(shape)[0])
    with linger.calibration(model):
        for (x,) in batches(shape):
            model(x)
    x = batches(shape)[0][0]
    want = model.eval()(x)
    assert is_quantized(want)
    assert torch.equal(copy.deepcopy(model)(x), want)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    again = linger.init(net())
    again.load_state_dict(torch.load(buffer))
    assert torch.equal(again.eval()(x), want)


def test_widths_that_a_chip_lacks_are_refused():
    with pytest.raises(
        linger.UnsupportedError, match=r"sigmoid has results of \(8, 32\) bits on arcs, output_bits is 16"
    ):
        SigmoidInt(_quant("arcs", 8, 16))


def _quant(platform, x_bits, o_bits):
    linger.QUANT_CONFIGS.platform = platform
    from dataclasses import replace

    return replace(defaults().layer(""), platform=platform, input_bits=x_bits, output_bits=o_bits)


def test_the_table_says_what_runs():
    for function, node in (("gelu", "QGelu"), ("swish", "QSwish"), ("sigmoid", "iqSigmoid"), ("tanh", "iqTanh")):
        for platform in CHIPS:
            elsewhere = "rewrite" if function == "swish" else "island"
            assert OPERATORS[node][platform].kind == ("native" if platform in CURVES[function] else elsewhere)
    assert {cls.node for cls in (GeluInt, SiluInt)} <= set(OPERATORS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own
@pytest.mark.parametrize("net", [Gates, Attention, Gated, Smooth])
def test_compiled(net):
    linger.QUANT_CONFIGS.platform = "venusA"
    shape = {Gates: (6,), Attention: (5, 8), Gated: (3, 4, 3), Smooth: (6,)}[net]
    model = linger.init(net(), example_inputs=batches(shape)[0])
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for (x,) in batches(shape):
        got, want = compiled(x), twin(x)
        assert torch.equal(got, want)
        got.square().sum().backward()
        want.square().sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_numpy_outputs_of_the_runner_are_int8(tmp_path):
    nodes = assert_same_everywhere(Called(nn.Sigmoid()), batches((4,)), tmp_path, "arcs")
    assert nodes[-2:] == ["iqSigmoid", "Dequant"]
    (codes,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(np.ones((1, 4), np.float32), integers=True).values()
    assert codes.dtype == np.int8


@pytest.mark.parametrize("exp2", [0, 1, 2, 3, 9, 11, 12, 14])
@pytest.mark.parametrize(("platform", "call"), [("venus", torch.sigmoid), ("venus", torch.tanh), ("arcs", torch.tanh)])
def test_every_scale_of_the_operand_reaches_the_node(platform, call, exp2, tmp_path):
    linger.QUANT_CONFIGS.platform = platform
    model = linger.init(Called(call))
    with torch.no_grad():
        model.a.weight.mul_(300.0 / 2.0**exp2)
    model(torch.randn(4, 4))
    model.eval().a.output_quantizer.scale = 2.0**exp2
    x = torch.randn(1, 4) * torch.linspace(-2, 2, 40)[:, None]
    assert info(model.a(x)).scale == 2.0**exp2
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, model(x).detach().numpy())
    assert model.a(x).abs().max() >= 100 / 2.0**exp2
