"""What one thread knows while a converted model runs: who executes, which sources are quantized, whether a tape records."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .tag import info

if TYPE_CHECKING:
    from .tape import Tape


class Frame:
    """One running ``forward`` of an owner (a module whose code calls operators)."""

    __slots__ = ("owner", "visits")

    def __init__(self, owner: nn.Module) -> None:
        self.owner = owner
        self.visits: dict[object, int] = {}


class _State(threading.local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.tape: Tape | None = None
        self.float_depth = 0
        self.quantized_sources: dict[int, tuple[Tensor, int, Tensor]] = {}


state = _State()


def current_tape() -> Tape | None:
    """The tape that records this thread's forward, or None."""
    return state.tape


def remembered(source: Tensor) -> Tensor | None:
    """The quantized form that an earlier consumer made of this float tensor in this forward."""
    entry = state.quantized_sources.get(id(source))
    if entry is None or source.is_inference() or entry[1] != source._version or info(entry[2]) is None:
        return None
    return entry[2]


def remember(source: Tensor, quantized: Tensor) -> None:
    """One source, several consumers: keep the first consumer's quantized tensor until the outermost forward ends."""
    if state.frames and not source.is_inference():
        state.quantized_sources[id(source)] = (source, source._version, quantized)
