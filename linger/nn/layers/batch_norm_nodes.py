"""BatchNorm2dInt nodes: an exported batch normalisation that could not be folded, on codes."""

from __future__ import annotations

from linger.chip import MAX_SHIFT
from linger.nn.nodes.operands import bias, limits, operand, require_8_bits, right_shift, weights
from linger.ops.elementwise import scale_bias_codes
from linger.runtime.graph import NodeReader, reads


@reads("BatchNorm2dInt", "QBatchNorm2d")
def read_batch_norm(node: NodeReader) -> None:
    """``sat_8(RSH(x * w_c + b_c, s))``; for s < 0 venus saturates the left shift, the other chips give zeros."""
    require_8_bits(node, "x_bits", "w_bits", "o_bits")
    x, x_exp2 = operand(node, 0, "scale_x", 4)
    w = weights(node, 1, 1)
    b = bias(node, 2, w.shape[0])
    if b is None or x.shape[1] != w.shape[0]:
        raise node.error(f"needs weight and bias of the {x.shape[1]} channels of its input")
    o_exp2 = node.scale("scale_o")
    lowest = -MAX_SHIFT if limits(node).norm_left else 0
    shift = right_shift(node, x_exp2 + node.scale("scale_w") - o_exp2, "q_x + q_w - q_o", lowest)
    node.room(tuple(x.shape))
    node.put(0, scale_bias_codes(x, w, b, shift), o_exp2)
