"""The packer reserves one scratch memory per file, as large as the largest request of a node; some nodes write more."""

from __future__ import annotations

import math

from .facts import NodeFacts

_SOFTMAX_MOST = 65536  # what the packer asks for at most


def scratch_need(n: NodeFacts) -> int:
    """Bytes that the engine writes into the scratch memory for a node; 0 where it stays within its request."""
    each, more = n.revision.scratch.get(n.op_type, (0, 0))
    if not each:
        return 0
    match n.op_type:
        case "LayerNormInt":
            elements = n.tensor(1).size or 0
        case "LSTMInt":
            elements = int(n.get("hidden_size", 0))
        case _:
            elements = n.tensor(0).size or 0
    return each * elements + more


def scratch_request(n: NodeFacts) -> int:
    """Bytes of scratch memory that the packer reserves for a node, where that is known."""
    each = n.revision.requests.get(n.op_type, 0)
    if not each:
        return 0
    match n.op_type:
        case "LayerNormInt":
            return each * (n.tensor(1).size or 0)
        case "LSTMInt":
            return each * int(n.get("hidden_size", 0))
        case "AvgPool2dInt":
            return each * (n.outputs[0].size or 0) if n.outputs else 0
        case "LinearInt":
            return each * ((n.tensor(0).size or 0) + (n.outputs[0].size or 0 if n.outputs else 0))
        case _:
            shape = n.shape(0)
            return 0 if shape is None else min(each * math.prod(shape) + 4 * shape[-1], _SOFTMAX_MOST)


__all__ = ["scratch_need", "scratch_request"]
