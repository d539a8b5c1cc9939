"""Rows B and D: sizes written out, and exchanges of height and width that the packer does not move."""

from __future__ import annotations

import numpy as np

from linger.runtime import Node

from .graph import Graph, hint_of, sizes


def explicit_sizes(graph: Graph) -> None:
    """Reshapes say every size: a 0 copies an axis of another tensor where the packer has merged two of them.

    Where the batch is open it is followed by a 0 in the first place, or by a -1; a -1 stays where the rows follow a length.
    """
    if not graph.engine.lacks("zero sizes"):
        return
    tape = graph.tape
    for node in graph.nodes:
        if node.op_type != "Reshape" or node.inputs[1] not in tape.initializers:
            continue
        before, after = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
        if before is None or after is None or not after:
            continue
        written = [int(s) for s in tape.initializers[node.inputs[1]].reshape(-1)]
        if len(written) != len(after):
            continue
        wanted = list(after)
        if node.inputs[0] in graph.loose:
            wanted = [a if w == 0 else w for a, w in zip(after, written, strict=True)]
        elif graph.open_batch:
            follows = written[0] in (0, -1) or -1 in written
            if follows and before[:1] == after[:1]:
                wanted[0] = 0
            elif follows:
                wanted[written.index(-1) if -1 in written else 0] = -1
        if wanted != written:
            hint = f"{hint_of(node)}.sizes"
            node.inputs = [node.inputs[0], tape.constant(np.array(wanted, np.int64), hint)]


def hidden_exchanges(graph: Graph) -> None:
    """``Transpose(0, 1, 3, 2)`` in front of a convolution, with Reshapes around it: the packer would turn the kernel, too."""
    if not graph.engine.lacks("transposed map"):
        return
    wanted = _in_front_of_kernels(graph)

    def rewrite(node: Node) -> bool:
        shape = graph.shape(node.inputs[0])
        if shape is None or len(shape) != 4 or node.outputs[0] not in wanted or node.inputs[0] in graph.loose:
            return False
        if sizes(node.attributes.get("perm", ())) != (0, 1, 3, 2):
            return False
        n, c, h, w = shape
        chain = graph.chain(node.inputs[0], hint_of(node))
        made = chain.reshape(n * c, h, w).permute(0, 2, 1).reshape(n, c, w, h)
        graph.finish(made, node.outputs[0])
        return True

    graph.change(rewrite, "Transpose")


def _in_front_of_kernels(graph: Graph) -> set[str]:
    """Tensors on which a convolution with a kernel above 1x1 depends."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        kernel = node.op_type == "Conv2dInt" and set(sizes(node.attributes["kernel_shape"])) != {1}
        if kernel or found.intersection(node.outputs):
            found.update(node.inputs)
    return found


__all__ = ["explicit_sizes", "hidden_exchanges"]
