"""Float tensors taken apart, joined, indexed and stretched, as standard ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger.nn.moves.cat import new_axes

from .write_call import Array, Call, Piece, Value, Written, add, ints, writes

_FAR = np.iinfo(np.int64).max


def transpose(c: Call, x: Piece, perm: Sequence[int]) -> Piece:
    """``x`` with its axes in the order ``perm``; itself where they stand so already."""
    return x if list(perm) == sorted(perm) else c.node("Transpose", x, perm=list(perm))


def sliced(c: Call, x: Piece, cuts: Sequence[tuple[int, int, int, int]]) -> Piece:
    """One Slice with an (axis, start, end, step) for every cut axis."""
    if not cuts:
        return x
    axes, starts, ends, steps = zip(*cuts, strict=True)
    return c.node("Slice", x, ints(*starts), ints(*ends), ints(*axes), ints(*steps))


# ---- indexing


class _Index:
    """``x[...]`` as Slice, one Gather, Squeeze and Unsqueeze, in this order."""

    def __init__(self, c: Call, index: tuple[Any, ...]) -> None:
        self.cuts: list[tuple[int, int, int, int]] = []
        self.dropped: list[int] = []  # axes of x
        self.added: list[int] = []  # axes of the result
        self.gathered: tuple[int, Any] | None = None
        self.axis = self.out = 0
        used = sum(1 for i in index if i is not None and i is not Ellipsis)
        if not any(i is Ellipsis for i in index):
            index = (*index, Ellipsis)
        for item in index:
            if item is Ellipsis:
                self.axis += c.rank - used
                self.out += c.rank - used
            elif item is None:
                self.added.append(self.out)
                self.out += 1
            else:
                self.one(c, item, c.x.shape[self.axis])
                self.axis += 1

    def one(self, c: Call, item: Any, size: int) -> None:
        """An item that takes up one axis of the input."""
        if isinstance(item, slice):
            start, end, step = item.indices(size)
            if (start, end, step) != (0, size, 1):
                self.cuts.append((self.axis, start, max(start, end), step))
            self.out += 1
        elif isinstance(item, int) and not isinstance(item, bool):
            if size != 1:
                self.cuts.append((self.axis, item % size, item % size + 1, 1))
            self.dropped.append(self.axis)
        else:
            index = torch.tensor(item) if isinstance(item, (list, tuple, np.ndarray)) else item
            if not isinstance(index, Tensor) or index.dtype in (torch.bool, torch.uint8) or index.is_floating_point():
                c.refuse("a mask as index gives a size that depends on the data")
            if self.gathered is not None:
                c.refuse("only one axis can be indexed by a tensor")
            self.gathered = (self.axis, index)
            self.out += index.dim()

    def write(self, c: Call) -> Piece:
        y = sliced(c, c(), self.cuts)
        dropped = self.dropped
        if self.gathered is not None:
            axis, index = self.gathered
            y = c.node("Gather", y, c.of(index, torch.int64), axis=axis)
            dropped = [d + index.dim() - 1 if d > axis else d for d in dropped]
        if dropped:
            y = c.node("Squeeze", y, axes=dropped)
        return c.node("Unsqueeze", y, axes=self.added) if self.added else y


@writes("Tensor.__getitem__ operator.getitem", "input index")
def _getitem(c: Call) -> Written:
    index = c["index"]
    return _Index(c, index if isinstance(index, tuple) else (index,)).write(c)


@writes("torch.index_select Tensor.index_select", "input dim index")
def _index_select(c: Call) -> Written:
    return c.node("Gather", c(), c("index", torch.int64), axis=c.axis())


@writes(
    "F.embedding", "input weight padding_idx=None max_norm=None norm_type=2.0 scale_grad_by_freq=False sparse=False"
)
def _embedding(c: Call) -> Written:
    if c["max_norm"] is not None:
        c.refuse("max_norm rewrites the weight in every call")
    return c.node("Gather", c("weight"), c("input", torch.int64), axis=0)


@writes(
    """torch.split Tensor.split torch.chunk Tensor.chunk torch.tensor_split Tensor.tensor_split torch.split_with_sizes
    Tensor.split_with_sizes torch.unsafe_split torch.unsafe_chunk Tensor.unsafe_split Tensor.unsafe_chunk""",
    "input how dim=0|input split_size_or_sections dim=0|input split_size dim=0|input split_sizes dim=0"
    "|input chunks dim=0|input indices_or_sections dim=0|input sections dim=0|input indices dim=0",
)
def _split(c: Call) -> Written:
    parts, axis = list(c.result), c.axis()
    sizes = [int(p.shape[axis]) for p in parts]
    if len(parts) == 1:
        return [c()]
    if 0 in sizes:
        c.refuse("a part is empty")
    return c.nodes("Split", len(parts), c(), axis=axis, split=sizes)


@writes("torch.unbind Tensor.unbind", "input dim=0")
def _unbind(c: Call) -> Written:
    axis = c.axis()
    size = int(c.x.shape[axis])
    parts: Sequence[Piece] = [c()] if size == 1 else c.nodes("Split", size, c(), axis=axis, split=[1] * size)
    return [c.node("Squeeze", part, axes=[axis]) for part in parts]


# ---- joining


@writes("torch.cat torch.concat torch.concatenate", "tensors dim=0|tensors axis")
def _cat(c: Call) -> Written:
    dim = c.named["dim"] if "dim" in c.named else c["axis"]
    parts = [t for t in c["tensors"] if tuple(t.shape) != (0,)]  # torch skips these
    return c.node("Concat", *(c.of(t, c.dtype) for t in parts), axis=int(dim) % c.result.dim())


@writes("torch.stack", "tensors dim=0")
def _stack(c: Call) -> Written:
    axis = int(c["dim"]) % c.result.dim()
    return c.node("Concat", *(c.node("Unsqueeze", c.of(t, c.dtype), axes=[axis]) for t in c["tensors"]), axis=axis)


def _stacked(name: str, c: Call) -> Written:
    parts = [(t, new_axes(name, t.dim())[0]) for t in c["tensors"]]
    pieces = [c.node("Unsqueeze", c.of(t, c.dtype), axes=list(new)) if new else c.of(t, c.dtype) for t, new in parts]
    return c.node("Concat", *pieces, axis=new_axes(name, c.result.dim())[1])


for _spellings in ("torch.hstack", "torch.vstack torch.row_stack", "torch.dstack", "torch.column_stack"):
    add(_spellings, "tensors", partial(_stacked, _spellings.split()[0].removeprefix("torch.")))


@writes("torch.where", "condition input other")
def _where(c: Call) -> Written:
    return c.node("Where", c("condition", torch.bool), c("input", c.dtype), c("other", c.dtype))


@writes("Tensor.where", "input condition other")
def _where_method(c: Call) -> Written:
    return _where(c)


@writes("torch.masked_fill Tensor.masked_fill", "input mask value")
def _masked_fill(c: Call) -> Written:
    return c.node("Where", c("mask", torch.bool), c("value", c.dtype), c("input", c.dtype))


def _triangle(c: Call, keep: Any) -> Written:
    mask = keep(torch.ones(tuple(c.x.shape[-2:]), dtype=torch.bool), int(c["diagonal"]))
    return c.node("Where", mask.numpy(), c(), c.of(0, c.dtype))


add("torch.tril Tensor.tril", "input diagonal=0", lambda c: _triangle(c, torch.tril))
add("torch.triu Tensor.triu", "input diagonal=0", lambda c: _triangle(c, torch.triu))


# ---- sizes that stay are written as 0, so that a batch of another size passes


@writes("torch.flatten Tensor.flatten", "input start_dim=0 end_dim=-1")
def _flatten(c: Call) -> Written:
    if c.rank == 0:
        return c.node("Reshape", c(), ints(1))
    first, last = c.axis("start_dim"), c.axis("end_dim")
    if first == 1 and last == c.rank - 1:
        return c.node("Flatten", c(), axis=1)
    return c.node("Reshape", c(), ints(*[0] * first, -1, *c.shape[first + 1 :]))


@writes("torch.unflatten Tensor.unflatten", "input dim sizes")
def _unflatten(c: Call) -> Written:
    axis = c.axis()
    return c.node("Reshape", c(), ints(*[0] * axis, *c.shape[axis:]))


# ---- stretching and turning


def _expand(c: Call) -> Written:
    """Expand; a size that stays is written as 1, so that a batch of another size passes."""
    lead = c.result.dim() - c.rank
    sizes = [1 if i >= lead and s == c.x.shape[i - lead] else s for i, s in enumerate(c.shape)]
    return c.node("Expand", c(), ints(*sizes))


add("Tensor.expand torch.broadcast_to Tensor.broadcast_to", "input *size", _expand)
add("Tensor.expand_as", "input other", _expand)


@writes("Tensor.repeat torch.tile Tensor.tile", "input *dims|input *repeats")
def _repeat(c: Call) -> Written:
    times = [int(v) for v in (c.named["dims"] if "dims" in c.named else c["repeats"])]
    rank = c.result.dim()
    times = [1] * (rank - len(times)) + times
    lifted = c() if rank == c.rank else c.node("Unsqueeze", c(), axes=list(range(rank - c.rank)))
    return c.node("Tile", lifted, ints(*times))


@writes("torch.repeat_interleave Tensor.repeat_interleave", "input repeats dim=None output_size=None")
def _repeat_interleave(c: Call) -> Written:
    if not isinstance(c["repeats"], int) or c["dim"] is None:
        c.refuse("only one number of repeats along one axis is written")
    axis = c.axis()
    sizes = [1] * (c.rank + 1)
    sizes[axis + 1] = int(c["repeats"])
    wide = c.node("Expand", c.node("Unsqueeze", c(), axes=[axis + 1]), ints(*sizes))
    return c.node("Reshape", wide, ints(*(-1 if i == axis else s for i, s in enumerate(c.shape))))


@writes("torch.flip Tensor.flip", "input *dims")
def _flip(c: Call) -> Written:
    return sliced(c, c(), [(int(d) % c.rank, -1, -_FAR, -1) for d in c["dims"]])


@writes("torch.roll Tensor.roll", "input shifts dims=None")
def _roll(c: Call) -> Written:
    shifts = [c["shifts"]] if isinstance(c["shifts"], int) else list(c["shifts"])
    dims = [c["dims"]] if isinstance(c["dims"], int) else list(c["dims"] or ())
    if not dims:
        c.refuse("roll over all elements is not written: name the dims")
    y = c()
    for shift, dim in zip(shifts, dims, strict=True):
        axis = int(dim) % c.rank
        first = -int(shift) % c.x.shape[axis]
        if first:
            y = c.node("Concat", sliced(c, y, [(axis, first, _FAR, 1)]), sliced(c, y, [(axis, 0, first, 1)]), axis=axis)
    return y


# ---- channels and pixels


@writes("F.pixel_shuffle torch.pixel_shuffle", "input upscale_factor")
def _pixel_shuffle(c: Call) -> Written:
    if c.rank != 4:
        c.refuse("needs an input of four dimensions")
    return c.node("DepthToSpace", c(), blocksize=int(c["upscale_factor"]), mode="CRD")


def _regrouped(c: Call, middle: Sequence[int], perm: Sequence[int], final: Sequence[int]) -> Value:
    return c.node("Reshape", c.node("Transpose", c.node("Reshape", c(), ints(*middle)), perm=list(perm)), ints(*final))


@writes("F.pixel_unshuffle torch.pixel_unshuffle", "input downscale_factor")
def _pixel_unshuffle(c: Call) -> Written:
    if c.rank != 4:
        c.refuse("needs an input of four dimensions")
    r = int(c["downscale_factor"])
    _, channels, h, w = (int(s) for s in c.x.shape)
    return _regrouped(c, (0, channels, h // r, r, w // r, r), (0, 1, 3, 5, 2, 4), (0, *c.shape[1:]))


@writes("F.channel_shuffle torch.channel_shuffle", "input groups")
def _channel_shuffle(c: Call) -> Written:
    groups, channels = int(c["groups"]), int(c.x.shape[1])
    middle = (0, groups, channels // groups, -1)
    return _regrouped(c, middle, (0, 2, 1, 3), (0, *c.shape[1:]))


# ---- nothing changes


@writes(
    """F.dropout F.dropout1d F.dropout2d F.dropout3d F.alpha_dropout F.feature_alpha_dropout torch.dropout
    torch.feature_dropout torch.alpha_dropout""",
    "input p=0.5 training=True|input p train=True",
)
def _dropout(c: Call) -> Written:
    if c.named.get("training", c.named.get("train")) and c["p"] > 0:
        c.refuse("dropout is active in an eval forward; pass training=self.training")
    return c()


@writes("torch.full_like", "input fill_value")
def _full_like(c: Call) -> Written:
    filled: Array = c.result.detach().cpu().to(c.dtype).numpy()
    return filled


@writes("Tensor.__deepcopy__ torch.positive Tensor.positive Tensor.__pos__ torch.asarray torch.as_tensor", "input")
def _same(c: Call) -> Written:
    return c() if c.result.dtype == c.x.dtype else None
