"""Convolutions, linear layers, matrix products: float32 sums that no order of addition changes, else float64.

A sum of integers is exact in float32 while no part of it can pass 2**24. The bound is that of the weights, output channel by
output channel. Above it the summed channels are cut into slices, and weights of one channel into digits, until each part
stays below; the parts are added in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .graph import EXACT, F32, F64, I64, Array
from .node import Node, writes

_SLACK = 100  # exponents that float32 has below 1


class Product(Protocol):
    """The sum of products in standard operators."""

    def __call__(self, x: str, weight: str, bias: Array | None) -> str:
        """Of x, a weight and, unless None, a float32 bias."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Args:
        weight: Codes, in the layout of the standard operator.
        bias: Codes, or None.
        shift: To the right; below 0 for 32-bit results.
        bits: Width of the result.
        saturates: The sum does, at 32 bits.
        axes: Of the weight, summed over.
        bias_shape: That of the bias beside the result.
        product: The sum.
        cut: Axis of the weight, among ``axes``, and the axis of x that it meets; None: groups.
        wraps: A shift to the left loses the upper bits.
    """

    weight: Array
    bias: Array | None
    shift: int
    bits: int
    saturates: bool
    axes: tuple[int, ...]
    bias_shape: tuple[int, ...]
    product: Product
    cut: tuple[int, int] | None
    wraps: bool = False


def reach(w: Array, axes: tuple[int, ...], positive: bool) -> Array:
    """The largest magnitude, per output channel, that any part of the sum of 8-bit codes times ``w`` can have."""
    if positive:
        most: Array = 127 * np.maximum(np.maximum(w, 0).sum(axes), np.maximum(-w, 0).sum(axes))
    else:
        most = 128 * np.abs(w).sum(axes)
    return most


def slices(w: Array, axis: int, axes: tuple[int, ...], positive: bool) -> list[int]:
    """Sizes of the fewest slices of an axis whose sums stay exact; one element where even that does not."""
    sizes, first, count = [], 0, w.shape[axis]
    while first < count:
        low, high = 1, count - first
        while low < high:
            middle = (low + high + 1) // 2
            part = w.take(range(first, first + middle), axis)
            low, high = (middle, high) if reach(part, axes, positive).max() <= EXACT else (low, middle - 1)
        sizes.append(low)
        first += low
    return sizes


def digits(n: Node, w: Array, axes: tuple[int, ...], positive: bool, width: int = 8) -> Iterator[tuple[Array, int]]:
    """The weight as a sum of ``part * 2**k`` whose products have exact sums."""
    if reach(w, axes, positive).max() <= EXACT:
        yield w, 0
    elif width == 1:
        n.refuse(f"a sum of {w[0].size} products is too long for float32")
    else:
        half = width // 2
        yield from digits(n, w & ((1 << half) - 1), axes, positive, half)
        yield from ((part, k + half) for part, k in digits(n, w >> half, axes, positive, width - half))


def write_layer(n: Node, layer: Layer) -> None:
    """Output 0: sat_bits(RSH(sum + bias, shift)), a ReLU included."""
    g, s, w, axes = n.g, layer.shift, layer.weight.astype(np.int64), layer.axes
    x, positive = n.codes(0), n.value(0).positive
    size, half = reach(w, axes, positive), 1 << s - 1 if s > 0 else 0
    moved = half + (np.zeros(size.shape, np.int64) if layer.bias is None else layer.bias.astype(np.int64))
    if layer.bits <= 16 and 0 <= s <= _SLACK and (size + np.abs(moved)).max() <= EXACT:
        y = layer.product(x, g.decoded(w.astype(np.int8), F32, -s), (moved * 2.0**-s).astype(F32))
        y = g.op("Floor", y) if s else y
        n.put(g.clip(y, layer.bits, F32, n.low), layer.bits)
        return
    total = _wide_sum(n, layer, w, x, positive)
    if layer.bias is not None:
        total = g.op("Add", total, g.decoded(layer.bias.reshape(layer.bias_shape), F64))
    if layer.saturates or s < 0:
        total = g.clip(total, 32)
    if s < 0 and layer.wraps:
        total = total if n.low is None else g.op("Relu", total)
        n.put(g.scale(wrapped(g, total, 32 + s), -s), 32, positive=False)
    else:
        n.narrow(total, s, layer.bits)


def _wide_sum(n: Node, layer: Layer, w: Array, x: str, positive: bool) -> str:
    g, parts = n.g, [(x, w)]
    if layer.cut is not None:
        axis, x_axis = layer.cut
        sizes = slices(w, axis, layer.axes, positive)
        if len(sizes) > 1:
            xs = g.ops("Split", [x, g.ints(*sizes)], len(sizes), axis=x_axis)
            parts = list(zip(xs, np.split(w, np.cumsum(sizes)[:-1], axis), strict=True))
    total = ""
    for x_part, w_part in parts:
        for digit, k in digits(n, w_part, layer.axes, positive):
            y = g.scale(g.to(layer.product(x_part, g.decoded(digit.astype(np.int8)), None), F64), k)
            total = g.op("Add", total, y) if total else y
    return total


def wrapped(g: Any, x: str, bits: int) -> str:
    """The low ``bits`` of float64 integers, signed."""
    turns = g.floor(g.add(x, 2.0 ** (bits - 1)), -bits)
    return str(g.op("Sub", x, g.scale(turns, bits)))


def _right(n: Node) -> int:
    return n.scale("scale_x") + n.scale("scale_w") - n.scale("scale_o")


@writes("Conv2dInt", "QConv2d", "QConvBN2d", "Conv1dInt", "QConv1d")
def write_conv(n: Node) -> None:
    """``sat_8(RSH(sat_32(sum + bias), s))``."""
    w, b = n.constant(1), n.array(2)
    dims, group = w.ndim - 2, n.integer("group", 1)
    window: dict[str, Any] = {
        "kernel_shape": list(w.shape[2:]),
        "strides": n.integers("strides"),
        "pads": n.integers("pads", None, (0,) * 2 * dims),
        "dilations": n.integers("dilations", None, (1,) * dims),
        "group": group,
    }

    def product(x: str, weight: str, bias: Array | None) -> str:
        return n.g.op("Conv", x, weight, *([] if bias is None else [n.g.const(bias)]), **window)

    over, beside = tuple(range(1, w.ndim)), (-1, *[1] * dims)
    cut = (1, 1) if group == 1 else None
    write_layer(n, Layer(w, b, _right(n), n.integer("o_bits", 8), True, over, beside, product, cut, wraps=True))


@writes("ConvTranspose2dInt", "QConvTranspose2d")
def write_conv_transpose(n: Node) -> None:
    """The same, transposed."""
    w, b = n.constant(1), n.array(2)
    window: dict[str, Any] = {
        "kernel_shape": list(w.shape[2:]),
        "strides": n.integers("strides"),
        "pads": n.integers("pads", None, (0, 0, 0, 0)),
        "output_padding": n.integers("output_padding", None, (0, 0))[:2],
    }

    def product(x: str, weight: str, bias: Array | None) -> str:
        return n.g.op("ConvTranspose", x, weight, *([] if bias is None else [n.g.const(bias)]), **window)

    write_layer(n, Layer(w, b, _right(n), 8, True, (0, 2, 3), (-1, 1, 1), product, (0, 1)))


@writes("LinearInt", "QLinear")
def write_linear(n: Node) -> None:
    """``sat_b(RSH(x . w + bias, s))``; a 32-bit result with s < 0 saturates before and behind the shift."""
    w, b = np.ascontiguousarray(n.constant(1).T), n.array(2)

    def product(x: str, weight: str, bias: Array | None) -> str:
        y = n.g.op("MatMul", x, weight)
        return y if bias is None else n.g.op("Add", y, n.g.const(bias))

    write_layer(n, Layer(w, b, _right(n), n.integer("o_bits", 8), False, (0,), (-1,), product, (0, -1)))


@writes("BmmInt", "QBmm")
def write_bmm(n: Node) -> None:
    """``sat_b(RSH(x @ y, s))``."""
    length, bits = n.shape(0)[-1], n.integer("o_bits", 8)
    s = n.scale("scale_x") + n.scale("scale_y") - n.scale("scale_o")
    narrow = length is not None and length * 128 * 128 <= EXACT
    kind = F32 if narrow else F64
    y = n.g.op("MatMul", n.codes(0, kind), n.codes(1, kind))
    if narrow and (bits == 32 or s > 23):  # the rounding of a long shift needs more than float32
        y, kind = n.g.to(y, F64), F64
    n.narrow(y, s, bits, kind)


@writes("BatchNorm2dInt", "QBatchNorm2d")
def write_batch_norm(n: Node) -> None:
    """``sat_8(RSH(x * w_c + b_c, s))``."""
    w, b = (n.constant(i).astype(I64).reshape(-1, 1, 1) for i in (1, 2))
    s = _right(n)
    moved = b + (1 << s - 1 if s > 0 else 0)
    kind = F32 if 0 <= s <= _SLACK and (np.abs(w) * 128 + np.abs(moved)).max() <= EXACT else F64
    y = n.g.op("Mul", n.codes(0, kind), n.g.const(w * 2.0**-s, kind))
    y = n.g.op("Add", y, n.g.const(moved * 2.0**-s, kind))
    n.narrow(n.g.op("Floor", y) if s > 0 else y, 0, 8, kind)
