"""Shapes and widths of a file's tensors, followed from node to node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .facts import FLOAT, NodeFacts, TensorFacts

Shape = tuple[int, ...]
_WIDE = {"ArgMax": 32}
_KEEPS = frozenset(
    "Relu MaxPool Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Gather Identity ShuffleChannel Expand Tile".split()
)


def _window(n: NodeFacts, x: Shape, channels: int) -> Shape | None:
    kernel = n.integers("kernel_shape")
    axes = len(kernel)
    if axes != len(x) - 2:
        return None
    stride, dilation = n.integers("strides", (1,) * axes), n.integers("dilations", (1,) * axes)
    pads, extra = n.integers("pads", (0,) * 2 * axes), n.integers("output_padding", (0,) * axes)
    sizes = []
    for a in range(axes):
        border = pads[a] + pads[axes + a]
        if n.op_type == "ConvTranspose2dInt":
            sizes.append((x[2 + a] - 1) * stride[a] + extra[a] + kernel[a] - border)
        else:
            sizes.append((x[2 + a] + border - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1)
    return (x[0], channels, *sizes)


def _reshape(x: Shape, target: Sequence[int]) -> Shape:
    sizes = [x[i] if s == 0 else s for i, s in enumerate(target)]
    if -1 in sizes:
        known = math.prod(s for s in sizes if s != -1)
        sizes[sizes.index(-1)] = math.prod(x) // max(known, 1)
    return tuple(sizes)


def _moved(n: NodeFacts, x: Shape, constants: Mapping[int, Sequence[int]]) -> list[Shape | None] | None:
    """Outputs of operators that only move codes; None for the others."""
    rank = len(x)
    match n.op_type:
        case "Reshape":
            return [_reshape(x, constants[1])] if 1 in constants else [None]
        case "Flatten":
            return [(x[0], math.prod(x[1:]))]
        case "Transpose":
            return [tuple(x[i] for i in n.integers("perm", tuple(range(rank))[::-1]))]
        case "Squeeze":
            axes = [a % rank for a in n.integers("axes", tuple(i for i, s in enumerate(x) if s == 1))]
            return [tuple(s for i, s in enumerate(x) if i not in axes)]
        case "Unsqueeze":
            axes = [a % (rank + len(n.integers("axes"))) for a in n.integers("axes")]
            rest = iter(x)
            return [tuple(1 if i in axes else next(rest) for i in range(rank + len(axes)))]
        case "Slice":
            if not {1, 2}.issubset(constants):
                return [None]
            sizes, axes = list(x), list(constants.get(3, range(len(constants[1]))))
            steps = constants.get(4, [1] * len(axes))
            for a, start, end, step in zip(axes, constants[1], constants[2], steps, strict=False):
                sizes[a % rank] = len(range(*slice(start, end, step).indices(x[a % rank])))
            return [tuple(sizes)]
        case "Split":
            axis = int(n.get("axis", 0)) % rank
            return [(*x[:axis], s, *x[axis + 1 :]) for s in n.integers("split")]
    return None


def _shapes(n: NodeFacts, constants: Mapping[int, Sequence[int]]) -> list[Shape | None]:
    x, w = n.shape(0), n.shape(1)
    if x is None:
        return [None]
    moved = _moved(n, x, constants)
    if moved is not None:
        return moved
    match n.op_type:
        case "Conv2dInt" | "Conv1dInt":
            return [None if w is None else _window(n, x, w[0])]
        case "ConvTranspose2dInt":
            return [None if w is None else _window(n, x, w[1])]
        case "AvgPool2dInt" | "MaxPool":
            return [_window(n, x, x[1])]
        case "LinearInt":
            return [None if w is None else (*x[:-1], w[0])]
        case "BmmInt":
            return [None if w is None else (*x[:-1], w[-1])]
        case "Gather":
            axis = int(n.get("axis", 0)) % len(x)
            return [None if w is None else (*x[:axis], *w, *x[axis + 1 :])]
        case "iqCat":
            axis = int(n.get("dim", n.get("axis", 0))) % len(x)
            parts = [n.shape(i) for i in range(len(n.inputs))]
            total = sum(p[axis] for p in parts if p is not None)
            return [None if None in parts else (*x[:axis], total, *x[axis + 1 :])]
        case "GluInt":
            return [(*x[:-1], x[-1] // 2)]
        case "LSTMInt" | "GRUInt":
            h = int(n.get("hidden_size", 0))
            return [(*x[:-1], h), (1, 1, h), (1, 1, h)]
        case "ArgMax":  # maxima, then their places
            return [(2 * x[0], *x[1:-1], 1)]
        case "iqPad" if 1 in constants:
            pads = constants[1]
            return [tuple(s + pads[i] + pads[len(x) + i] for i, s in enumerate(x)) if len(pads) == 2 * len(x) else None]
        case "iqPad" | "Resize" | "iqVar" | "Expand" | "Tile" | "ShuffleChannel":
            return [None]
    return [x]


def outputs(n: NodeFacts, count: int, constants: Mapping[int, Sequence[int]], quantized: bool) -> list[TensorFacts]:
    """What a node writes, as far as it follows from what it reads.

    Args:
        n: The node, without its outputs.
        count: Number of outputs.
        constants: Index of an input -> its values, for the constant integer inputs.
        quantized: The node computes on codes.
    """
    try:
        shapes = _shapes(n, constants) if quantized or n.op_type in ("Dequant", *_KEEPS) else [None]
    except (IndexError, ZeroDivisionError, StopIteration, ValueError, KeyError):
        shapes = [None]  # a broken file; its reader says so
    if n.op_type == "Quant":
        bits: int | None = int(n.get("data_bits", 8))
    elif n.op_type == "Dequant" or not quantized:
        bits = FLOAT
    elif n.op_type in _KEEPS:
        bits = n.tensor(0).bits
    else:
        bits = _WIDE.get(n.op_type, int(n.get("o_bits", 8)))
    return [TensorFacts(shapes[i] if i < len(shapes) else None, bits, producer=n.op_type) for i in range(count)]
