"""Operators that stay in float although a quantized tensor reached them: recorded with owner, file and line, never silent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn

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


def record(func: Callable[..., Any], frame: FrameType | None) -> None:
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


def islands_of(model: nn.Module) -> list[Island]:
    """Float operators recorded so far in ``model``, in the order they were met."""
    return [i for m in model.modules() for i in m.__dict__.get("_linger_islands", {})]
