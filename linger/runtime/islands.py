"""Operators that stay in float although a quantized tensor reached them: recorded with owner, file and line, never silent."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from . import sites
from .state import state

_log = logging.getLogger("linger")


@dataclass(frozen=True)
class Island:
    """One float operator behind a quantized tensor."""

    owner: str
    operator: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.owner or '(root)'}: {self.operator} stays in float ({self.file}:{self.line})"

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


def note_island(func: Callable[..., Any], frame: FrameType | None) -> None:
    """Remember that ``func`` ran in float on a quantized tensor; the owner keeps the list, the log says it once."""
    if torch.compiler.is_compiling() or not state.frames:
        return
    owner = state.frames[-1].owner
    file, line = sites.where(frame)
    island = Island(owner.__dict__.get("_linger_name", ""), getattr(func, "__name__", str(func)), file, line)
    found: dict[Island, None] = owner.__dict__.setdefault("_linger_islands", {})
    if island not in found:
        found[island] = None
        _log.warning("linger: %s", island)


# Calls that compute nothing and have no handler: a file has their operand in their place.
_NOTHING = frozenset("to float double half type type_as cpu cuda dropout squeeze_ unsqueeze_".split())


def flows(t: Tensor) -> bool:
    """Whether a float tensor comes from the inputs of this forward through float operators alone."""
    known = state.flow.get(id(t))
    return known is not None and known() is t


def let_flow(value: Any) -> None:
    """Remember that these tensors come from the inputs of this forward."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            state.flow[id(value)] = weakref.ref(value)
    elif isinstance(value, (list, tuple)):
        for v in value:
            let_flow(v)
    elif isinstance(value, dict):
        for v in value.values():
            let_flow(v)


def record_float(func: Callable[..., Any], frame: FrameType | None) -> None:
    """Remember that ``func`` ran on float tensors of the forward alone; the log does not say it, ``linger.summary`` does."""
    name = getattr(func, "__name__", str(func))
    if not state.frames or name in _NOTHING:
        return
    owner = state.frames[-1].owner
    file, line = sites.where(frame)
    island = Island(owner.__dict__.get("_linger_name", ""), name, file, line)
    owner.__dict__.setdefault("_linger_float_calls", {})[island] = None


def islands_of(model: nn.Module) -> list[Island]:
    """Float operators behind quantized tensors recorded so far in ``model``, in the order they were met."""
    return [i for m in model.modules() for i in m.__dict__.get("_linger_islands", {})]


def float_calls_of(model: nn.Module) -> list[Island]:
    """All operators met so far that compute in float: those of :func:`islands_of`, and those of float operands."""
    tables = ("_linger_islands", "_linger_float_calls")
    return list(dict.fromkeys(i for m in model.modules() for table in tables for i in m.__dict__.get(table, {})))
