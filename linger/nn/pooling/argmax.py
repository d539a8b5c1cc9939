"""Maxima and minima over an axis, and their places (the node is read back here too).

A chip writes maxima and places into one int32 tensor, [2, ...]. A module returns what torch returns; a graph output that is
such a place is the chip's tensor; several samples are rows of one there, [2, N, ...]. A minimum is the complement (-1 - code,
which int8 always holds) of the maximum of the complements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger.chip import limits_of
from linger.nn.functional import both_operands
from linger.nn.moves.register import named_arguments
from linger.nn.nodes.broadcast import write_channels
from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import NAMES, ChipOutput, Format, NodeReader, Tape, current_tape, handles, info, reads, tag

from .maximum import maximum_over
from .of_two import fit, of_two


def _complement(in_file: FileTensor) -> FileTensor:
    """``-1 - code`` of every code, in a BatchNorm2dInt."""
    assert in_file.scale is not None
    out = in_file.tape.value(f"{in_file.name}.complement")
    scales = in_file.scale, 1.0, in_file.scale
    write_channels(in_file.tape, in_file.value, in_file.shape, np.array(-1), np.array(-1), scales, out, in_file.name)
    return FileTensor(in_file.tape, out, in_file.shape, in_file.scale, in_file.name)


def _note(tape: Tape, x: Tensor, places: Tensor, fmt: Format, dim: int, lowest: bool) -> None:
    """What the file has for ``places``: a node when they are an output of the graph; nothing else on a chip reads them."""
    in_file = FileTensor.of(tape, x, fmt, "argmax", 8 if lowest else 32)
    if lowest:
        in_file = _complement(in_file)
    in_file = in_file.permute(*(a for a in range(x.dim()) if a != dim), dim)
    if x.shape[0] != 1:  # the chip takes one sample: several are its rows
        rows = (1, *in_file.shape)
        in_file = in_file.node("Reshape", rows, {}, np.array([1, -1, *rows[2:]], np.int64))
    shape = (2, *in_file.shape[1:-1], 1)
    reason = (
        f"the places of a maximum are an output of the file or nothing, another operator reads them: {tape.where()}"
    )
    tape.poison(places, reason)

    def write(name: Any) -> None:
        tape.node("ArgMax", [in_file.value], [name], {"axis": -1, "keepdims": 1}, hint="argmax")

    tape.note(places, ChipOutput(torch.empty(shape, dtype=torch.int32), write))


def _record(tape: Tape, x: Tensor, values: Tensor, fmt: Format, axes: list[int], keepdim: bool, lowest: bool) -> None:
    """The nodes of a maximum or minimum over ``axes``."""
    if not lowest:
        tape.alias(values, maximum_over(x, axes, keepdim))
        return
    complement = tag(-x - 1 / fmt.scale, fmt.like(None))
    _complement(FileTensor.of(tape, x, fmt, "min")).done(complement)
    highest = maximum_over(complement, axes, keepdim)
    _complement(FileTensor.of(tape, highest, fmt, "min")).done(values)


def _place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Format, list[int], bool] | None:
    """Tensor, format, axes and keepdim of a call over axes without the batch; None for all others."""
    named = named_arguments(("input", "dim", "keepdim"), args, kwargs)
    x, dim = named.get("input"), named.get("dim")
    fmt = info(x)
    extra = {k for k, v in named.items() if v is not None} - {"input", "dim", "keepdim"}
    if fmt is None or not isinstance(x, Tensor) or dim is None or isinstance(dim, Tensor) or extra:
        return None
    axes = sorted(int(d) % x.dim() for d in ([dim] if isinstance(dim, int) else dim))
    return (x, fmt, axes, bool(named.get("keepdim"))) if axes and axes[0] > 0 else None


@handles("amax", "torch.amax Tensor.amax torch.amin Tensor.amin")
def _amax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = _place(args, kwargs)
    if found is None:
        return NotImplemented
    x, fmt, axes, keepdim = found
    values = tag(func(*args, **kwargs), fmt.like(None))
    tape = current_tape()
    if tape is not None:
        _record(tape, x, values, fmt, axes, keepdim, NAMES[func] == "amin")
    return values


@handles("argmax", "torch.argmax Tensor.argmax torch.argmin Tensor.argmin")
def _argmax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found, tape = _place(args, kwargs), current_tape()
    if found is None:
        return NotImplemented
    places = func(*args, **kwargs)
    if tape is not None:
        x, fmt, (dim,), _ = found
        _note(tape, x, places, fmt, dim, NAMES[func] == "argmin")
    return places


@handles("max", "torch.max Tensor.max torch.min Tensor.min")
def _max(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found, tape = _place(args, kwargs), current_tape()
    if found is None:
        pair = both_operands(args, kwargs)
        return of_two(pair[0], pair[1], NAMES[func] == "min") if pair and fit(*pair[:2]) else NotImplemented
    x, fmt, axes, keepdim = found
    result = func(*args, **kwargs)
    values, places = tag(result[0], fmt.like(None)), result[1]
    lowest = NAMES[func] == "min"
    if tape is not None:
        _note(tape, x, places, fmt, axes[0], lowest)
        _record(tape, x, values, fmt, axes, keepdim, lowest)
    kind = torch.return_types.min if lowest else torch.return_types.max
    return kind((values, places))


@reads("ArgMax")
def read_argmax(node: NodeReader) -> None:
    """Maxima, then places, of the rows of the last axis; the first of equals."""
    value = node.codes(0)
    x, axis = value.codes, node.integer("axis", 0)
    allowed = limits_of(node.platform).argmax_bits
    if value.bits not in allowed:
        raise node.error(f"{node.platform} takes {allowed} bits, got {value.bits}")
    if x.dim() < 2 or axis not in (-1, x.dim() - 1) or x.shape[0] != 1:
        raise node.error(f"needs an input [1, ...] and its last axis, got {tuple(x.shape)} and axis {axis}")
    if x.shape[-1] == 0 or node.integer("keepdims", 1) != 1 or node.integer("select_last_index", 0) != 0:
        raise node.error("needs elements, keepdims = 1, and the first of equals")
    wide = x.to(torch.int32)
    maxima = wide.amax(-1, keepdim=True)
    places = (wide == maxima).to(torch.int32).argmax(-1, keepdim=True).to(torch.int32)
    node.put(0, torch.cat([maxima, places], 0), None)
