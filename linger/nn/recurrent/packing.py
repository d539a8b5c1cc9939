"""Packed sequences: rows of a quantized tensor keep their format on the way in and out of ``PackedSequence``.

Every import spelling of ``pack_padded_sequence`` and ``pad_packed_sequence`` ends in the same two functions of torch, and
``enforce_sorted=False`` adds ``index_select`` and ``sort``; nothing is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from linger.nn.moves import copies  # noqa: F401  its index_select is the one to extend
from linger.runtime import HANDLERS, Operand, Tape, Value, current_tape, handles, info, tag
from linger.runtime.spellings import Handler

_log = logging.getLogger("linger")


class Padded(NamedTuple):
    """What packed rows are in a file, which has no packed form: the padded tensor, and the length of its one sequence.

    Attributes:
        source: ``(1, T, ...)`` or ``(T, 1, ...)``, a tensor of the forward or a value of the file.
        batch_first: Which of the two.
        length: int32 or int64 ``[1]``.
    """

    source: Tensor | Value
    batch_first: bool
    length: Operand


def padded(data: Tensor) -> Padded | None:
    """What the packed rows ``data`` are in the file that is being recorded."""
    tape = current_tape()
    note = None if tape is None else tape.noted(data)
    return note if isinstance(note, Padded) else None


def mark_padded(tape: Tape, data: Tensor, origin: Padded) -> None:
    """Remember it; any other use of the rows has no form in the file."""
    tape.note(data, origin)
    tape.poison(data, f"packed rows have no form in a file except between recurrent layers: {tape.where()}")


def _length(tape: Tape, lengths: Tensor, room: int) -> Operand:
    if not tape.has(lengths):
        return lengths.detach().cpu().numpy().astype(np.int32)
    if int(lengths[0]) < room:
        _log.warning(
            "linger.onnx.export: %s: the sequence is exported with %d of its %d steps, and so are the shapes in the file; "
            "export with the longest length",
            tape.where(),
            int(lengths[0]),
            room,
        )
    name = tape.name_of(lengths)
    made = next((node for node in tape.nodes if name in node.outputs and node.op_type == "Cast"), None)
    return Value(name if made is None else made.inputs[0])  # int32 or int64, as it came: the packer stops at a Cast


@handles("pack", "_VF._pack_padded_sequence")
def _pack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, lengths, batch_first = args
    fmt, tape = info(x), current_tape()
    if fmt is None and (tape is None or not tape.has(x)):
        return NotImplemented
    data, batch_sizes = func(x, lengths, batch_first)
    if fmt is not None:
        codes = None if fmt.codes is None else func(fmt.codes, lengths, batch_first)[0]
        data = tag(data, fmt.like(codes))
    if tape is not None:
        if len(lengths) == 1:
            length = _length(tape, lengths, x.shape[1 if batch_first else 0])
            mark_padded(tape, data, Padded(x, bool(batch_first), length))
        else:
            tape.poison(data, f"a packed batch of {len(lengths)} sequences; export with one: {tape.where()}")
    return data, batch_sizes


@handles("pad", "_VF._pad_packed_sequence")
def _pad(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    data, batch_sizes, batch_first, value, total = args
    fmt, tape = info(data), current_tape()
    if fmt is None or float(value) != 0.0:  # another padding value need not be on the grid
        return NotImplemented
    y, lengths = func(data, batch_sizes, batch_first, value, total)
    codes = None if fmt.codes is None else func(fmt.codes, batch_sizes, batch_first, 0, total)[0]
    y = tag(y, fmt.like(codes))
    if tape is not None:
        _write_padded(tape, data, y, bool(batch_first), len(batch_sizes), total > 0)
    return y, lengths


def _write_padded(tape: Tape, data: Tensor, y: Tensor, batch_first: bool, steps: int, filled: bool) -> None:
    origin = padded(data)
    if filled and origin is not None and isinstance(origin.length, Value):
        _log.warning(
            "linger.onnx.export: total_length of pad_packed_sequence: %s: no chip writes the rows behind the length, "
            "which is an input of the file; the results of shorter sequences end with their last step",
            tape.where(),
        )
    if origin is None:
        tape.alias(y, data)  # poisoned: says why when it is needed
        return
    if y.shape[1 if batch_first else 0] != steps:
        tape.poison(y, f"total_length beyond the sequence: no chip writes the rows behind it: {tape.where()}")
    elif origin.batch_first == batch_first:
        tape.bind(y, origin.source.name if isinstance(origin.source, Value) else tape.name_of(origin.source))
    else:
        tape.node("Transpose", [origin.source], [y], {"perm": [1, 0, *range(2, y.dim())]})


def _alone(handler: Handler | None) -> Handler:
    """``enforce_sorted=False`` puts the sequences in order and back: in a file, which has one, that is nothing."""

    def handle(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named: dict[str, Any] = {**dict(zip(("input", "dim", "index"), args, strict=False)), **kwargs}
        tape: Any = current_tape()
        x: Any = named.get("input")
        dim: Any = named.get("dim")
        index: Any = named.get("index")
        known = isinstance(x, Tensor) and isinstance(index, Tensor) and isinstance(dim, int) and tape is not None
        if not known or not tape.has(x) or x.shape[dim] != 1 or index.numel() != 1:
            return NotImplemented if handler is None else handler(func, args, kwargs)
        y = func(*args, **kwargs)
        fmt = info(x)
        if fmt is not None:
            codes = None if fmt.codes is None else torch.index_select(fmt.codes, dim, index)
            y = tag(y, fmt.like(codes))
        tape.alias(y, x)
        return y

    return handle


for _func in (torch.index_select, Tensor.index_select):
    HANDLERS[_func] = _alone(HANDLERS.get(_func))


@handles("sort", "torch.sort Tensor.sort")
def _sort(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One length is sorted: a file that takes it as an input keeps it."""
    tape = current_tape()
    if tape is None or not args or not tape.has(args[0]) or args[0].is_floating_point():
        return NotImplemented
    result = func(*args, **kwargs)
    if args[0].numel() == 1:
        tape.alias(result[0], args[0])
    else:
        for t in result:
            tape.poison(t, f"the order of {args[0].numel()} packed sequences; export with one: {tape.where()}")
    return result


__all__ = ["Padded", "mark_padded", "padded"]
