"""Row C, and 4-bit weights: what the packer's weight prefetch can read."""

from __future__ import annotations

from linger.chip import PREFETCHED

from .graph import Graph


def own_parameters(graph: Graph) -> None:
    """Every node has initializers of its own: of two biases behind one weight the prefetch loses one."""
    if not graph.engine.lacks("shared parameters"):
        return
    tape, known = graph.tape, set[str]()
    for node in graph.nodes:
        if node.op_type not in PREFETCHED:
            continue
        constants = [name for name in node.inputs if name in tape.initializers]
        if known.intersection(constants) or len(set(constants)) < len(constants):
            copies = [tape.fresh(name) if name in constants else name for name in node.inputs]
            for old, new in zip(node.inputs, copies, strict=True):
                if old != new:
                    tape.initializers[new] = tape.initializers[old]
            node.inputs = copies
        known.update(constants)


def whole_bytes(graph: Graph) -> None:
    """4-bit weights with a bias become 8-bit weights of the same codes: the prefetch looks for the bias elsewhere."""
    if not graph.engine.lacks("4-bit bias"):
        return
    for node in graph.nodes:
        bias = len(node.inputs) > 2 and bool(node.inputs[2])
        if bias and node.op_type in ("Conv2dInt", "LinearInt") and node.attributes.get("parameter_bits") == 4:
            node.attributes["parameter_bits"] = 8


__all__ = ["own_parameters", "whole_bytes"]
