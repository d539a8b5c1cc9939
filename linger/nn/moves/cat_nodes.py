"""iqCat nodes: an exported concatenation, each input brought to the scale of the result on its own."""

from __future__ import annotations

import torch

from linger.nn.nodes.operands import limits, operand, requantize, require_8_bits
from linger.runtime.graph import NodeReader, reads


@reads("iqCat", "QCat")
def read_cat(node: NodeReader) -> None:
    """Requantized inputs side by side along ``dim`` (or ``axis``)."""
    require_8_bits(node, "o_bits")
    if node.n_inputs < 2:
        raise node.error("needs at least two inputs")
    axis = node.integer("dim") if node.has("dim") else node.integer("axis")
    o_exp2 = node.scale("scale_o")
    parts = []
    for i in range(node.n_inputs):
        require_8_bits(node, f"x_{i}_bits")
        x, exp2 = operand(node, i, f"scale_x_{i}")
        if exp2 > o_exp2 and not limits(node).cat_right:
            raise node.error(f"{node.platform} cannot narrow input {i}: scale_o must be the largest input scale")
        parts.append(requantize(node, x, o_exp2 - exp2))
    rank = parts[0].dim()
    if not -rank <= axis < rank:
        raise node.error(f"axis {axis} is outside the {rank} dimensions of the inputs")
    axis %= rank
    rest = {(*p.shape[:axis], *p.shape[axis + 1 :]) if p.dim() == rank else None for p in parts}
    if len(rest) != 1:
        raise node.error(f"inputs {[tuple(p.shape) for p in parts]} differ outside axis {axis}")
    node.room((*parts[0].shape[:axis], sum(p.shape[axis] for p in parts), *parts[0].shape[axis + 1 :]))
    node.put(0, torch.cat(parts, axis), o_exp2)
