"""Conv1dInt and Conv2dInt nodes: an exported convolution on codes."""

from __future__ import annotations

import torch

from linger.chip import OPERATORS
from linger.nn.nodes.operands import (
    bias,
    borders,
    limits,
    operand,
    out_bits,
    positive,
    require_8_bits,
    right_shift,
    weight_bits,
    weights,
    window,
)  # fmt: skip
from linger.ops.conv import conv_codes
from linger.runtime.graph import NodeReader, reads


@reads("Conv2dInt", "QConv2d", "QConvBN2d")
def read_conv2d(node: NodeReader) -> None:
    """``sat_8(RSH(sat_32(sum + bias), s))``, optional fused ReLU."""
    _conv(node, 2, (8,))


@reads("Conv1dInt", "QConv1d")
def read_conv1d(node: NodeReader) -> None:
    """As Conv2dInt with one axis and o_bits of 8 to 32; the engine knows no dilation here."""
    if any(d != 1 for d in node.integers("dilations", 1, (1,))):
        raise node.error("attribute 'dilations' must be 1: the engine ignores it; write a Conv2dInt of height 1")
    cell = OPERATORS["Conv1dInt"][node.platform]
    if cell.kind != "native":
        raise node.error(f"the engine of {node.platform} pads the wrong axis; write a Conv2dInt of height 1")
    _conv(node, 1, cell.bits)


def _conv(node: NodeReader, axes: int, allowed: tuple[int, ...]) -> None:
    require_8_bits(node, "x_bits")
    bits = out_bits(node, allowed)
    x, x_exp2 = operand(node, 0, "scale_x", axes + 2)
    w = weights(node, 1, axes + 2, weight_bits(node))
    b = bias(node, 2, w.shape[0])
    kernel = positive(node, "kernel_shape", axes)
    stride = positive(node, "strides", axes)
    dilation = positive(node, "dilations", axes, (1,) * axes)
    group = node.integer("group", 1)
    act = node.integer("act_type", 0)
    if tuple(w.shape[2:]) != kernel:
        raise node.error(f"attribute 'kernel_shape' is {kernel}, the weight has {tuple(w.shape[2:])}")
    if group < 1 or w.shape[0] % group or x.shape[1] != w.shape[1] * group:
        raise node.error(f"group {group} does not fit input {tuple(x.shape)} and weight {tuple(w.shape)}")
    if act not in (0, 1):
        raise node.error(f"attribute 'act_type' must be 0 or 1 (ReLU), got {act}")
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    pads = borders(node, 2 * axes, extent)
    o_exp2 = node.scale("scale_o")
    lowest = -31 if bits == 32 and limits(node).wide_left else 0
    shift = right_shift(node, x_exp2 + node.scale("scale_w") - o_exp2, "q_x + q_w - q_o", lowest)
    sizes = tuple(
        window(x.shape[a + 2], kernel[a], stride[a], pads[a], pads[a + axes], dilation[a]) for a in range(axes)
    )
    if any(size < 1 for size in sizes):
        raise node.error(f"kernel {kernel} does not fit into the padded input {tuple(x.shape)}")
    node.room((x.shape[0], w.shape[0], *sizes), w[0].numel())
    if axes == 1:
        x, w, pads = x.unsqueeze(2), w.unsqueeze(2), (0, pads[0], 0, pads[1])
        stride, dilation = (1, *stride), (1, *dilation)
    y = conv_codes(x, w, b, stride, pads, dilation, group, max(shift, 0), bits, act == 1)
    if shift < 0:
        y = torch.bitwise_left_shift(y, -shift)
    node.put(0, y.squeeze(2) if axes == 1 else y, o_exp2)
