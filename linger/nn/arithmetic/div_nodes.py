"""iqDiv nodes: a shift by a constant power of two, or the quotient of two 32-bit tensors."""

from __future__ import annotations

from linger.chip import MAX_LEFT_BITS
from linger.nn.nodes.operands import limits, operand, require_8_bits, right_shift
from linger.ops.div import div_codes
from linger.ops.elementwise import requant_codes
from linger.runtime.graph import NodeReader, reads


@reads("iqDiv")
def read_div(node: NodeReader) -> None:
    """int8: ``RSH(x, -k)`` or ``sat_8(x * 2**k)``, k = q_o - q_x + q_y - log2(y); int32: the divider with a shift."""
    if node.codes(0).bits == 32:
        _read_tensors(node)
        return
    require_8_bits(node, "x_bits", "o_bits")
    x, x_exp2 = operand(node, 0, "scale_x")
    divisor = node.constant(1)
    if divisor.dim() != 0 or divisor.is_floating_point():
        raise node.error(f"the divisor must be one integer, got {divisor.dtype} of shape {tuple(divisor.shape)}")
    c = int(divisor)
    if c < 1 or c & (c - 1):
        raise node.error(f"the divisor must be a positive power of two, got {c}")
    o_exp2, q_y = node.scale("scale_o"), node.scale("scale_y")
    k = o_exp2 - x_exp2 + q_y - (c.bit_length() - 1)
    if k == 0 or not -63 <= k <= MAX_LEFT_BITS:
        raise node.error(f"the scales ask for a shift of {k} bits, the chip takes -63..-1 and 1..{MAX_LEFT_BITS}")
    node.room(tuple(x.shape))
    node.put(0, requant_codes(x, -k, 8), o_exp2)


def _read_tensors(node: NodeReader) -> None:
    scaled = limits(node).div_scales
    if scaled is None:
        raise node.error(f"{node.platform} has no division of 32-bit tensors")
    x, x_exp2 = operand(node, 0, "scale_x", bits=32)
    y, y_exp2 = operand(node, 1, "scale_y", bits=32)
    if x.shape != y.shape:
        raise node.error(f"the operands must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    o_exp2 = node.scale("scale_o")
    shift = o_exp2 - x_exp2 + y_exp2
    shift = right_shift(node, shift, "q_o - q_x + q_y") if scaled else 0
    if shift > 62:
        raise node.error(f"the scales ask for a shift of {shift} bits, the chip takes 0..62")
    node.room(tuple(x.shape))
    node.put(0, div_codes(x, y, shift), o_exp2)
