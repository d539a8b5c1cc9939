"""Small constants in front of a root, a logarithm or a division: float operators read them as the code says, unrounded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import islands
from .state import state
from .tag import info

SMALL = 2.0**-6  # constants below it are guards: half a code step of most ranges, where rounding leaves nothing of them


class Guard(NamedTuple):
    """How a tensor with a small constant in it is computed in float: ``func(x, *args)``."""

    func: Callable[..., Any]
    x: Tensor
    args: tuple[Any, ...]


def is_small(number: Any) -> bool:
    """Whether a number is a guard rather than a value of the model."""
    return isinstance(number, (int, float)) and 0 < abs(number) < SMALL


def guarded(y: Tensor, func: Callable[..., Any], x: Tensor, *args: Any) -> Tensor:
    """Let float operators that read ``y`` read ``func(x, *args)`` instead; its codes stay what they are."""
    fmt = info(y)
    if fmt is not None and fmt.exact:
        fmt.guard = Guard(func, x, args)
    return y


def unrounded(value: Any) -> Any:
    """An argument of a float operator with its guard at full precision, recorded as the float operator that it is."""
    if isinstance(value, Tensor):
        fmt = info(value)
        if fmt is None or fmt.guard is None:
            return value
        func, x, args = fmt.guard
        if not torch.compiler.is_compiling():
            islands.note_island(func, sys._getframe(1))
        given = (unrounded(x), *args)
        return func(*given) if state.tape is None else state.tape.float_call(func, given, {})
    if type(value) in (list, tuple):
        return type(value)(unrounded(v) for v in value)
    return value


__all__ = ["Guard", "guarded", "is_small", "unrounded"]
