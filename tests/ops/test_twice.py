"""Second derivatives of every operator against float64 torch: the written gradient rule, differentiated as an expression."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.ops import Coded, Geometry

from . import bilinear_oracle as oracle

METHODS = ["MOM", "TQT"]


def grid(shape: tuple[int, ...], bits: int = 6, low: float = -1.0, dtype: torch.dtype = torch.int8) -> Coded:
    """A leaf that holds codes / 2**bits."""
    codes = (torch.empty(shape).uniform_(low, 1.0) * 2**bits).round().to(dtype)
    return Coded((codes / 2.0**bits).requires_grad_(), codes, torch.tensor(2.0**bits))


def same(x: Tensor) -> Tensor:
    """The same leaf in float64."""
    return x.detach().double().requires_grad_()


def straight(v: Tensor, rounded: Tensor) -> Tensor:
    return v + (rounded - v).detach()


def quantized(
    z: Tensor, y: Coded, t: Tensor | None, bits: int = 8, relu: bool = False, half_even: bool = False
) -> Tensor:
    """``z`` as a quantizer gives it, straight through both roundings; MOM takes its scale from ``y``."""
    if t is None:
        scale = y.scale.double()
    else:
        exp2 = bits - 1 - t
        scale = torch.exp2(exp2 + (y.scale.double().log2() - exp2).detach())
    real = (F.relu(z) if relu else z) * scale
    rounded = straight(real, real.round() if half_even else (real + 0.5).floor())
    return rounded.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) / scale


def threshold(method: str, start: float) -> Tensor | None:
    return torch.tensor([start], requires_grad=True) if method == "TQT" else None


def wide(t: Tensor | None) -> ops.Output:
    """A quantizer that clips nothing here."""
    return oracle.output(threshold=t, stats=oracle.stats(4.0, 32.0), observe=False)


def compare(y: Tensor, z: Tensor, mine: list[Tensor | None], theirs: list[Tensor | None], rtol: float = 2e-4) -> None:
    """Value, gradients and the product of the Hessian with a vector, for a loss that is no quadric."""
    torch.testing.assert_close(y.double(), z, rtol=1e-6, atol=1e-6)
    weights = torch.randn(y.shape, dtype=torch.float64)
    results = []
    for out, leaves in ((y, mine), (z, theirs)):
        leaves = [leaf for leaf in leaves if leaf is not None]
        loss = (out.pow(3) * weights.to(out.dtype)).sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        torch.manual_seed(1)
        product = sum((g * torch.randn(g.shape, dtype=torch.float64).to(g.dtype)).sum() for g in first)
        results.append([*first, *torch.autograd.grad(product, leaves)])
    for got, want in zip(*results, strict=True):
        got, want = got.detach().double(), want.detach()
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.abs().max()) + 1e-7)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", [0.0, -1.0], ids=["inside", "clipped"])
def test_quantize(method, start):
    x, t = (torch.randn(4, 5)).requires_grad_(), threshold(method, start)
    y = ops.quantize(x, oracle.output(threshold=t))
    x64, t64 = same(x), None if t is None else same(t)
    compare(y.value, quantized(x64, y, t64), [x, t], [x64, t64])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "gate", "square"])
def test_pairs(name, method):
    t = threshold(method, 0.0)
    x, y = grid((2, 3, 4)), grid((3, 1) if name == "gate" else (2, 3, 4))
    y = x if name == "square" else y
    call = {"add": ops.add, "sub": ops.sub}.get(name, ops.mul)
    expression = {"add": torch.add, "sub": torch.sub}.get(name, torch.mul)
    out = call(x, y, oracle.output(threshold=t))
    x64, t64 = same(x.value), None if t is None else same(t)
    y64 = x64 if name == "square" else same(y.value)
    z = expression(x64, y64) if name in ("mul", "gate", "square") else None
    if z is None:  # each operand is re-rounded first; the grid is no finer than the result's or the codes say so
        sign = 1 if name == "add" else -1
        parts = [straight(v, (v * out.scale.double() + 0.5).floor() / out.scale) for v in (x64, y64)]
        z = parts[0] + sign * parts[1]
        z = straight(expression(x64, y64), z) if t is None else z
    mine, theirs = [x.value, y.value, t], [x64, y64, t64]
    if name == "square":
        mine, theirs = mine[1:], theirs[1:]
    compare(out.value, quantized(z, out, t64), mine, theirs)


@pytest.mark.parametrize("method", METHODS)
def test_affine(method):
    x, b, t = grid((3, 4)), torch.tensor([0.25], requires_grad=True), threshold(method, 1.0)
    out = ops.affine(x, 24, 5, b, oracle.output(threshold=t))
    x64, b64, t64 = same(x.value), same(b), None if t is None else same(t)
    compare(out.value, quantized(x64 * 0.75 + b64, out, t64), [x.value, b, t], [x64, b64, t64])


def test_div():
    x, y = grid((3, 4), 10, dtype=torch.int32), grid((3, 4), 10, 0.25, torch.int32)
    y.codes[0, 0] = 0
    with torch.no_grad():
        y.value[0, 0] = 0
    out = ops.div(x, y, oracle.output(bits=32))
    x64, y64 = same(x.value), same(y.value)
    inside = y64 != 0
    z = torch.where(inside, x64 / torch.where(inside, y64, 1.0), 0.0)
    compare(out.value, straight(z, out.value.double()), [x.value, y.value], [x64, y64])


CURVES = {
    "sigmoid": (0, torch.sigmoid),
    "tanh": (1, torch.tanh),
    "venus": (4, torch.sigmoid),
    "venusA": (3, torch.tanh),
}


@pytest.mark.parametrize("name", CURVES)
def test_sigmoid_and_tanh(name):
    table, curve = CURVES[name]
    x = grid((5, 6), 5)
    out = ops.activation(x, table, 8)
    x64 = same(x.value)
    compare(out.value, straight(curve(x64), out.value.double()), [x.value], [x64])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("table", [6, 7], ids=["gelu", "silu"])
def test_gelu_and_silu(table, method):
    x, t = grid((5, 6), 5), threshold(method, 1.0)
    out = ops.quantized_activation(x, table, wide(t))
    x64 = same(x.value)
    z = F.gelu(x64) if table == 6 else F.silu(x64)
    compare(out.value, straight(z, out.value.double()), [x.value], [x64])
    if t is not None:  # the rule sees the chip's function, a table, in place of the exact one
        again = ops.quantized_activation(x, table, oracle.output(threshold=t)).value
        (first,) = torch.autograd.grad(again.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first, t)
        torch.testing.assert_close(second, math.log(2.0) * first.detach())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dim", [-1, 0])
def test_glu(dim, method):
    x, t = grid((4, 6)), threshold(method, 0.0)
    out = ops.glu(x, oracle.output(threshold=t), chip=0, dim=dim)
    x64 = same(x.value)
    compare(out.value, straight(F.glu(x64, dim), out.value.double()), [x.value], [x64])


class Jacobian(torch.autograd.Function):
    """The softmax of the written rule: a given result, whose Jacobian is the gradient."""

    @staticmethod
    def forward(ctx, x, result):
        y = result.clone()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return y * (grad - (grad * y).sum(-1, keepdim=True)), None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
def test_softmax(log, method):
    x, t = grid((3, 5), 4), threshold(method, 2.0)
    out = ops.softmax(x, wide(t), chip=0, log=log)
    x64 = same(x.value)
    if log:
        z = straight(x64.log_softmax(-1), out.value.double())
    else:
        z = Jacobian.apply(x64, out.value.detach().double())
    compare(out.value, z, [x.value], [x64])


@pytest.mark.parametrize("method", METHODS)
def test_bmm(method):
    x, y, t = grid((2, 3, 4)), grid((2, 4, 5)), threshold(method, 1.0)
    out = ops.bmm(x, y, oracle.output(threshold=t))
    x64, y64, t64 = same(x.value), same(y.value), None if t is None else same(t)
    compare(out.value, quantized(x64 @ y64, out, t64), [x.value, y.value, t], [x64, y64, t64])


def leaves(method: str, shape: tuple[int, ...], o: int) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Weight, bias and both thresholds."""
    w, b = torch.randn(shape).mul(0.3).requires_grad_(), torch.randn(o).requires_grad_()
    mine = [w, b, threshold(method, -0.5), threshold(method, 1.0)]
    return mine, [None if p is None else same(p) for p in mine]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [(5,), (2, 3)])
def test_linear(rows, method, relu):
    x = grid((*rows, 6))
    (w, b, tw, to), others = leaves(method, (4, 6), 4)
    spec = oracle.output(threshold=tw)
    w_scale = ops.quantize_weight(w.detach(), oracle.output(threshold=tw), b.detach(), x.scale)[1]
    out = ops.linear(x, w, b, spec, oracle.output(threshold=to, relu=relu))
    x64 = same(x.value)
    w64, b64, tw64, to64 = others
    wq = quantized(w64, Coded(w, w, w_scale), tw64, half_even=True)
    z = F.linear(x64, wq, b64 + bias_error(b64, x.scale, w_scale))
    compare(out.value, quantized(z, out, to64, relu=relu), [x.value, w, b, tw, to], [x64, *others])


def bias_error(b: Tensor, x_scale: Tensor, w_scale: Tensor) -> Tensor:
    scale = (x_scale * w_scale).double()
    return ((b * scale).round() / scale - b).detach()


SHAPES = {
    "3x3": ((4, 3, 3, 3), Geometry([1, 1], [1, 1, 1, 1], [1, 1], 1)),
    "strided": ((4, 3, 3, 2), Geometry([2, 1], [1, 0, 0, 1], [1, 2], 1)),
    "depthwise": ((3, 1, 3, 3), Geometry([1, 1], [0, 0, 0, 0], [1, 1], 3)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SHAPES)
def test_conv(name, method):
    shape, g = SHAPES[name]
    x = grid((2, 3, 6, 7))
    (w, b, tw, to), others = leaves(method, shape, shape[0])
    w_scale = ops.quantize_weight(w.detach(), oracle.output(threshold=tw), b.detach(), x.scale)[1]
    out = ops.conv(x, w, b, g, oracle.output(threshold=tw), oracle.output(threshold=to))
    x64 = same(x.value)
    w64, b64, tw64, to64 = others
    wq = quantized(w64, Coded(w, w, w_scale), tw64, half_even=True)
    top, left, bottom, right = g.padding
    bias = b64 + bias_error(b64, x.scale, w_scale)
    z = F.conv2d(F.pad(x64, (left, right, top, bottom)), wq, bias, tuple(g.stride), 0, tuple(g.dilation), g.groups)
    compare(out.value, quantized(z, out, to64), [x.value, w, b, tw, to], [x64, *others])


SPACINGS = {
    "plain": ((3, 4, 3, 3), ops.Spacing()),
    "strided": ((3, 4, 3, 2), ops.Spacing((2, 3), (1, 0), (1, 2))),
    "depthwise": ((3, 1, 3, 3), ops.Spacing((2, 2), (1, 1), (0, 0), (1, 2), 3)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPACINGS)
def test_conv_transpose(name, method):
    shape, g = SPACINGS[name]
    x, o = grid((2, 3, 4, 5)), shape[1] * g.groups
    (w, b, tw, to), others = leaves(method, shape, o)
    w_scale = ops.quantize_weight(w.detach(), oracle.output(threshold=tw), b.detach(), x.scale)[1]
    out = ops.conv_transpose(x, w, b, g, oracle.output(threshold=tw), oracle.output(threshold=to))
    x64 = same(x.value)
    w64, b64, tw64, to64 = others
    wq = quantized(w64, Coded(w, w, w_scale), tw64, half_even=True)
    bias = b64 + bias_error(b64, x.scale, w_scale)
    z = F.conv_transpose2d(x64, wq, bias, g.stride, g.padding, g.output_padding, g.groups, g.dilation)
    compare(out.value, quantized(z, out, to64), [x.value, w, b, tw, to], [x64, *others])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_layer_norm(method, affine):
    x, t = grid((3, 8), 4), threshold(method, 2.0)
    gamma, beta = (
        torch.rand(8).requires_grad_() if affine else None,
        torch.randn(8).requires_grad_() if affine else None,
    )
    gamma_t = threshold(method, 0.5) if affine else None
    args = (oracle.output(threshold=gamma_t), wide(t))
    out = ops.layer_norm(x, gamma, beta, *args, shape=(8,))
    x64 = same(x.value)
    g64, b64 = (None if p is None else same(p) for p in (gamma, beta))
    gq = None
    if gamma is not None:
        codes, scale, *_ = ops.quantize_weight(
            gamma.detach(), oracle.output(threshold=gamma_t), beta, torch.tensor(1024.0)
        )
        gq = straight(g64, codes.double() / scale.double())
    z = straight(F.layer_norm(x64, (8,), gq, b64), out.value.double())
    mine, theirs = [x.value, gamma, beta], [x64, g64, b64]
    compare(out.value, z, mine, theirs)


def test_third_derivative():
    """A graph of a graph is a graph."""
    x = grid((4, 5), 5)
    v, x64 = x.value, same(x.value)
    results = []
    for leaf, y in ((v, ops.activation(x, 1, 8).value), (x64, None)):
        z = straight(torch.tanh(leaf), results[0][1]) if y is None else y
        g = torch.autograd.grad(z.pow(2).sum(), leaf, create_graph=True)[0]
        g = torch.autograd.grad(g.pow(2).sum(), leaf, create_graph=True)[0]
        results.append((torch.autograd.grad(g.pow(2).sum(), leaf)[0].double(), z.detach().double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-3, atol=1e-4)


def test_the_first_order_keeps_no_float_operand():
    """What remembers an operand's place in the graph does not remember its elements."""
    x = grid((64, 64))
    inner = x.value * 1
    product = ops.mul(Coded(inner, x.codes, x.scale), grid((64, 64)), oracle.output()).value
    node = product.grad_fn
    place = node.links[0]
    assert place.untyped_storage().nbytes() == 0 and place.grad_fn is not None


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("affine", [True, False])
def test_fold_bn(affine, transposed):
    mine = [torch.randn(4, 2, 3).requires_grad_(), *(torch.rand(4).add(0.5).requires_grad_() for _ in range(5))]
    if not affine:
        mine[1] = mine[2] = mine[3] = None
    others = [None if p is None else same(p) for p in mine]
    limits = (0.8, 0.0, 0.7)
    folded = ops.fold_bn(*mine, 1e-5, 2, transposed, *limits)
    w, b, gamma, beta, mean, var = others
    factor = (1.0 if gamma is None else gamma) / (var + 1e-5).sqrt()
    shift = ((0.0 if b is None else b) - mean) * factor + (0.0 if beta is None else beta)
    shape = (2, 1, 2, 1) if transposed else (4, 1, 1)
    real = (w.reshape(2, 2, 2, 3) if transposed else w) * factor.reshape(shape)
    parts = real.reshape(4, 2, 3).clamp(-0.8, 0.8), shift.clamp(-0.7, 0.7)
    y, z = (torch.cat([p.flatten() for p in pair]) for pair in (folded, parts))
    compare(y, z, mine, others)
