"""Files with QuantizeLinear and DequantizeLinear around float operators: for other vendors' compilers, close to the chips."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from linger.chip import limits_of
from linger.ops.layer_norm import CHIP_EPS, NORM_EXP2

from .graph import F32, Array
from .node import QDQ_FORM, Node, writes
from .pool import write_pool
from .translate import Translation, opened

if TYPE_CHECKING:
    from onnx import ModelProto

DIFFERENCES = (
    "rounds half to even, the chips half up; a sum of two tensors is rounded once, not each operand; averages divide by the true "
    "count; sigmoid, tanh, softmax, GELU and LayerNorm are the real functions; nothing saturates at 32 bits; results of 16 "
    "and 32 bits are not rounded"
)


def to_qdq(model: str | os.PathLike[str] | bytes | ModelProto) -> ModelProto:
    """The same network as float operators between QuantizeLinear and DequantizeLinear, int8, for other vendors' compilers.

    Close to the chip, **not** its integers: QuantizeLinear rounds half to even, sums of tensors are rounded once, averages
    divide by the true count, functions are the real ones, nothing saturates at 32 bits, results of 16 and 32 bits are not
    rounded. The metadata say so, too. For the chip's integers there is :func:`to_standard`.

    Args:
        model: A file of ``linger.onnx.export`` or of the packer's contract: path, bytes, or ModelProto.

    Returns:
        The model; opset 13, IR version 7, per-tensor scales that are powers of two, zero points 0. Every initializer has
        one reader.

    Raises:
        ModelError: The file is refused, as ``OnnxRunner`` refuses it.
        UnsupportedError: LSTM and GRU, ArgMax, iqDiv of two 32-bit tensors: they have no such form; the message names the node.

    Source: docs/onnx.md.
    """
    proto, runner = opened(model)
    return Translation(runner, QDQ_FORM).model(proto, metadata={"linger.differs": DIFFERENCES})


def _scale(n: Node, exp2: int) -> str:
    return n.g.const(2.0**-exp2, F32, shared=False)


def _stored(n: Node, array: Array, exp2: int) -> str:
    """Integers of the file as floats; an initializer of their own, which runtimes that rewrite int8 weights need."""
    zero = n.g.const(0, array.dtype.type, shared=False)
    return n.g.op("DequantizeLinear", n.g.const(array, shared=False), _scale(n, exp2), zero)


def _real(n: Node, i: int, exp2: int) -> str:
    """Input ``i`` as floats."""
    array, value = n.array(i), n.value(i)
    if array is not None and array.dtype == np.int8:
        return _stored(n, array, exp2)
    return n.g.scale(value.name, -exp2, F32) if value.bits else value.name


def _quantized(n: Node, x: str, exp2: int, bits: int = 8) -> None:
    """Output 0: x rounded to ``bits`` at this scale. 16 and 32 bits stay as they are: QuantizeLinear has 8 in opset 13."""
    if n.low == 0:
        x = n.g.op("Relu", x)
    if bits == 8:
        x = n.g.op("QuantizeLinear", x, _scale(n, exp2), n.g.const(0, np.int8, shared=False))
        x = n.g.op("DequantizeLinear", x, _scale(n, exp2), n.g.const(0, np.int8, shared=False))
    n.put(x, 0)


@writes("Quant", "Requant", forms=(QDQ_FORM,))
def write_quant(n: Node) -> None:
    """A border, or a change of scale."""
    border = n.op_type == "Quant"
    bits = n.integer("data_bits" if border else "o_bits", 8)
    _quantized(n, _real(n, 0, n.scale("scale_x")), n.scale("scale_x" if border else "scale_o"), bits)


@writes("Dequant", forms=(QDQ_FORM,))
def write_dequant(n: Node) -> None:
    """The floats are there."""
    n.put(_real(n, 0, n.scale("scale_o")))


def _window(n: Node, axes: int) -> dict[str, Any]:
    return {"strides": n.integers("strides"), "pads": n.integers("pads", None, (0,) * 2 * axes)}


def _layer(n: Node, op_type: str, weight: Array, bias_shape: Sequence[int], **attributes: Any) -> None:
    """A layer with weight and bias; the bias has the exponent of the sum."""
    e_w, e_x, b = n.scale("scale_w"), n.scale("scale_x"), n.array(2)
    ins, added = [_real(n, 0, e_x), _stored(n, weight, e_w)], b is not None and op_type in ("MatMul", "Mul")
    if b is not None:
        ins.append(_stored(n, b.reshape(bias_shape), e_w + e_x))
    y = n.g.op(op_type, *ins[: 2 if added else 3], **attributes)
    _quantized(n, n.g.op("Add", y, ins[2]) if added else y, n.scale("scale_o"), n.integer("o_bits", 8))


@writes("Conv2dInt", "QConv2d", "QConvBN2d", "Conv1dInt", "QConv1d", forms=(QDQ_FORM,))
def write_conv(n: Node) -> None:
    """A convolution."""
    w = n.constant(1)
    axes = w.ndim - 2
    more = {"dilations": n.integers("dilations", None, (1,) * axes), "group": n.integer("group", 1)}
    _layer(n, "Conv", w, (-1,), kernel_shape=list(w.shape[2:]), **_window(n, axes), **more)


@writes("ConvTranspose2dInt", "QConvTranspose2d", forms=(QDQ_FORM,))
def write_conv_transpose(n: Node) -> None:
    """A transposed one."""
    w, extra = n.constant(1), n.integers("output_padding", None, (0, 0))[:2]
    _layer(n, "ConvTranspose", w, (-1,), kernel_shape=list(w.shape[2:]), output_padding=extra, **_window(n, 2))


@writes("LinearInt", "QLinear", forms=(QDQ_FORM,))
def write_linear(n: Node) -> None:
    """A linear layer of any rank."""
    _layer(n, "MatMul", np.ascontiguousarray(n.constant(1).T), (-1,))


@writes("BatchNorm2dInt", "QBatchNorm2d", forms=(QDQ_FORM,))
def write_batch_norm(n: Node) -> None:
    """A factor and an offset per channel."""
    _layer(n, "Mul", n.constant(1).reshape(-1, 1, 1), (-1, 1, 1))


_PAIRS = {
    "iqAdd": "Add",
    "QAdd": "Add",
    "iqSub": "Sub",
    "iqMul": "Mul",
    "QMul": "Mul",
    "BmmInt": "MatMul",
    "QBmm": "MatMul",
}


@writes(*_PAIRS, forms=(QDQ_FORM,))
def write_pair(n: Node) -> None:
    """An operator of two tensors."""
    operands = [_real(n, i, n.scale(name)) for i, name in enumerate(("scale_x", "scale_y"))]
    _quantized(n, n.g.op(_PAIRS[n.op_type], *operands), n.scale("scale_o"), n.integer("o_bits", 8))


@writes("iqDiv", forms=(QDQ_FORM,))
def write_div(n: Node) -> None:
    """A quotient by a power of two."""
    if n.bits_of(0) == 32:
        n.refuse("the quotient of two 32-bit tensors has no form in QuantizeLinear and DequantizeLinear")
    power = int(n.constant(1)).bit_length() - 1
    y = n.g.scale(_real(n, 0, n.scale("scale_x")), n.scale("scale_y") - power, F32)
    _quantized(n, y, n.scale("scale_o"))


@writes("iqCat", "QCat", forms=(QDQ_FORM,))
def write_cat(n: Node) -> None:
    """Tensors side by side."""
    parts = [_real(n, i, n.scale(f"scale_x_{i}")) for i in range(n.n_inputs)]
    joined = n.g.op("Concat", *parts, axis=n.integer("dim" if n.has("dim") else "axis"))
    _quantized(n, joined, n.scale("scale_o"))


@writes("AvgPool2dInt", "QAvgPool2d", forms=(QDQ_FORM,))
def write_avg_pool(n: Node) -> None:
    """An average."""
    exp2 = n.scale("scale_x")
    y = write_pool(n, "AveragePool", _real(n, 0, exp2), 0, count_include_pad=1)
    _quantized(n, y, n.scale("scale_o") if n.has("scale_o") else exp2)


@writes("MaxPool", forms=(QDQ_FORM,))
def write_max_pool(n: Node) -> None:
    """A maximum."""
    n.put(write_pool(n, "MaxPool", n.value(0).name, float(np.finfo(F32).min)))


@writes("Gather", forms=(QDQ_FORM,))
def write_gather(n: Node) -> None:
    """Rows of a table of codes, or of anything."""
    data = _real(n, 0, n.scale("scale_o")) if n.has("scale_o") else n.value(0).name
    n.put(n.g.op("Gather", data, n.value(1).name, axis=n.integer("axis", 0)))


def _swish(g: Any, x: str) -> str:
    return str(g.op("Mul", x, g.op("Sigmoid", x)))


def _gelu(g: Any, x: str) -> str:
    erf = g.op("Erf", g.mul(x, 2.0**-0.5, F32))
    return str(g.op("Mul", g.mul(x, 0.5, F32), g.add(erf, 1.0, F32)))


_CURVES: dict[str, Callable[[Any, str], str]] = {
    "Sigmoid": lambda g, x: str(g.op("Sigmoid", x)),
    "Tanh": lambda g, x: str(g.op("Tanh", x)),
    "Gelu": _gelu,
    "Swish": _swish,
}


@writes("iqSigmoid", "QSigmoid", "iqTanh", "QTanh", "QGelu", "QSwish", forms=(QDQ_FORM,))
def write_curve(n: Node) -> None:
    """The real function."""
    real = _CURVES[n.op_type.removeprefix("iq").removeprefix("Q")]
    _quantized(n, real(n.g, _real(n, 0, n.scale("scale_x"))), n.scale("scale_o"), n.integer("o_bits", 8))


@writes("GluInt", forms=(QDQ_FORM,))
def write_glu(n: Node) -> None:
    """A gated half."""
    a, b = n.g.ops("Split", [_real(n, 0, n.scale("scale_x"))], 2, axis=n.integer("dim", -1))
    _quantized(n, n.g.op("Mul", a, n.g.op("Sigmoid", b)), n.scale("scale_o"), n.integer("o_bits", 8))


@writes("SoftmaxInt", "QSoftmax", "LogSoftmaxInt", forms=(QDQ_FORM,))
def write_softmax(n: Node) -> None:
    """Rows from the engine's axis on."""
    rank, axis = len(n.shape(0)), n.integer("axis" if n.has("axis") else "dim", -1)
    first = axis % rank if axis < 0 or limits_of(n.platform).softmax_axis else 1
    x, op_type = _real(n, 0, n.scale("scale_x")), "LogSoftmax" if n.op_type.startswith("Log") else "Softmax"
    if first == rank - 1:
        y = n.g.op(op_type, x, axis=-1)
    else:
        y = n.reshaped(n.g.op(op_type, n.g.op("Flatten", x, axis=first), axis=-1))
    _quantized(n, y, n.scale("scale_o"), n.bits_of(0))


@writes("LayerNormInt", "QLayerNorm2d", forms=(QDQ_FORM,))
def write_layer_norm(n: Node) -> None:
    """Rows of as many elements as gamma has."""
    g, gamma, beta, e_w = n.g, n.constant(1), n.constant(2), n.scale("scale_w")
    x = g.op("Reshape", _real(n, 0, n.scale("scale_x")), g.ints(-1, gamma.size))
    d = g.op("Sub", x, g.op("ReduceMean", x, axes=[-1]))
    variance = g.add(g.op("ReduceMean", g.op("Mul", d, d), axes=[-1]), CHIP_EPS, F32)
    y = g.mul(g.op("Div", d, g.op("Sqrt", variance)), gamma * 2.0**-e_w, F32)
    y = g.op("Add", y, g.const(beta * 2.0 ** -(NORM_EXP2 + e_w), F32))
    _quantized(n, n.reshaped(y), n.scale("scale_o"))


__all__ = ["to_qdq"]
