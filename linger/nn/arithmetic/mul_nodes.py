"""iqMul nodes: an exported product on codes."""

from __future__ import annotations

from linger.nn.nodes.operands import limits, operand, require_8_bits, right_shift
from linger.ops.mul import mul_codes
from linger.runtime.graph import NodeReader, reads


@reads("iqMul", "QMul")
def read_mul(node: NodeReader) -> None:
    """``sat_8(RSH(x * y, q_x + q_y - q_o))``; y of the same shape, one value per channel, or a rank-0 constant."""
    require_8_bits(node, "x_bits", "o_bits")
    x, x_exp2 = operand(node, 0, "scale_x")
    y, y_exp2 = operand(node, 1, "scale_y", bits=node.codes(1).bits)
    if y.dim() == 0:
        node.constant(1)
        if node.codes(1).bits not in limits(node).mul_constant_bits:
            raise node.error(f"the constant factor must be int8 or int16, got int{node.codes(1).bits}")
    elif node.codes(1).bits != 8:
        raise node.error(f"input 1 must be int8, got int{node.codes(1).bits}")
    elif y.shape != x.shape and not (x.dim() == 4 and tuple(y.shape) == (1, x.shape[1], 1, 1) and x.shape[0] == 1):
        raise node.error(
            f"the operands must have one shape, or input 1 one value per channel of [1, C, H, W]; got {tuple(x.shape)} "
            f"and {tuple(y.shape)}"
        )
    o_exp2 = node.scale("scale_o")
    shift = right_shift(node, x_exp2 + y_exp2 - o_exp2, "q_x + q_y - q_o")
    node.room(tuple(x.shape))
    node.put(0, mul_codes(x, y, shift, 8), o_exp2)
