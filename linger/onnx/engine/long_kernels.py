"""Kernels that are larger than the node's: the sequence in rows (memory blocks), the map in channels, one convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from linger.chip import Blocks, Taps, blocks_of_taps, limits_of, rows_of_taps
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


def channels_for_taps(graph: Graph) -> None:
    """Conv2dInt of a large or widely dilated kernel as one of smaller blocks, over channels that hold the map at their places."""
    chip = limits_of(graph.platform)

    def rewrite(node: Node) -> bool:
        shape, weight = graph.shape(node.inputs[0]), graph.tape.initializers.get(node.inputs[1])
        if shape is None or weight is None or weight.ndim != 4 or min(shape[2:]) == 1:
            return False
        stride, pads = sizes(node.attributes["strides"]), sizes(node.attributes["pads"])
        blocks = blocks_of_taps(chip, weight.shape[2:], sizes(node.attributes["dilations"]), stride)
        if blocks is None:
            return False
        groups = int(node.attributes.get("group", 1))
        count = [
            (shape[2 + a] + pads[a] + pads[2 + a] - (weight.shape[2 + a] - 1) * b.gap - 1) // stride[a] + 1
            for a, b in enumerate(blocks)
        ]
        parts = [graph.chain(node.inputs[0], hint_of(node))]
        for a, b in enumerate(blocks):
            parts = [piece for part in parts for piece in _shifted(graph, part, 2 + a, b, stride[a], pads[a], count[a])]
        stacked = _interleaved(parts, groups)
        attributes = dict(node.attributes) | {
            "kernel_shape": [b.extent for b in blocks],
            "dilations": [b.dilation for b in blocks],
            "pads": [0, 0, 0, 0],
        }
        bias = [graph.tape.initializers[name] for name in node.inputs[2:3] if name]
        made = stacked.node(
            "Conv2dInt", (shape[0], weight.shape[0], *count), attributes, _pieces(weight, blocks), *bias, chip=True
        )
        graph.finish(made, node.outputs[0])
        return True

    graph.change(rewrite, "Conv2dInt")


def _shifted(
    graph: Graph, x: FileTensor, axis: int, blocks: Blocks, stride: int, before: int, count: int
) -> list[FileTensor]:
    """The part of a map that each block of an axis reads, zeros around it included; all of one size."""
    shift = blocks.taps * blocks.gap
    width = (count - 1) * stride + (blocks.extent - 1) * blocks.dilation + 1
    behind = max((blocks.parts - 1) * shift + width - before - x.shape[axis], 0)
    x = _zeros(graph, x, axis, before, behind)
    return [x.slice(axis, j * shift, j * shift + width) for j in range(blocks.parts)]


def _zeros(graph: Graph, x: FileTensor, axis: int, before: int, behind: int) -> FileTensor:
    if not before and not behind:
        return x
    if graph.open_batch:
        return write_zeros(x, [(before, behind) if a == axis else (0, 0) for a in range(4)])
    return around(x, (before, 0, behind, 0) if axis == 2 else (0, before, 0, behind))


def _interleaved(parts: list[FileTensor], groups: int) -> FileTensor:
    """All parts in the channels, those of one group beside each other."""
    n, c, h, w = parts[0].shape
    if groups == 1:
        return parts[0].cat(parts[1:], 1)
    flat = [part.reshape(n * groups, c // groups * h * w) for part in parts]
    return flat[0].cat(flat[1:], 1).reshape(n, len(parts) * c, h, w)


def _pieces(weight: np.ndarray[Any, Any], blocks: tuple[Blocks, ...]) -> np.ndarray[Any, Any]:
    """The kernel (O, C, kh, kw) as (O, blocks * C, extent, extent), blocks of the height first."""
    o, c = weight.shape[:2]
    high, wide = blocks
    pads = [(0, b.parts * b.taps - k) for b, k in zip(blocks, weight.shape[2:], strict=True)]
    full = np.pad(weight, [(0, 0), (0, 0), *pads]).reshape(o, c, high.parts, high.taps, wide.parts, wide.taps)
    pieces = np.zeros((o, high.parts, wide.parts, c, high.extent, wide.extent), weight.dtype)
    steps = [b.gap // b.dilation for b in blocks]
    ends = [(b.taps - 1) * s + 1 for b, s in zip(blocks, steps, strict=True)]
    pieces[..., : ends[0] : steps[0], : ends[1] : steps[1]] = full.transpose(0, 2, 4, 1, 3, 5)
    return pieces.reshape(o, -1, high.extent, wide.extent)


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
    x = _zeros(graph, x, 3, before, behind)
    parts = [x.slice(3, j * shift, j * shift + width) for j in range(form.rows)]
    return parts[0].cat(parts[1:], 2)


__all__ = ["channels_for_taps", "rows_for_taps"]
