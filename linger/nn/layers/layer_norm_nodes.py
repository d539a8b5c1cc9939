"""LayerNormInt nodes: an exported layer normalisation on codes."""

from __future__ import annotations

import torch

from linger.nn.nodes.operands import bias, limits, operand, require_8_bits, right_shift, weights
from linger.ops.layer_norm import LONGEST, NORM_EXP2, layer_norm_codes
from linger.runtime.graph import NodeReader, reads


@reads("LayerNormInt", "QLayerNorm2d")
def read_layer_norm(node: NodeReader) -> None:
    """Rows of as many elements as gamma has: the last axis, or the last two. ``eps`` is 1e-5, beta stands at Q(10 + q_w)."""
    require_8_bits(node, "x_bits", "o_bits")
    row = limits(node)
    width = node.integer("w_bits", 8)
    x, x_exp2 = operand(node, 0, "scale_x")
    if row.gamma_bits > 8:
        gamma = node.constant(1)
        if gamma.dtype != torch.int16 or gamma.dim() != 1 or width not in (8, 16):
            raise node.error(f"input 1 must be an int16 initializer of one dimension on {node.platform}")
    else:
        if width not in (4, 8):
            raise node.error(f"attribute 'w_bits' must be 4 or 8, got {width}")
        gamma = weights(node, 1, 1, width)
    n = gamma.numel()
    if not row.norm_least <= n <= LONGEST or (width == 4 and n % 32):
        raise node.error(f"rows of {n} elements with {width}-bit weights are not supported on {node.platform}")
    beta = bias(node, 2, n)
    if beta is None:
        raise node.error("needs gamma and beta")
    last = tuple(x.shape[-2:])
    if x.dim() < 2 or x.numel() == 0 or n not in (last[1], last[0] * last[1]):
        raise node.error(f"input {tuple(x.shape)} has no rows of {n} elements in its last axis or its last two")
    o_exp2 = node.scale("scale_o")
    shift = right_shift(node, NORM_EXP2 + node.scale("scale_w") - o_exp2, "10 + q_w - q_o")
    node.room(tuple(x.shape))
    y = layer_norm_codes(x.reshape(-1, n), gamma, beta, x_exp2, shift, norm_bits=row.norm_bits)
    node.put(0, y.view(x.shape), o_exp2)
