"""Standard nodes behind one another: a tensor of the file on its way through shape operators, with its sizes and scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from linger.chip import SWAP_INNER, limits_of
from linger.errors import ExportError
from linger.nn.functional import common_attributes
from linger.runtime import Format, Tape, Value, scale_value


class FileTensor:
    """A quantized tensor of the file; every method appends nodes and returns what came out.

    Args:
        tape: Where the nodes go.
        value: Tensor of the forward, or value of the file.
        shape: Its sizes.
        scale: Its scale; every step keeps it. None: a float tensor.
        name: Hint for names.

    Source: docs/numerics.md, "Operators that keep codes".
    """

    def __init__(self, tape: Tape, value: Tensor | Value, shape: Sequence[int], scale: float | None, name: str) -> None:
        self.tape, self.value, self.scale, self.name = tape, value, scale, name
        self.shape = tuple(int(s) for s in shape)

    @classmethod
    def of(cls, tape: Tape, x: Tensor, fmt: Format | None, name: str, bits: int = 8) -> FileTensor:
        """The chain that starts at a tensor of the forward; codes above ``bits`` bits are noted as a violation."""
        if fmt is not None and fmt.bits > bits:
            tape.violations.append(f"{tape.where()}: {name} of a {fmt.bits}-bit tensor, the chips take {bits} bits")
        return cls(tape, x, x.shape, None if fmt is None else scale_value(fmt), name)

    def behind(self, value: Value, shape: Sequence[int], scale: float | None) -> FileTensor:
        """The chain that goes on from another tensor of the file."""
        return FileTensor(self.tape, value, shape, scale, self.name)

    def done(self, y: Tensor) -> None:
        """The forward's result ``y`` is this tensor of the file."""
        if isinstance(self.value, Value):
            self.tape.bind(y, self.value.name)
        else:
            self.tape.alias(y, self.value)

    def node(
        self, op_type: str, shape: Sequence[int], attributes: dict[str, Any], *more: Any, chip: bool = False
    ) -> FileTensor:
        """Append one node that keeps the scale; ``chip`` puts it into the chips' domain."""
        out = self.tape.value(f"{self.name}.{op_type.lower()}")
        domain = "linger" if chip else ""
        self.tape.node(op_type, [self.value, *more], [out], attributes, domain=domain, hint=self.name)
        return FileTensor(self.tape, out, shape, self.scale, self.name)

    # ---- shapes
    def reshape(self, *sizes: int, batch: bool = True) -> FileTensor:
        """Other sizes; the first one is written so that it follows the batch, where ``batch`` says that it leads."""
        if tuple(sizes) == self.shape:
            return self
        first = 0 if sizes[0] == self.shape[0] else -1
        written = [first, *sizes[1:]] if batch else sizes
        return self.node("Reshape", sizes, {}, np.array(written, np.int64))

    def squeeze(self, *axes: int) -> FileTensor:
        """Without these axes, which have one element."""
        kept = [s for i, s in enumerate(self.shape) if i not in axes]
        return self.node("Squeeze", kept, {"axes": sorted(axes)}) if axes else self

    def unsqueeze(self, *axes: int) -> FileTensor:
        """With axes of one element at these places of the result."""
        old = iter(self.shape)
        shape = [1 if i in axes else next(old) for i in range(len(self.shape) + len(axes))]
        return self.node("Unsqueeze", shape, {"axes": sorted(axes)}) if axes else self

    def permute(self, *perm: int) -> FileTensor:
        """Axes in another order, in moves that the engines have."""
        target = [self.shape[p] for p in perm]
        blocks = _blocks(perm, self.shape)
        order = sorted(blocks)
        leads = perm[0] == 0
        if blocks == order:
            return self.reshape(*target)
        if tuple(perm) in limits_of(self.tape.platform).transposes:
            return self.node("Transpose", target, {"perm": list(perm)})
        in_file = self
        for i in range(len(blocks)):
            j = order.index(blocks[i])
            if j > i:
                in_file = in_file._bring(order, j, i, leads)
                order.insert(i, order.pop(j))
        return in_file.reshape(*target, batch=leads)

    def _bring(self, order: list[tuple[int, ...]], j: int, i: int, leads: bool) -> FileTensor:
        """Block ``j`` of ``order`` in front of block ``i``: (A, B, C, D) -> (A, C, B, D)."""
        sizes = [math.prod(block[1:]) for block in order]
        a, b, c, d = (math.prod(part) for part in (sizes[:i], sizes[i:j], sizes[j : j + 1], sizes[j + 1 :]))
        if d == 1:
            batch = sizes[0] if i > 0 else 1
            return self.reshape(batch, a // batch, b, c, batch=leads)._move(0, 1, 3, 2)
        in_file = self.reshape(a, b, c, d, batch=leads)
        if SWAP_INNER in limits_of(self.tape.platform).transposes:
            return in_file._move(*SWAP_INNER)
        return in_file._move(0, 2, 3, 1)._move(0, 1, 3, 2)  # this engine fails in the exchange of the inner axes

    def _move(self, *perm: int) -> FileTensor:
        return self.node("Transpose", [self.shape[p] for p in perm], {"perm": list(perm)})

    # ---- pieces
    def slice(self, axis: int, start: int, end: int) -> FileTensor:
        """The part ``start:end`` of one axis."""
        if (start, end) == (0, self.shape[axis]):
            return self
        shape = (*self.shape[:axis], end - start, *self.shape[axis + 1 :])
        return self.node("Slice", shape, {}, *(np.array([v], np.int64) for v in (start, end, axis)))

    def gather(self, axis: int, index: Sequence[int]) -> FileTensor:
        """Elements of one axis in any order, repeated or left out."""
        index = [int(i) for i in index]
        if not index:
            raise ExportError(f"an empty part has no form in the file: {self.tape.where()}")
        if index == list(range(index[0], index[0] + len(index))):
            return self.slice(axis, index[0], index[0] + len(index))
        shape = (*self.shape[:axis], len(index), *self.shape[axis + 1 :])
        return self.rows(axis, np.array(index, np.int64), shape)

    def rows(self, axis: int, index: Any, shape: Sequence[int]) -> FileTensor:
        """A Gather node: ``index`` is an array or a tensor that flows in the graph, ``shape`` what comes out."""
        if self.scale is None:
            return self.node("Gather", shape, {"axis": axis}, index)
        attributes = {"axis": axis, "scale_o": self.scale, "platform": self.tape.platform}
        return self.node("Gather", shape, attributes, index, chip=True)

    def cat(self, others: Sequence[FileTensor], axis: int) -> FileTensor:
        """This tensor and others of the same scale, side by side."""
        parts = [self, *others]
        if len(parts) == 1:
            return self
        if len(self.shape) > 4:  # the node takes two to four axes
            final = [*self.shape]
            final[axis] = sum(part.shape[axis] for part in parts)
            flat = [part.reshape(*_around(part.shape, axis)) for part in parts]
            return flat[0].cat(flat[1:], 2).reshape(*final)
        scales = {f"scale_x_{i}": self.scale for i in range(len(parts))}
        attributes = (
            common_attributes(self.tape) | {"dim": axis, "scale_o": self.scale, "data_bits": 8, "o_bits": 8} | scales
        )
        shape = [*self.shape]
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.node("iqCat", shape, attributes, *(part.value for part in others), chip=True)


def _around(shape: Sequence[int], axis: int) -> tuple[int, int, int, int]:
    """(batch, axes in front, the axis, axes behind); the batch alone where it is the axis itself."""
    if axis == 0:
        return (1, 1, shape[0], math.prod(shape[1:]))
    return (shape[0], math.prod(shape[1:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def _blocks(perm: Sequence[int], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The order of axes as blocks that move together, ``(first axis, size, size ...)``.

    Axes of one element follow anybody, except the batch.
    """
    moving = [a for a in range(len(shape)) if a == 0 or shape[a] != 1]
    blocks: list[tuple[int, ...]] = []
    expected = -1
    for axis in (p for p in perm if p in moving):
        if axis == expected:
            blocks[-1] = (*blocks[-1], shape[axis])
        else:
            blocks.append((axis, shape[axis]))
        expected = next((a for a in moving if a > axis), -1)
    return blocks


__all__ = ["FileTensor"]
