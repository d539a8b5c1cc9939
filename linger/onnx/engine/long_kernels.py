"""Memory blocks and other kernels along one axis that are longer than the node's: the sequence in rows, one convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from linger.chip import Taps, limits_of, rows_of_taps
from linger.nn.moves.padding import write_zeros
from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import Node

from .graph import Graph, hint_of, sizes
from .upsampling import around


def rows_for_taps(graph: Graph) -> None:
    """Conv2dInt of one row or column, and Conv1dInt, as Conv2dInt over slices of the sequence below each other."""
    chip = limits_of(graph.platform)

    def rewrite(node: Node) -> bool:
        shape, weight = graph.shape(node.inputs[0]), graph.tape.initializers.get(node.inputs[1])
        one_d = node.op_type == "Conv1dInt"
        if (
            shape is None
            or weight is None
            or node.inputs[0] in graph.loose
            or int(node.attributes.get("o_bits", 8)) != 8
        ):
            return False
        kernel, stride = sizes(node.attributes["kernel_shape"]), sizes(node.attributes["strides"])
        dilation, pads = sizes(node.attributes["dilations"]), sizes(node.attributes["pads"])
        axis = 0 if one_d or kernel[-1] == 1 and shape[-1] == 1 else 1
        across = 1 - axis
        if not one_d and (kernel[across], shape[2 + across], stride[across]) != (1, 1, 1):
            return False
        if not one_d and pads[across] + pads[2 + across]:
            return False
        before, after = pads[axis], pads[len(kernel) + axis]
        if one_d and kernel[0] <= chip.max_kernel_dilated and dilation[0] == 1:
            return False
        form = rows_of_taps(chip, kernel[axis], dilation[axis], stride[axis])
        if form is None:
            return False
        chain = graph.chain(node.inputs[0], hint_of(node))
        n, c, length = shape[0], shape[1], shape[2 + axis]
        flat = chain.reshape(n, c, 1, length)
        count = (length + before + after - (kernel[axis] - 1) * dilation[axis] - 1) // stride[axis] + 1
        taps = weight.reshape(*weight.shape[:2], kernel[axis])
        stacked = _stacked(graph, flat, form, dilation[axis], stride[axis], before, count)
        attributes = dict(node.attributes) | {
            "kernel_shape": [form.rows, form.extent],
            "strides": [1, stride[axis]],
            "dilations": [1, form.dilation],
            "pads": [0, 0, 0, 0],
        }
        bias = [graph.tape.initializers[name] for name in node.inputs[2:3] if name]
        made = stacked.node(
            "Conv2dInt", (n, weight.shape[0], 1, count), attributes, _rows(taps, form), *bias, chip=True
        )
        result = graph.shape(node.outputs[0]) or made.shape
        graph.finish(made.reshape(*result), node.outputs[0])
        return True

    graph.change(rewrite, "Conv2dInt", "Conv1dInt")


def _rows(taps: np.ndarray[Any, Any], form: Taps) -> np.ndarray[Any, Any]:
    """The kernel (O, C, taps) as (O, C, rows, extent)."""
    o, c, count = taps.shape
    full = np.pad(taps, ((0, 0), (0, 0), (0, form.rows * form.columns - count)))
    wide = np.zeros((o, c, form.rows, form.extent), taps.dtype)
    step = 1 if form.extent == form.columns else (form.extent - 1) // (form.columns - 1)
    wide[..., ::step] = full.reshape(o, c, form.rows, form.columns)
    return wide


def _stacked(
    graph: Graph, x: FileTensor, form: Taps, dilation: int, stride: int, before: int, count: int
) -> FileTensor:
    """(N, C, rows, width): the padded sequence, further on in every row."""
    shift = form.columns * dilation
    width = (count - 1) * stride + (form.columns - 1) * dilation + 1
    behind = max((form.rows - 1) * shift + width - before - x.shape[3], 0)
    if graph.open_batch and (before or behind):
        x = write_zeros(x, [(0, 0), (0, 0), (0, 0), (before, behind)])
    else:
        x = around(x, (0, before, 0, behind))
    parts = [x.slice(3, j * shift, j * shift + width) for j in range(form.rows)]
    return parts[0].cat(parts[1:], 2)


__all__ = ["rows_for_taps"]
