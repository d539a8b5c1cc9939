"""Average and maximum pooling, and places of maxima."""

from __future__ import annotations

from typing import Any

from linger.chip import limits_of
from linger.chip.tables import divider

from .floats import keep
from .graph import F32, F64, Kind, code_limits
from .node import Node, writes

_LONGEST = 1 << 15  # a longer window's average loses the sum


def _window(n: Node) -> dict[str, Any]:
    pads = n.integers("pads", None, (0, 0, 0, 0))
    return {"kernel_shape": n.integers("kernel_shape"), "strides": n.integers("strides"), "pads": pads}


def write_pool(n: Node, op_type: str, x: str, fill: float, kind: Kind = F32, **more: Any) -> str:
    """A pooling; runtimes take no padding as wide as the kernel, so that is written out with ``fill``."""
    window = _window(n)
    if any(pad >= window["kernel_shape"][i % 2] for i, pad in enumerate(window["pads"])):
        top, left, bottom, right = window.pop("pads")
        widths = n.g.ints(0, 0, top, left, 0, 0, bottom, right)
        x = n.g.op("Pad", x, widths, n.g.const(fill, kind))
    return n.g.op(op_type, x, **window, **more)


@writes("AvgPool2dInt", "QAvgPool2d")
def write_avg_pool(n: Node) -> None:
    """The sum comes from the float average, off by less than 2**-23 of itself; then the engine's divider."""
    g, window = n.g, _window(n)
    kernel, pads, shape = window["kernel_shape"], window["pads"], n.shape(0)
    size = kernel[0] * kernel[1]
    power = size & (size - 1) == 0
    left = n.scale("scale_o") - n.scale("scale_x") if n.has("scale_o") else 0
    if size >= _LONGEST:
        n.refuse(f"a window of {kernel[0]}x{kernel[1]} elements; below {_LONGEST} the sum is exact in float32")
    whole = all(known is not None and known + pads[a] + pads[a + 2] == kernel[a] for a, known in enumerate(shape[2:]))
    average = write_pool(n, "AveragePool", n.codes(0), 0, count_include_pad=1)
    if power and (left == 0 or limits_of(n.platform).pool_ignores or whole):
        n.narrow(g.op("Floor", g.add(average, 0.5, F32)), 0, 8, F32)
        return
    total = g.op("Round", g.mul(average, size, F32))
    if power:
        n.narrow(g.shift(total, -left, F32), size.bit_length() - 1, 8, F32)
        return
    factor, right = divider(size)
    n.narrow(g.op("Floor", g.add(g.mul(g.to(total, F64), factor * 2.0 ** (left - right)), 0.5)), 0, 8)


@writes("MaxPool")
def write_max_pool(n: Node) -> None:
    """The maximum of the window."""
    if n.is_quantized():
        n.put_like(write_pool(n, "MaxPool", n.codes(0), code_limits(n.bits())[0], n.value(0).kind))
    else:
        keep(n)


@writes("ArgMax")
def write_argmax(n: Node) -> None:
    """Maxima, then places, of the rows of the last axis: int32."""
    if not n.is_quantized():
        keep(n)
        return
    g = n.g
    most = g.op("ReduceMax", n.codes(0, F64), axes=[-1], keepdims=1)
    place = g.to(g.op("ArgMax", n.codes(0), axis=-1, keepdims=1), F64)
    n.put(g.op("Concat", most, place, axis=0), 32)
