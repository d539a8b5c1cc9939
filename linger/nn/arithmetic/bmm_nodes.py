"""BmmInt nodes: an exported product of two tensors on codes."""

from __future__ import annotations

from linger.chip import OPERATORS
from linger.nn.nodes.operands import operand, out_bits, require_8_bits, right_shift
from linger.ops.bmm import LONGEST, bmm_codes
from linger.runtime.graph import NodeReader, reads


@reads("BmmInt", "QBmm")
def read_bmm(node: NodeReader) -> None:
    """``sat_b(RSH(x @ y, q_x + q_y - q_o))`` of equal stacks, rank 2 or 3."""
    require_8_bits(node, "x_bits", "y_bits")
    bits = out_bits(node, OPERATORS["BmmInt"][node.platform].bits)
    x, x_exp2 = operand(node, 0, "scale_x")
    y, y_exp2 = operand(node, 1, "scale_y")
    fits = x.dim() == y.dim() and x.dim() in (2, 3) and x.shape[:-2] == y.shape[:-2] and x.shape[-1] == y.shape[-2]
    if not fits or 0 in (*x.shape, *y.shape) or x.shape[-1] > LONGEST:
        raise node.error(f"operands of shapes {tuple(x.shape)} and {tuple(y.shape)} have no product of rank 2 or 3")
    o_exp2 = node.scale("scale_o")
    shift = right_shift(node, x_exp2 + y_exp2 - o_exp2, "q_x + q_y - q_o")
    shape = (*x.shape[:-1], y.shape[-1])
    node.room(shape, x.shape[-1])
    stacked = bmm_codes(x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:]), shift, bits)
    node.put(0, stacked.view(shape), o_exp2)
