"""What one thread knows while a converted model runs: who executes, which sources are quantized, whether a tape records."""

from __future__ import annotations

import threading
import warnings
import weakref
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from linger.errors import UnsupportedError

from .tag import info, overwritten, version_of

if TYPE_CHECKING:
    from .tape import Tape


FLOAT_OPERATORS = (
    "_linger_float_operators"  # in the __dict__ of an owner: names of operators that its settings switch off
)


class StaysFloat(UnsupportedError):
    """The settings keep the operator of this call in float; interception computes it so."""


class Frame:
    """One running ``forward`` of an owner (a module whose code calls operators), or the block of ``active``."""

    __slots__ = ("active", "entry", "owner", "visits")

    def __init__(self, owner: nn.Module, active: bool = False) -> None:
        self.owner, self.active = owner, active
        self.visits: dict[object, int] = {}
        self.entry: FrameType | None = None  # of `active`: the method call that runs

    def begins(self, entry: FrameType | None) -> None:
        """Inside ``active``: another method call counts its visits from the start."""
        if entry is not self.entry:
            self.entry = entry
            self.visits.clear()


class _State(threading.local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.tape: Tape | None = None
        self.float_depth = 0
        self.only_moves = False  # whether the handler of the running call leaves it float, and it only moves elements
        self.without_data: list[str] = []  # quantizers of this forward that took the range of the batch
        self.used: set[nn.Module] | None = None  # quantizers of a forward that asks which ones run; it warns of none
        self.quantized_sources: dict[int, tuple[Tensor, int | None, Tensor]] = {}
        self.flow: dict[int, weakref.ref[Tensor]] = {}  # float tensors that come from the inputs of this forward
        self.compiled_sources: list[tuple[Tensor, Tensor]] = []  # dynamo has no ids of tensors


state = _State()


def current_tape() -> Tape | None:
    """The tape that records this thread's forward, or None."""
    return state.tape


def remembered(source: Tensor) -> Tensor | None:
    """The quantized form that an earlier consumer made of this float tensor in this forward."""
    if torch.compiler.is_compiling():
        for known, quantized in state.compiled_sources:
            if known is source:
                return quantized
        return None
    entry = state.quantized_sources.get(id(source))
    if entry is None or entry[1] != version_of(source) or info(entry[2]) is None:
        return None
    return entry[2]


def remember(source: Tensor, quantized: Tensor) -> None:
    """One source, several consumers: keep the first consumer's quantized tensor until the outermost forward ends."""
    if torch.compiler.is_compiling():
        if state.frames:
            state.compiled_sources.append((source, quantized))
    elif state.frames:
        state.quantized_sources[id(source)] = (source, version_of(source), quantized)


def forget(source: Tensor) -> None:
    """``source`` has been written: its format and its quantized form no longer hold (needed where torch counts no versions)."""
    overwritten(source)
    if version_of(source) is None:
        forget_sources()  # nothing tells which of them share its memory
    else:
        state.quantized_sources.pop(id(source), None)


def forget_sources() -> None:
    """The outermost forward has ended: what its consumers shared is no longer needed."""
    state.quantized_sources.clear()
    state.compiled_sources.clear()
    state.flow.clear()
    if state.only_moves:
        state.only_moves = False


def end_forward() -> None:
    """The outermost forward has ended: one warning names the quantizers that have seen no data."""
    forget_sources()
    if torch.compiler.is_compiling() or not state.without_data:
        return
    names = ", ".join(f"'{name}'" for name in state.without_data)
    state.without_data = []
    warnings.warn(
        f"linger: these quantizers have seen no data yet: {names}. In eval they take the range of each batch; train, calibrate "
        "(linger.calibration()) or load a checkpoint first",
        stacklevel=6,
    )
