"""iqSub nodes of other writers: what the engine computes where it computes anything."""

from __future__ import annotations

from linger.nn.nodes.operands import operand, require_8_bits, right_shift
from linger.ops.elementwise import sub_codes
from linger.runtime.graph import NodeReader, reads


@reads("iqSub")
def read_sub(node: NodeReader) -> None:
    """``sat_8(sat_8(RSH(x, q_x - q_o)) - sat_8(RSH(y, q_y - q_o)))``, provided that q_x > q_o."""
    require_8_bits(node, "x_bits", "y_bits", "o_bits")
    x, x_exp2 = operand(node, 0, "scale_x")
    y, y_exp2 = operand(node, 1, "scale_y")
    if x.shape != y.shape:
        raise node.error(f"the operands must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    o_exp2 = node.scale("scale_o")
    if x_exp2 == o_exp2:
        raise node.error("with q_x = q_o the engines subtract from an uninitialised buffer; export the model again")
    x_shift = right_shift(node, x_exp2 - o_exp2, "q_x - q_o")
    y_shift = right_shift(node, y_exp2 - o_exp2, "q_y - q_o")
    node.room(tuple(x.shape))
    node.put(0, sub_codes(x, y, x_shift, y_shift, 8), o_exp2)
