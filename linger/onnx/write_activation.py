"""Float activations as standard ONNX nodes."""

from __future__ import annotations

import math

from torch import Tensor

from .write_call import Call, Piece, Value, Writer, Written, add, ints, writes
from .write_math import clip, unary

_SAME = {
    "torch.relu Tensor.relu F.relu": "Relu",
    "torch.sigmoid Tensor.sigmoid F.sigmoid special.expit": "Sigmoid",
    "torch.tanh Tensor.tanh F.tanh": "Tanh",
    "torch.selu F.selu": "Selu",
    "F.softsign": "Softsign",
}
for _spellings, _op in _SAME.items():
    add(_spellings, "input inplace=False", unary(_op))

add("F.relu6", "input inplace=False", lambda c: clip(c, 0.0, 6.0))
add("F.hardtanh", "input min_val=-1.0 max_val=1.0 inplace=False", lambda c: clip(c, c["min_val"], c["max_val"]))


@writes("F.leaky_relu", "input negative_slope=0.01 inplace=False")
def _leaky_relu(c: Call) -> Written:
    return c.node("LeakyRelu", c(), alpha=float(c["negative_slope"]))


@writes("torch.prelu Tensor.prelu F.prelu", "input weight")
def _prelu(c: Call) -> Written:
    weight: Tensor = c["weight"]
    if weight.dim() == 1 and c.rank > 1 and weight.numel() > 1:
        fixed = c.fixed(weight)
        shape = [-1] + [1] * (c.rank - 2)
        if fixed is None:
            return c.node("PRelu", c(), c.node("Reshape", c("weight"), ints(*shape)))
        return c.node("PRelu", c(), c.constant(weight, fixed.reshape(shape), "channels"))
    return c.node("PRelu", c(), c("weight"))


@writes("F.elu", "input alpha=1.0 inplace=False")
def _elu(c: Call) -> Written:
    return c.node("Elu", c(), alpha=float(c["alpha"]))


@writes("torch.celu F.celu", "input alpha=1.0 inplace=False")
def _celu(c: Call) -> Written:
    alpha = float(c["alpha"])  # alpha * elu(x / alpha); the operator Celu came with opset 12
    return c.node("Mul", c.node("Elu", c.node("Div", c(), alpha), alpha=1.0), alpha)


@writes("F.gelu", "input approximate='none'")
def _gelu(c: Call) -> Written:
    x = c()
    if c["approximate"] == "none":
        inner = c.node("Erf", c.node("Mul", x, math.sqrt(0.5)))
    else:
        cubic = c.node("Mul", c.node("Mul", c.node("Mul", x, x), x), 0.044715)
        inner = c.node("Tanh", c.node("Mul", c.node("Add", x, cubic), math.sqrt(2.0 / math.pi)))
    return c.node("Mul", c.node("Mul", x, 0.5), c.node("Add", inner, 1.0))


@writes("F.silu", "input inplace=False")
def _silu(c: Call) -> Written:
    return c.node("Mul", c(), c.node("Sigmoid", c()))


@writes("F.mish", "input inplace=False")
def _mish(c: Call) -> Written:
    return c.node("Mul", c(), c.node("Tanh", c.node("Softplus", c())))


def _hard_sigmoid(c: Call) -> Value:
    return c.node("HardSigmoid", c(), alpha=1.0 / 6.0, beta=0.5)


add("F.hardsigmoid", "input inplace=False", _hard_sigmoid)
add("F.hardswish", "input inplace=False", lambda c: c.node("Mul", c(), _hard_sigmoid(c)))


@writes("F.softplus", "input beta=1.0 threshold=20.0")
def _softplus(c: Call) -> Written:
    beta = float(c["beta"])
    if float(c["threshold"]) < 15.0:
        c.refuse("threshold below 15 makes a visible step")
    if beta == 1.0:
        return c.node("Softplus", c())
    return c.node("Div", c.node("Softplus", c.node("Mul", c(), beta)), beta)


@writes("F.logsigmoid", "input")
def _log_sigmoid(c: Call) -> Written:
    return c.node("Neg", c.node("Softplus", c.node("Neg", c())))


@writes("F.tanhshrink", "input")
def _tanhshrink(c: Call) -> Written:
    return c.node("Sub", c(), c.node("Tanh", c()))


@writes("F.hardshrink torch.hardshrink Tensor.hardshrink", "input lambd=0.5")
def _hardshrink(c: Call) -> Written:
    return c.node("Where", c.node("Greater", c.node("Abs", c()), float(c["lambd"])), c(), 0.0)


@writes("F.softshrink", "input lambd=0.5")
def _softshrink(c: Call) -> Written:
    limit = float(c["lambd"])
    return c.node("Sub", c(), c.node("Clip", c(), -limit, limit))


@writes("F.threshold torch.threshold", "input threshold value inplace=False")
def _threshold(c: Call) -> Written:
    return c.node("Where", c.node("Greater", c(), float(c["threshold"])), c(), float(c["value"]))


@writes("F.glu", "input dim=-1")
def _glu(c: Call) -> Written:
    axis = c.axis()
    half = c.x.shape[axis] // 2
    kept, gate = c.nodes("Split", 2, c(), axis=axis, split=[half, half])
    return c.node("Mul", kept, c.node("Sigmoid", gate))


def _along_last(c: Call, op_type: str, x: Piece, axis: int) -> Value:
    """An operator that opset 12 flattens from ``axis`` on: the axis is moved to the end and back."""
    rank = c.rank
    if axis == rank - 1:
        return c.node(op_type, x, axis=axis)
    perm = list(range(rank))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    return c.node("Transpose", c.node(op_type, c.node("Transpose", x, perm=perm), axis=rank - 1), perm=perm)


def _softmax(op_type: str, negated: bool = False) -> Writer:
    def write(c: Call) -> Written:
        x: Piece = c("input", c.dtype)
        if c.rank == 0:
            c.refuse("a scalar has no axis")
        axis = c.axis() if c["dim"] is not None else (0 if c.rank in (1, 3) else 1)  # torch's implicit axis
        return _along_last(c, op_type, c.node("Neg", x) if negated else x, axis)

    return write


_DIM = "input dim=None _stacklevel=3 dtype=None"
add("F.softmax", _DIM, _softmax("Softmax"))
add("torch.softmax Tensor.softmax special.softmax", "input dim dtype=None", _softmax("Softmax"))
add("F.log_softmax", _DIM, _softmax("LogSoftmax"))
add("torch.log_softmax Tensor.log_softmax special.log_softmax", "input dim dtype=None", _softmax("LogSoftmax"))
add("F.softmin", _DIM, _softmax("Softmax", negated=True))
