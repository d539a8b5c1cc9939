"""Parts of a quantized tensor: indexing, slicing, splitting, in every spelling of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import Tape, Value, info

from .register import MoveCall, register_move


def _is_row_index(item: Any) -> bool:
    """Whether an index item lists rows: a tensor, array or list of integers (a Gather in files)."""
    if isinstance(item, Tensor):
        return item.dtype in (torch.int64, torch.int32) and item.dim() > 0
    if isinstance(item, np.ndarray):
        return item.dtype.kind == "i" and item.ndim > 0
    return isinstance(item, list) and bool(item) and all(type(i) is int for i in item)


def _is_place(item: Any) -> bool:
    if isinstance(item, slice):
        return all(v is None or isinstance(v, int) for v in (item.start, item.stop, item.step))
    return item is None or item is Ellipsis or isinstance(item, int) and not isinstance(item, bool)


def _is_taking(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an index is made of places and at most one list of rows; masks depend on the data."""
    items = args[0] if isinstance(args[0], tuple) else (args[0],)
    rows = [item for item in items if not _is_place(item)]
    return len(rows) < 2 and all(_is_row_index(item) for item in rows)


def _write_getitem(tape: Tape, call: MoveCall) -> None:
    index = call.args[0] if isinstance(call.args[0], tuple) else (call.args[0],)
    used = sum(1 for i in index if i is not None and i is not Ellipsis)
    if not any(i is Ellipsis for i in index):
        index = (*index, Ellipsis)
    in_file = FileTensor.of(tape, call.x, info(call.x), "getitem", 32)
    axis, out = 0, 0
    drop: list[int] = []
    add: list[int] = []
    rows: tuple[int, Any] | None = None
    for item in index:
        size = 0 if item is None or item is Ellipsis else int(call.x.shape[axis])
        if item is None:
            add.append(out)
            out += 1
        elif item is Ellipsis:
            axis += call.x.dim() - used
            out += call.x.dim() - used
        elif isinstance(item, slice):
            in_file = in_file.gather(axis, range(*item.indices(size)))
            axis, out = axis + 1, out + 1
        elif isinstance(item, int):
            in_file = in_file.slice(axis, item % size, item % size + 1)
            drop.append(axis)
            axis += 1
        else:
            rows = axis, item if isinstance(item, Tensor) else torch.tensor(item)
            axis, out = axis + 1, out + rows[1].dim()
    if rows is not None:
        in_file = take_rows(in_file, *rows)
        drop = [d + rows[1].dim() - 1 if d > rows[0] else d for d in drop]
    in_file.squeeze(*drop).unsqueeze(*add).done(call.result)


def take_rows(in_file: FileTensor, axis: int, index: Tensor) -> FileTensor:
    """``chain`` with the rows of ``axis`` that an index tensor of any rank names: constant, or flowing in the graph."""
    size = in_file.shape[axis]
    shape = (*in_file.shape[:axis], *index.shape, *in_file.shape[axis + 1 :])
    if in_file.tape.has(index):
        return in_file.rows(axis, index, shape)
    listed = [int(i) % size for i in index.reshape(-1)]
    taken = in_file.gather(axis, listed)
    return taken if index.dim() == 1 else taken.reshape(*shape)


def _integers(call: MoveCall, *names: str) -> list[int]:
    """Integer arguments in the order of ``names``, however the call gave them."""
    given = call.bound(*names)
    return [int(given[name]) for name in names]


def _write_select(tape: Tape, call: MoveCall) -> None:
    dim, index = _integers(call, "dim", "index")
    dim %= call.x.dim()
    position = index % call.x.shape[dim]
    in_file = FileTensor.of(tape, call.x, info(call.x), "select", 32)
    in_file.slice(dim, position, position + 1).squeeze(dim).done(call.result)


def _write_narrow(tape: Tape, call: MoveCall) -> None:
    dim, start, length = _integers(call, "dim", "start", "length")
    dim %= call.x.dim()
    start %= max(call.x.shape[dim], 1)
    FileTensor.of(tape, call.x, info(call.x), "narrow", 32).slice(dim, start, start + length).done(call.result)


_SPLIT_AXIS = {"hsplit": 1, "vsplit": 0, "dsplit": 2}


def _write_split(tape: Tape, call: MoveCall) -> None:
    parts: Sequence[Tensor] = list(call.result)
    name = call.func.__name__
    unbind = name == "unbind"
    position = 0 if unbind else 1
    dim = call.kwargs.get("dim", call.args[position] if len(call.args) > position else 0)
    if name in _SPLIT_AXIS:
        dim = min(_SPLIT_AXIS[name], call.x.dim() - 1)
    dim = int(dim) % call.x.dim()
    if len(parts) == 1:
        if unbind:
            tape.node("Squeeze", [call.x], parts, {"axes": [dim]})
        else:
            tape.alias(parts[0], call.x)
        return
    sizes = [1 if unbind else int(p.shape[dim]) for p in parts]
    targets: list[Tensor | Value] = [tape.value("unbind") for _ in parts] if unbind else list(parts)
    attributes = {"axis": dim, "split": sizes}
    if info(call.x) is None:
        tape.node("Split", [call.x], targets, attributes)
    else:  # the packer wants a count that standard ONNX does not have, and ignores the domain
        tape.node("Split", [call.x], targets, {**attributes, "dims": len(parts)}, domain="linger")
    if unbind:
        for target, part in zip(targets, parts, strict=True):
            tape.node("Squeeze", [target], [part], {"axes": [dim]})


def _has_parts(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the sections of a split are numbers (a tensor of them depends on the data)."""
    return not any(isinstance(v, Tensor) for v in (*args, *kwargs.values()))


register_move("getitem", "Tensor.__getitem__ operator.getitem", _write_getitem, takes=_is_taking)
register_move("select", "torch.select Tensor.select", _write_select)
register_move("narrow", "torch.narrow Tensor.narrow", _write_narrow, takes=_has_parts)
register_move(
    "split",
    """torch.split Tensor.split torch.chunk Tensor.chunk torch.tensor_split Tensor.tensor_split torch.unbind Tensor.unbind
    torch.split_with_sizes Tensor.split_with_sizes torch.unsafe_split torch.unsafe_chunk Tensor.unsafe_split
    Tensor.unsafe_chunk torch.hsplit Tensor.hsplit torch.vsplit Tensor.vsplit torch.dsplit Tensor.dsplit""",
    _write_split,
    takes=_has_parts,
)
