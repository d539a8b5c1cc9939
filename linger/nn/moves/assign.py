"""Assignment to a part of a tensor, ``y[:, :, 1:] = x``: the parts around it and what is assigned, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from linger.nn.functional import store
from linger.runtime import HANDLERS, current_tape, handles, info, operator_at_site

_GET = Tensor.__getitem__
Part = tuple[int, int, bool]  # begin and end along an axis, and whether the index is a number


def _parts(index: Any, shape: torch.Size) -> list[Part] | None:
    """What a basic index takes of every axis; None for others (steps, masks, tensors, new axes)."""
    given = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(i, (int, slice, type(...))) or isinstance(i, bool) for i in given):
        return None
    if ... in given:
        at = given.index(...)
        given[at : at + 1] = [slice(None)] * (len(shape) - len(given) + 1)
    given += [slice(None)] * (len(shape) - len(given))
    found = []
    for i, size in zip(given, shape, strict=True):
        if isinstance(i, int):
            if not -size <= i < size:
                return None
            found.append((i % size, i % size + 1, True))
            continue
        if any(not isinstance(v, (int, type(None))) for v in (i.start, i.stop, i.step)):
            return None
        begin, end, step = i.indices(size)
        if step != 1 or end <= begin:
            return None
        found.append((begin, end, False))
    return found


def _piece(x: Tensor, axis: int, begin: int, end: int) -> Tensor:
    index = (*[slice(None)] * axis, slice(begin, end))
    known = info(x) is not None or (tape := current_tape()) is not None and tape.has(x)
    result = HANDLERS[_GET](_GET, (x, index), {}) if known else NotImplemented
    return x[index] if result is NotImplemented else cast(Tensor, result)


def _assigned(x: Tensor, parts: list[Part], value: Tensor, axis: int = 0) -> Tensor:
    """``x`` with ``value``, of all its axes, in the place of a part of it."""
    while axis < len(parts) and parts[axis][:2] == (0, x.shape[axis]):
        axis += 1
    if axis == len(parts):
        return value
    begin, end, _ = parts[axis]
    inner = _assigned(_piece(x, axis, begin, end), parts, value, axis + 1)
    pieces = [_piece(x, axis, 0, begin)] if begin else []
    pieces.append(inner)
    if end < x.shape[axis]:
        pieces.append(_piece(x, axis, end, x.shape[axis]))
    return cast(Tensor, cast(Any, operator_at_site("cat", len(pieces)))(pieces, axis))


@handles("setitem", "Tensor.__setitem__ operator.setitem")
def _set(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, index, value = args if len(args) == 3 else (None, None, None)
    if not isinstance(x, Tensor) or not isinstance(value, Tensor):
        return NotImplemented
    if not torch.compiler.is_compiling() and x._is_view():  # to compiled code every quantized tensor is one
        return NotImplemented
    formats = info(x), info(value)
    if (
        all(f is None for f in formats)
        or any(f is not None and f.bits > 8 for f in formats)
        or not x.is_floating_point()
    ):
        return NotImplemented
    if not value.is_floating_point() or value.device != x.device or x.dim() > 4:
        return NotImplemented
    parts = _parts(index, x.shape)
    if parts is None or all((b, e) == (0, n) for (b, e, _), n in zip(parts, x.shape, strict=True)):
        return NotImplemented
    if tuple(value.shape) != tuple(e - b for b, e, number in parts if not number):
        return NotImplemented
    for axis, (_, _, number) in enumerate(parts):
        if number:
            lifted = HANDLERS[torch.unsqueeze](torch.unsqueeze, (value, axis), {})
            value = value.unsqueeze(axis) if lifted is NotImplemented else lifted
    store(x, _assigned(x, parts, value))
    return None


__all__: list[str] = []
