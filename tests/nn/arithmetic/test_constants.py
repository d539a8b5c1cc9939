"""Numbers added, subtracted, multiplied and divided: every spelling, on every chip, from module to file."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger import ops
from linger.onnx import OnnxRunner
from linger.runtime import SPELLINGS, is_quantized, resolve
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Numbers(nn.Module):
    """A number on either side, larger and finer than the tensor, scaled by alpha, in place, learned; signs and squares."""

    def __init__(self, shape):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.shift, self.view = nn.Parameter(torch.tensor(0.3)), shape

    def forward(self, x):
        x = self.a(x).reshape(1, *self.view)
        y = x + 1.0
        y = 0.7 - y
        y = torch.sub(y, 2, alpha=0.013)
        y -= 5
        y = torch.add(y, x, alpha=-0.5)
        y = torch.rsub(y, x, alpha=2)
        y = (-y) ** 2 - 12.5
        return self.shift - self.shift * y


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", [(4, 5, 6), (120,), (4, 30), (2, 2, 5, 6)])
def test_numbers(shape, platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Numbers(shape), batches((3, 5, 6)), tmp_path, platform, method)
    assert nodes.count("BatchNorm2dInt") == 6


class Plus(nn.Module):
    def __init__(self, sign, number):
        super().__init__()
        self.same = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.same.weight)
        self.sign, self.number = sign, number

    def forward(self, x):
        x = self.same(x)
        return x + self.number if self.sign == 1 else self.number - x


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("q_x", "number", "q_o"), [(4, 0.3, 4), (0, 100, 0), (7, -1e-3, 9), (3, 5000.0, -6), (5, 0.0, 11), (6, 1.0, 3)]
)
def test_the_sum_is_rounded_once(sign, q_x, number, q_o, tmp_path):
    codes = torch.arange(-128, 128).reshape(1, 1, 16, 16)
    x = codes / 2.0**q_x
    model = linger.init(Plus(sign, number))
    model(x)
    (layer,) = [m for m in model.modules() if type(m).__name__ in ("AddInt", "SubInt")]
    same = model.same
    for quantizer, exp2 in [
        (same.input_quantizer, q_x),
        (same.weight_quantizer, 6),
        (same.output_quantizer, q_x),
        (layer.output_quantizer, q_o),
    ]:
        quantizer.scale.fill_(2.0**exp2)
    fine = max(0, min(6, 6 - int(np.frexp(abs(number))[1])))
    total = sign * (codes.double() * 2**fine) + np.rint(number * 2.0 ** (q_x + fine))
    want = torch.floor(total / 2.0 ** (q_x + fine - q_o) + 0.5).clamp(-128, 127)
    got = model.eval()(x)
    assert torch.equal(got.double() * 2.0**q_o, want)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (codes,) = OnnxRunner(tmp_path / "m.onnx").run(x, integers=True).values()
    assert np.array_equal(codes, want.numpy())


def test_a_learned_addend_learns():
    model = linger.init(Numbers((4, 5, 6)))
    model(torch.randn(1, 3, 5, 6)).sum().backward()
    assert model.shift.grad.abs() > 0


@pytest.mark.parametrize("spelling", [*SPELLINGS["add"], *SPELLINGS["add_"], *SPELLINGS["sub"], *SPELLINGS["sub_"]])
def test_spellings_with_a_number(spelling):
    func = resolve(spelling)
    sign = 1 if spelling in (*SPELLINGS["add"], *SPELLINGS["add_"]) else -1
    _check(lambda a: func(a, 0.5), lambda a: a + sign * 0.5)
    if "operator" not in spelling and "__" not in spelling:
        _check(lambda a: func(a, 0.5, alpha=3), lambda a: a + sign * 1.5)
        _check(lambda a: func(a, a.flip(1), alpha=3), lambda a: a + sign * 3 * a.flip(1))


@pytest.mark.parametrize("spelling", SPELLINGS["rsub"])
def test_reflected_spellings_with_a_number(spelling):
    func = resolve(spelling)
    _check(lambda a: func(a, 0.5), lambda a: 0.5 - a)
    if spelling == "torch.rsub":
        _check(lambda a: func(a, other=0.5, alpha=2), lambda a: 0.5 - 2 * a)
        _check(lambda a: func(input=a, other=0.5), lambda a: 0.5 - a)


@pytest.mark.parametrize("name", ["neg", "neg_", "positive", "square", "square_", "pow", "pow_"])
def test_spellings_of_one_operand(name):
    for spelling in SPELLINGS[name]:
        func = resolve(spelling)
        sign = {"n": -1, "p": 1}
        if name.startswith(("square", "pow")):
            exponent = (2,) if name.startswith("pow") else ()
            _check(lambda a, f=func, e=exponent: f(a, *e), lambda a: a * a)
        else:
            _check(lambda a, f=func: f(a), lambda a, s=sign[name[0]]: s * a)


def _check(call, want):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return call(self.a(x))

    torch.manual_seed(0)
    model = linger.init(Net())
    x = torch.randn(2, 4)
    for _ in range(20):
        y = model(x)
    assert is_quantized(y)
    close = torch.isclose(y, want(model.a(x).detach()), atol=0.05, rtol=0.1)
    assert close.sum() >= 8  # of 12: the rule for exponents may saturate the largest values


class Constants(nn.Module):
    """Parameters and buffers of many shapes: per channel, per position, a whole tensor, expanding the other operand."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(6, 6)
        self.gain, self.bias = nn.Parameter(torch.rand(1, 4, 1, 1)), nn.Parameter(torch.randn(4, 1, 1))
        self.position, self.one = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(1))
        self.register_buffer("whole", torch.randn(1, 4, 5, 6))
        self.register_buffer("row", torch.randn(6))

    def forward(self, x):
        x = self.a(x)
        y = x * self.gain + self.bias
        y = (y - 0.5 * self.bias + self.position) * self.whole
        y = self.row - self.fc(y - self.whole)
        return self.row * (y.mean((2, 3), keepdim=True) + self.position) * self.one + self.one


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_constants(platform, method, tmp_path):
    torch.manual_seed(1)
    model = Constants()
    nodes = assert_same_everywhere(model, batches((3, 5, 6)), tmp_path, platform, method)
    assert "Quant" in nodes
    assert nodes.count("Quant") == 1
    assert nodes.count("BatchNorm2dInt") == 4
    own = (model.gain, model.bias, model.position, model.one)
    assert all(p.grad.abs().sum() > 0 for p in own)


class Broadcasts(nn.Module):
    """Tensors of the graph against each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 1, 1), nn.Linear(4, 7)

    def forward(self, x):
        x, mask = self.a(x), self.b(x)
        y = x * mask - x.mean((2, 3), keepdim=True)
        rows = self.fc(y.mean((2, 3)))
        return rows[:, :, None] * rows[:, None, :] + rows.reshape(-1, 1, 7) - y.flatten(2)[:, :1, :7]


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_broadcasts(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Broadcasts(), batches((3, 5, 6)), tmp_path, platform, method)
    assert "Expand" not in nodes
    shapes = {tuple(i.dims) for i in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert (1, 4, 5, 6) not in shapes


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_with_copies_takes_other_batches(batch, tmp_path):
    torch.manual_seed(1)
    model = linger.init(Broadcasts(), example_inputs=torch.randn(1, 3, 5, 6))
    model(torch.randn(2, 3, 5, 6))
    linger.onnx.export(model, torch.randn(1, 3, 5, 6), tmp_path / "m.onnx", dynamic_axes=None)
    x = torch.randn(batch, 3, 5, 6)
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values() if batch == 1 else [model.eval()(x).detach().numpy()]
    assert np.array_equal(got, model.eval()(x).detach().numpy())


def test_what_stays_an_island():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            y = self.a(x)
            return y + torch.ones(6, dtype=torch.long), y + True, y - float("inf"), 1.0 + 1e30 * y, y**3

    model = linger.init(Net())
    model(torch.randn(2, 4))
    assert {i.operator for i in linger.runtime.islands_of(model)} == {"add", "sub", "mul", "pow"}
    with pytest.raises(RuntimeError, match="must match"):
        linger.init(_Mismatch())(torch.randn(2, 4))


class _Mismatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x):
        return self.a(x) + torch.ones(5)


def test_affine_refusals():
    x = ops.Coded(torch.zeros(3), torch.zeros(3, dtype=torch.int8), torch.tensor(1.0))
    with pytest.raises(TypeError, match="affine_bias: b must be a float32 Tensor"):
        ops.affine_bias(1.0, x.scale, 3)
    with pytest.raises(ValueError, match="affine_bias: b must have one element"):
        ops.affine_bias(torch.zeros(2), x.scale, 3)


def test_a_call_that_was_a_number_and_becomes_a_tensor_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.other = nn.Linear(4, 6), 1.0

        def forward(self, x):
            return self.a(x) + self.other

    model = linger.init(Net())
    model(torch.randn(2, 4))
    model.other = torch.ones(6)
    with pytest.raises(linger.UnsupportedError, match=r"qadd_0' was created for 1 tensor\(s\) and now got 2"):
        model(torch.randn(2, 4))


def test_the_finer_operand_of_a_sum_comes_first(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)
            with torch.no_grad():
                self.b.weight /= 64
                self.b.bias /= 64

        def forward(self, x):
            return self.a(x) + self.b(x)

    assert_same_everywhere(Net(), batches((4,)), tmp_path, "arcs")
    (node,) = [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type == "iqAdd"]
    scales = {a.name: a.f for a in node.attribute if a.name.startswith("scale")}
    assert scales["scale_x"] > scales["scale_y"] >= scales["scale_o"]
