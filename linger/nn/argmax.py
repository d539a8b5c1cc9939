"""Places of maxima: ``argmax`` and ``max`` over an axis (the node is read back here too).

A chip writes maxima and places into one int32 tensor, [2, ...]. A module returns what torch returns; a graph output that is
such a place is the chip's tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linger.chip import limits_of
from linger.runtime import ChipOutput, Format, NodeReader, Tape, current_tape, handles, info, reads, tag

from .chain import Chain
from .pool import bind
from .pool_max import maximum_over


def _note(tape: Tape, x: Tensor, places: Tensor, fmt: Format, dim: int) -> None:
    """What the file has for ``places``: a node when they are an output of the graph; nothing else on a chip reads them."""
    chain = Chain.of(tape, x, fmt, "argmax", 32)
    chain = chain.permute(*(a for a in range(x.dim()) if a != dim), dim)
    shape = (2, *chain.shape[1:-1], 1)
    reason = (
        f"the places of a maximum are an output of the file or nothing, another operator reads them: {tape.where()}"
    )
    tape.poison(places, reason)

    def write(name: Any) -> None:
        tape.node("ArgMax", [chain.value], [name], {"axis": -1, "keepdims": 1}, hint="argmax")

    tape.notes[id(places)] = ChipOutput(torch.empty(shape, dtype=torch.int32), write)


@handles("argmax", "torch.argmax Tensor.argmax")
def _argmax(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = bind(("input", "dim", "keepdim"), args, kwargs)
    x, dim = named.get("input"), named.get("dim")
    fmt = info(x)
    if fmt is None or not isinstance(x, Tensor) or not isinstance(dim, int) or dim % x.dim() == 0:
        return NotImplemented
    tape = current_tape()
    if tape is not None and x.shape[0] != 1:
        return NotImplemented  # the chips take one sample; a file for more computes it in float, and the report says so
    places = func(*args, **kwargs)
    if tape is not None:
        _note(tape, x, places, fmt, dim % x.dim())
    return places


@handles("max", "torch.max Tensor.max")
def _max(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = bind(("input", "dim", "keepdim"), args, kwargs)
    x, dim = named.get("input"), named.get("dim")
    fmt = info(x)
    if fmt is None or not isinstance(x, Tensor) or not isinstance(dim, int) or dim % x.dim() == 0:
        return NotImplemented
    tape = current_tape()
    if set(named) - {"input", "dim", "keepdim"} or tape is not None and x.shape[0] != 1:
        return NotImplemented
    result = func(*args, **kwargs)
    values, places = tag(result[0], fmt.like(None)), result[1]
    if tape is not None:
        dim %= x.dim()
        _note(tape, x, places, fmt, dim)
        tape.alias(values, maximum_over(x, [dim], bool(named.get("keepdim"))))
    return torch.return_types.max((values, places))


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
