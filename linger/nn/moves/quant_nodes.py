"""Quant, Dequant and Requant nodes: the borders of the quantized part of a file, and changes of scale inside it."""

from __future__ import annotations

import torch

from linger.nn.nodes.operands import operand, out_bits, requantize, require_8_bits
from linger.ops.quantize import dequantize, quantize_codes
from linger.runtime.graph import NodeReader, reads


@reads("Quant")
def read_quant(node: NodeReader) -> None:
    """``sat_b(floor(float32(x * 2**q + 0.5)))``, NaN to 0; codes given by the caller pass with the scale of the node.

    b is 8, or 16 or 32 in front of an operator that reads such a tensor.
    """
    exp2 = node.scale("scale_x")
    bits = node.integer("data_bits", 8)
    if bits not in (8, 16, 32):
        raise node.error(f"attribute 'data_bits' must be 8, 16 or 32, got {bits}")
    if node.integer("zero_point", 0) != 0:
        raise node.error("attribute 'zero_point' must be 0")
    if not node.is_float(0):
        codes, _ = operand(node, 0, "scale_x", bits=bits)
        node.put_like(0, codes, 0)
        return
    x = node.floats(0)
    node.room(tuple(x.shape))
    node.put(0, quantize_codes(x, exp2, bits), exp2)


@reads("Dequant")
def read_dequant(node: NodeReader) -> None:
    """``float32(code) / 2**q``, q being the exponent the codes were made with."""
    exp2 = node.scale("scale_o")
    value = node.codes(0)
    node.match(0, exp2)
    node.room(tuple(value.codes.shape))
    node.put_dequantized(0, dequantize(value.codes, torch.tensor(2.0**exp2)), value.codes)


@reads("Requant")
def read_requant(node: NodeReader) -> None:
    """Change of scale of int8 codes: to int8 either way, to 16 or 32 bits by a left shift only."""
    require_8_bits(node, "data_bits")
    bits = out_bits(node, (8, 16, 32))
    x, x_exp2 = operand(node, 0, "scale_x")
    left = node.scale("scale_o") - x_exp2
    if bits > 8 and left < 0:
        raise node.error(f"a {bits}-bit result needs scale_o >= scale_x")
    node.room(tuple(x.shape))
    node.put(0, requantize(node, x, left, bits), x_exp2 + left)
