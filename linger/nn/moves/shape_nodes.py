"""Nodes that move values without changing them: exact copies in the format of their input, codes and floats alike."""

from __future__ import annotations

import math

import torch

from linger.chip import OPERATORS
from linger.runtime.graph import NodeReader, reads


@reads("Relu")
def read_relu(node: NodeReader) -> None:
    """``max(x, 0)``; the scale passes through."""
    node.put_like(0, torch.relu(node.data(0)), 0)


@reads("Identity")
def read_identity(node: NodeReader) -> None:
    """The input itself."""
    node.put_like(0, node.data(0), 0)


@reads("Reshape")
def read_reshape(node: NodeReader) -> None:
    """Shape from the second input; 0 keeps a size, -1 takes the rest."""
    x, target = node.data(0), node.data(1)
    if target.dtype != torch.int64 or target.dim() != 1:
        raise node.error(f"the shape must be an int64 list, got {target.dtype} {tuple(target.shape)}")
    sizes = [int(v) for v in target]
    if not node.integer("allowzero", 0):
        if any(size == 0 and i >= x.dim() for i, size in enumerate(sizes)):
            raise node.error(f"shape {sizes} keeps a dimension that input {tuple(x.shape)} does not have")
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    open_ends = sizes.count(-1)
    if open_ends > 1 or any(size < -1 for size in sizes):
        raise node.error(f"shape {[int(v) for v in target]} is not accepted")
    fits = known == x.numel() if open_ends == 0 else known > 0 and x.numel() % known == 0
    if not fits:
        raise node.error(f"input {tuple(x.shape)} cannot take the shape {[int(v) for v in target]}")
    sizes = [x.numel() // known if size == -1 else size for size in sizes]
    node.room(tuple(sizes))
    node.put_like(0, x.reshape(sizes), 0)


@reads("Flatten")
def read_flatten(node: NodeReader) -> None:
    """``[N, rest]`` whatever the axis, as the engine does."""
    x = node.data(0)
    if x.dim() < 1:
        raise node.error("needs an input of at least one dimension")
    node.put_like(0, x.reshape(x.shape[0], math.prod(x.shape[1:])), 0)


@reads("Transpose")
def read_transpose(node: NodeReader) -> None:
    """Axes in the order of ``perm``; reversed where it is not written."""
    x = node.data(0)
    perm = node.integers("perm", None, tuple(reversed(range(x.dim()))))
    if sorted(perm) != list(range(x.dim())):
        raise node.error(f"attribute 'perm' {perm} does not order the {x.dim()} dimensions of the input")
    node.put_like(0, x.permute(perm), 0)


def _axes(node: NodeReader, rank: int, default: tuple[int, ...] | None = None) -> list[int]:
    """Attribute ``axes``, or the second input from opset 13 on, as different axes of ``rank`` dimensions."""
    if node.has_input(1) and not node.has("axes"):
        listed = node.data(1)
        if listed.dtype != torch.int64 or listed.dim() > 1:
            raise node.error("the axes must be an int64 list")
        axes = tuple(int(v) for v in listed.reshape(-1))
    else:
        axes = node.integers("axes", None, default)
    if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) != len(axes):
        raise node.error(f"axes {axes} are not different axes of {rank} dimensions")
    return [a % rank for a in axes]


@reads("Squeeze")
def read_squeeze(node: NodeReader) -> None:
    """Without the axes of size 1; codes keep at least two dimensions, as in the engine."""
    x = node.data(0)
    axes = _axes(node, x.dim(), tuple(i for i, size in enumerate(x.shape) if size == 1)) if x.dim() else []
    if any(x.shape[a] != 1 for a in axes):
        raise node.error(f"axes {axes} of input {tuple(x.shape)} are not all of size 1")
    sizes = [size for i, size in enumerate(x.shape) if i not in axes]
    if not (x.is_floating_point() or x.dtype in (torch.int64, torch.bool)):
        sizes = [1] * (2 - len(sizes)) + sizes
    node.put_like(0, x.reshape(sizes), 0)


@reads("Unsqueeze")
def read_unsqueeze(node: NodeReader) -> None:
    """With new axes of size 1 at the places that ``axes`` name in the result."""
    x = node.data(0)
    n_new = node.data(1).numel() if node.has_input(1) and not node.has("axes") else len(node.integers("axes"))
    rank = x.dim() + n_new
    node.room((1,) * rank)
    axes = _axes(node, rank)
    old = iter(x.shape)
    node.put_like(0, x.reshape([1 if i in axes else next(old) for i in range(rank)]), 0)


def slice_axis(node: NodeReader, i: int) -> list[int]:
    """One list of a Slice's bounds."""
    listed = node.data(i)
    if listed.dtype not in (torch.int64, torch.int32) or listed.dim() > 1:
        raise node.error(f"input {i} must be a list of integers, got {listed.dtype} {tuple(listed.shape)}")
    return [int(v) for v in listed.reshape(-1)]


@reads("Slice")
def read_slice(node: NodeReader) -> None:
    """A part of one axis, step 1: the engine ignores further axes and other steps, so they are refused."""
    x = node.data(0)
    starts, ends = slice_axis(node, 1), slice_axis(node, 2)
    axes = slice_axis(node, 3) if node.has_input(3) else list(range(len(starts)))
    steps = slice_axis(node, 4) if node.has_input(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) == 1 or steps != [1]:
        raise node.error(f"on codes a Slice takes one axis and step 1, got axes {axes}, steps {steps}")
    if not -x.dim() <= axes[0] < x.dim():
        raise node.error(f"axis {axes[0]} is outside the {x.dim()} dimensions of the input")
    axis = axes[0] % x.dim()
    first, end, _ = slice(starts[0], ends[0]).indices(x.shape[axis])
    if end <= first:
        raise node.error(f"the part {starts[0]}:{ends[0]} of {x.shape[axis]} elements is empty")
    node.put_like(0, x.narrow(axis, first, end - first), 0)


@reads("Split")
def read_split(node: NodeReader) -> None:
    """Parts of one axis, as many as outputs; equal parts where ``split`` is not written."""
    x = node.data(0)
    axis = node.integer("axis", 0)
    if not -x.dim() <= axis < x.dim():
        raise node.error(f"axis {axis} is outside the {x.dim()} dimensions of the input")
    size, n = x.shape[axis], node.n_outputs
    equal = tuple(min(-(-size // n), size - i * -(-size // n)) for i in range(n))
    parts = slice_axis(node, 1) if node.has_input(1) else list(node.integers("split", None, equal))
    if len(parts) != n or sum(parts) != size or any(part < 1 for part in parts):
        raise node.error(f"{size} elements cannot be split into {parts} for {n} outputs")
    first = 0
    for i, part in enumerate(parts):
        node.put_like(i, x.narrow(axis, first, part), 0)
        first += part


@reads("ShuffleChannel")
def read_shuffle(node: NodeReader) -> None:
    """Axis ``axis`` (1) as groups of channels, taken in turn: one of the first group, one of the second ..."""
    x = node.data(0)
    groups, axis = node.integer("groups"), node.integer("axis", 1)
    if OPERATORS["ShuffleChannel"][node.platform].kind != "native":
        raise node.error(f"{node.platform} has no ShuffleChannel")
    if x.dim() != 4 or not -4 <= axis < 4:
        raise node.error(f"needs an input of 4 dimensions, got {tuple(x.shape)} and axis {axis}")
    axis %= 4
    size = x.shape[axis]
    if groups < 1 or size % groups:
        raise node.error(f"attribute 'groups' must divide {size}, got {groups}")
    head, tail = x.shape[:axis], x.shape[axis + 1 :]
    turned = x.reshape(*head, groups, size // groups, *tail).transpose(axis, axis + 1)
    node.put_like(0, turned.reshape(x.shape), 0)
