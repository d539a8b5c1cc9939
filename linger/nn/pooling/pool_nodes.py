"""AvgPool2dInt and MaxPool nodes: exported pooling on codes."""

from __future__ import annotations

import torch
from torch import Tensor

from linger.nn.nodes.operands import borders, limits, operand, positive, require_8_bits, window
from linger.ops.conv import conv_codes
from linger.ops.elementwise import requant_codes
from linger.ops.pool import avg_pool_codes, max_pool_codes
from linger.runtime.graph import NodeReader, reads

_LONGEST_WINDOW = 1 << 20  # what the divider takes


def _geometry(node: NodeReader, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """kernel, stride, pads (t, l, b, r), and whether the window covers the whole padded input."""
    kernel, stride = positive(node, "kernel_shape", 2), positive(node, "strides", 2)
    pads = borders(node, 4, kernel)
    sizes = tuple(window(x.shape[a + 2], kernel[a], stride[a], pads[a], pads[a + 2]) for a in range(2))
    if any(size < 1 for size in sizes):
        raise node.error(f"kernel {kernel} does not fit into the padded input {tuple(x.shape)}")
    node.room((x.shape[0], x.shape[1], *sizes), kernel[0] * kernel[1])
    whole = all(x.shape[a + 2] + pads[a] + pads[a + 2] == kernel[a] for a in range(2))
    return kernel, stride, pads, whole


@reads("AvgPool2dInt", "QAvgPool2d")
def read_avg_pool(node: NodeReader) -> None:
    """Window sum over kh * kw by the engine's divider; ceil_mode, count_include_pad, divisor_override are ignored."""
    require_8_bits(node, "x_bits", "o_bits")
    x, x_exp2 = operand(node, 0, "scale_x", 4)
    o_exp2 = node.scale("scale_o") if node.has("scale_o") else x_exp2
    kernel, stride, pads, whole = _geometry(node, x)
    n, row, left = kernel[0] * kernel[1], limits(node), o_exp2 - x_exp2
    power = n & (n - 1) == 0
    if n > _LONGEST_WINDOW:
        raise node.error(f"kernel {kernel} is larger than {_LONGEST_WINDOW} elements")
    if left == 0 or (power and (row.pool_ignores or whole)):
        y = avg_pool_codes(x, kernel, stride, pads)
    elif row.pool_divider and not power and 0 < left <= 31 - 8:
        fine = torch.bitwise_left_shift(x.to(torch.int32), left)
        y = requant_codes(avg_pool_codes(fine, kernel, stride, pads), 0, 8)
    elif row.pool_double and power and left < 0:
        y = _rescaled(x, kernel, stride, pads, -left)
    else:
        raise node.error(f"{node.platform} cannot change the scale by 2**{left} here: write scale_o = scale_x")
    node.put(0, y, o_exp2)


def _rescaled(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[int, ...], right: int) -> Tensor:
    """``sat_8(RSH(RSH(sum, right), log2 n))``: the sum is a depthwise convolution with ones."""
    channels, n = x.shape[1], kernel[0] * kernel[1]
    ones = torch.ones((channels, 1, *kernel), dtype=torch.int8)
    total = conv_codes(x, ones, None, stride, pads, (1, 1), channels, min(right, 63), 32, False)
    return requant_codes(total, n.bit_length() - 1, 8)


@reads("MaxPool")
def read_max_pool(node: NodeReader) -> None:
    """Maximum of the window; padding never wins, ceil_mode is ignored, the scale passes through."""
    x = node.codes(0).codes
    if x.dim() != 4 or node.n_outputs != 1:
        raise node.error(f"needs a 4-D input and one output, got {tuple(x.shape)} and {node.n_outputs}")
    if any(d != 1 for d in node.integers("dilations", 2, (1, 1))) or node.text("auto_pad", "NOTSET") != "NOTSET":
        raise node.error("dilations and auto_pad are not supported on codes")
    kernel, stride, pads, _ = _geometry(node, x)
    node.put_like(0, max_pool_codes(x, kernel, stride, pads), 0)
