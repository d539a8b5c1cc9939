"""What a tape holds: nodes, tensors of the file that have none in the forward, and what is known about those that have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["Array", "ChipOutput", "FloatCall", "Moved", "Node", "Operand", "Value"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph that exists only in the file (between two nodes of one operator)."""

    name: str


@dataclass
class Node:
    """One node of the file."""

    op_type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    domain: str
    where: str = ""
    layer: str = ""
    call: FloatCall | None = None


@dataclass(frozen=True)
class FloatCall:
    """The call of user code that a float node is written for.

    Args:
        operator: Name of the function.
        handled: A quantized operator exists for it.
        codes: An operand was quantized.
        moves: It only moves elements: what is float lies in front or behind.
    """

    operator: str
    handled: bool
    codes: bool
    moves: bool = False


@dataclass(frozen=True)
class ChipOutput:
    """A graph output that the chip gives in another form than torch.

    Args:
        like: Shape and dtype of what the file returns.
        write: Appends the node that writes it under the given name.
    """

    like: Tensor
    write: Callable[[Value], None]


@dataclass(frozen=True)
class Moved:
    """A float tensor whose elements are those of ``sources`` in other places: the integers can be made before the move.

    Args:
        sources: Flow in the graph.
        write: Appends the nodes that move codes: from the quantized sources to the quantized result.
    """

    sources: tuple[Tensor, ...]
    write: Callable[[Sequence[Tensor], Tensor], None]


Operand = Tensor | Value | Array | None
"""What a node reads: a tensor of the forward, a value of the file, a constant, or nothing."""
