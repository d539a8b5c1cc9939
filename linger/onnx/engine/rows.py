"""Row G2: linear layers of several rows as 1x1 convolutions."""

from __future__ import annotations

import math

import numpy as np

from linger.runtime import Node

from .graph import Graph, hint_of

_LARGEST = 2**31  # a convolution keeps its sum in 32 bits, a linear layer in more


def rows_as_pixels(graph: Graph) -> None:
    """``[1, T, K] -> [1, T, O]`` over a map of height 1 and width T: the engine scrambles a LinearInt of several rows."""
    if not graph.engine.lacks("linear rows"):
        return
    tape = graph.tape

    def rewrite(node: Node) -> bool:
        shape, weight = graph.shape(node.inputs[0]), tape.initializers.get(node.inputs[1])
        if shape is None or weight is None or len(shape) not in (2, 3):
            return False
        rows, (features, width) = math.prod(shape[:-1]), weight.shape
        if rows == 1 or features == 1 or int(node.attributes.get("o_bits", 8)) != 8:
            return False
        bias = tape.initializers[node.inputs[2]] if len(node.inputs) > 2 else None
        largest = 128 * np.abs(weight.astype(np.int64)).sum(1) + (0 if bias is None else np.abs(bias.astype(np.int64)))
        if int(largest.max()) >= _LARGEST:
            return False
        n, t = (shape[0], shape[1]) if graph.open_batch and len(shape) == 3 else (1, rows)
        attributes = dict(node.attributes) | {
            "kernel_shape": [1, 1],
            "strides": [1, 1],
            "dilations": [1, 1],
            "pads": [0, 0, 0, 0],
            "group": 1,
        }
        chain = graph.chain(node.inputs[0], hint_of(node))
        loose = node.inputs[0] in graph.loose and shape[0] == 1 or graph.open_batch and len(shape) == 2
        if loose:
            flat = chain.node("Reshape", (1, 1, t, width), {}, np.array([1, 1, -1, width], np.int64))
        else:
            flat = chain.reshape(n, 1, t, width)
        flat = flat.permute(0, 3, 1, 2)
        parameters = [weight[:, :, None, None], *([] if bias is None else [bias])]
        made = flat.node("Conv2dInt", (n, features, 1, t), attributes, *parameters, chip=True)
        made.scale = float(node.attributes["scale_o"])
        made = made.permute(0, 2, 3, 1)
        if loose:
            back = [1, -1, features] if len(shape) == 3 else [-1, features]
            made = made.node("Reshape", (*shape[:-1], features), {}, np.array(back, np.int64))
        else:
            made = made.reshape(*shape[:-1], features)
        graph.finish(made, node.outputs[0])
        return True

    graph.change(rewrite, "LinearInt")


__all__ = ["rows_as_pixels"]
