"""Last states of recurrent layers: every layer has a scale of its own, so their rows keep their own formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from linger.runtime import HANDLERS

_ATTRIBUTE = "_linger_rows"


class Rows:
    """Formats of the rows of ``(layers * directions, B, H)``: every layer has a scale of its own.

    Args:
        parts: Tagged tensors ``(1, B, H)``.
    """

    __slots__ = ("parts", "version")

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)
        self.version: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """As a format: copies and files carry none."""
        return (set, ())


def mark_rows(t: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Remember what the rows of ``t`` are; use the result: in compiled code it is a view of ``t``."""
    if torch.compiler.is_compiling():
        t = t.view_as(t)
    rows = Rows(parts)
    rows.version = _version(t)
    setattr(t, _ATTRIBUTE, rows)
    return t


def _version(t: Tensor) -> int | None:
    return None if torch.compiler.is_compiling() or t.is_inference() else t._version


def rows_of(t: Tensor) -> tuple[Tensor, ...] | None:
    """The parts of a tensor that :func:`mark_rows` has marked and nobody has written since."""
    rows: Rows | None = getattr(t, _ATTRIBUTE, None) or None
    if rows is None:
        return None
    now = _version(t)
    return rows.parts if now is None or rows.version is None or now == rows.version else None


def row_of(name: str, func: Callable[..., Any], t: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One row, or all rows apart, of marked states; ``NotImplemented`` for all other calls.

    Args:
        name: ``getitem``, ``select`` or ``split``, as :func:`linger.nn.moves.register.keeps` names them.
        func: The user's spelling.
        t: The tensor taken apart.
        args, kwargs: The other arguments.
    """
    parts = rows_of(t)
    if parts is None:
        return NotImplemented
    if name == "getitem":
        index = args[0] if isinstance(args[0], tuple) else (args[0],)
        if not index or not _is_row(index[0], len(parts)):
            return NotImplemented
        return HANDLERS[func](func, (parts[index[0]], (0, *index[1:])), {})
    if name == "select":
        named = {**dict(zip(("dim", "index"), args, strict=False)), **kwargs}
        if named.get("dim") not in (0, -t.dim()) or not _is_row(named.get("index"), len(parts)):
            return NotImplemented
        return HANDLERS[func](func, (parts[named["index"]], 0, 0), {})
    axis = kwargs.get("dim", args[0] if args else 0)
    if name == "split" and func in (torch.unbind, Tensor.unbind) and axis in (0, -t.dim()):
        return tuple(HANDLERS[torch.select](torch.select, (part, 0, 0), {}) for part in parts)
    return NotImplemented


def _is_row(index: Any, n: int) -> bool:
    return isinstance(index, int) and not isinstance(index, bool) and -n <= index < n


__all__ = ["Rows", "mark_rows", "row_of", "rows_of"]
