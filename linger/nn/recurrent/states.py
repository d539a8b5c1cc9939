"""Between layers and directions of recurrent layers, and what leaves them: last states, whose rows keep their formats."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from linger import ops
from linger.ops.recurrent import Walk
from linger.runtime import HANDLERS, Format, info, tag

_ATTRIBUTE = "_linger_rows"


class Sequence(NamedTuple):
    """The rows of a layer's input and the steps they belong to.

    Attributes:
        offsets, counts, batch, stride: As in :class:`linger.ops.recurrent.Walk`.
        packed: The caller's packed sequence, or None.
        unbatched: The caller gave ``(T, D)``.
    """

    offsets: Tensor
    counts: Tensor
    batch: int
    stride: int
    packed: PackedSequence | None
    unbatched: bool

    def walk(self, platform: str, reverse: bool) -> Walk:
        """For one direction."""
        return Walk(self.offsets, self.counts, self.batch, self.stride, platform, reverse)


class CellFormat(Format):
    """Format of an LSTM's cell state: the chip's own 16 or 32 bits. A layer that takes 8 bits quantizes it as a float tensor."""

    __slots__ = ()

    def like(self, codes: Tensor | None) -> Format:
        """The same format for another tensor with its own codes."""
        return CellFormat(self.scale, self.bits, codes, exact=self.exact)


class Rows:
    """Formats of the rows of ``(layers * directions, B, H)``: every layer has a scale of its own.

    Args:
        parts: Tagged tensors ``(1, B, H)``.
    """

    __slots__ = ("parts", "version")

    def __init__(self, parts: abc.Sequence[Tensor]) -> None:
        self.parts = tuple(parts)
        self.version: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """As a format: copies and files carry none."""
        return (set, ())


def mark_rows(t: Tensor, parts: abc.Sequence[Tensor]) -> Tensor:
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


def pick(name: str, func: Callable[..., Any], t: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One row, or all rows apart, of marked states; ``NotImplemented`` for all other calls.

    Args:
        name: ``getitem``, ``select`` or ``split``, as :func:`linger.nn.keeping.keeps` names them.
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


def tagged(value: Tensor, scale: Tensor, bits: int, codes: Tensor | None) -> Tensor:
    """One state with its format; without codes inside ``calibration()``."""
    kind = Format if bits <= 8 else CellFormat
    return tag(value, kind(scale, bits, codes, exact=codes is not None))


def joined(outs: list[ops.Coded]) -> ops.Coded:
    """Both directions side by side; they share their scale, NaN in one is NaN in both."""
    if len(outs) == 1:
        return outs[0]
    value, codes = (torch.cat([o[i] for o in outs], -1) for i in (0, 1))
    return ops.Coded(value, codes, outs[0].scale + (outs[1].scale - outs[1].scale))


def dropped(x: ops.Coded, y: Tensor, p: float) -> ops.Coded:
    """Dropout between layers: the scaled survivors are rounded back to the same grid."""
    fmt = info(y)
    assert fmt is not None
    from linger.nn.moves.shape import fixed_output  # it takes the shape operators, which take this file

    return ops.quantize(F.dropout(x.value, p), fixed_output(fmt))


__all__ = ["CellFormat", "Rows", "Sequence", "dropped", "joined", "mark_rows", "pick", "rows_of", "tagged"]
