"""LinearInt nodes: an exported fully connected layer on codes."""

from __future__ import annotations

from linger.chip import OPERATORS
from linger.nn.nodes.operands import bias, limits, operand, out_bits, require_8_bits, right_shift, weight_bits, weights
from linger.ops.linear import linear_codes
from linger.runtime.graph import NodeReader, reads


@reads("LinearInt", "QLinear")
def read_linear(node: NodeReader) -> None:
    """``sat_b(RSH(x . w + bias, s))``, the sum in 64 bits; a 32-bit result with s < 0 is ``sat_32(sum) * 2**-s``."""
    require_8_bits(node, "x_bits")
    bits = out_bits(node, OPERATORS["LinearInt"][node.platform].bits)
    x, x_exp2 = operand(node, 0, "scale_x")
    w = weights(node, 1, 2, weight_bits(node))
    b = bias(node, 2, w.shape[0])
    act = node.integer("act_type", 0)
    if x.dim() < 1 or x.shape[-1] != w.shape[1]:
        raise node.error(f"input {tuple(x.shape)} does not fit weight {tuple(w.shape)}")
    if act not in (0, 1):
        raise node.error(f"attribute 'act_type' must be 0 or 1 (ReLU), got {act}")
    o_exp2 = node.scale("scale_o")
    lowest = -31 if bits == 32 and limits(node).wide_left else 0
    shift = right_shift(node, x_exp2 + node.scale("scale_w") - o_exp2, "q_x + q_w - q_o", lowest)
    node.room((*x.shape[:-1], w.shape[0]), w.shape[1])
    node.put(0, linear_codes(x, w, b, shift, bits, act == 1), o_exp2)
