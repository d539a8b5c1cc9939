"""What a recorded run consists of."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Slot", "Step", "slots_in", "tensors_in"]


class Slot(NamedTuple):
    """The place of a tensor that every run computes anew."""

    number: int


class Step(NamedTuple):
    """One operator: arguments, tensors among them as slots, and the slots of its results."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]


def slots_in(value: Any) -> list[int]:
    """Numbers of the slots among arguments."""
    if isinstance(value, Slot):
        return [value.number]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [s for v in value for s in slots_in(v)]


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors among arguments or results."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [t for v in value for t in tensors_in(v)]
