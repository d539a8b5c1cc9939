"""iqAdd nodes: an exported residual addition on codes."""

from __future__ import annotations

from linger.chip import OPERATORS
from linger.nn.nodes.operands import operand, out_bits, right_shift
from linger.ops.elementwise import add_codes
from linger.runtime.graph import NodeReader, reads


@reads("iqAdd", "QAdd")
def read_add(node: NodeReader) -> None:
    """``sat_b(sat_b(RSH(x, q_x - q_o)) + sat_b(RSH(y, q_y - q_o)))``, b mostly 8; shapes are equal, nothing is broadcast."""
    bits = out_bits(node, OPERATORS["iqAdd"][node.platform].bits)
    if {node.integer("x_bits", bits), node.integer("y_bits", bits)} != {bits}:
        raise node.error("attributes 'x_bits', 'y_bits' and 'o_bits' must be equal")
    x, x_exp2 = operand(node, 0, "scale_x", bits=bits)
    y, y_exp2 = operand(node, 1, "scale_y", bits=bits)
    if x.shape != y.shape:
        raise node.error(f"the operands must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    o_exp2 = node.scale("scale_o")
    x_shift = right_shift(node, x_exp2 - o_exp2, "q_x - q_o")
    y_shift = right_shift(node, y_exp2 - o_exp2, "q_y - q_o")
    node.room(tuple(x.shape))
    node.put(0, add_codes(x, y, x_shift, y_shift, bits), o_exp2)
