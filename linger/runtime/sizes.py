"""Sizes of recorded tensors: numbers that remember their axis, so that a file can follow another batch."""

from __future__ import annotations

import math

__all__ = ["Dim", "Sizes"]


class Dim(int):
    """A size of a recorded tensor that remembers its axis, so that ``x.view(x.size(0), -1)`` stays a Flatten."""

    axis: int

    def __new__(cls, value: int, axis: int) -> Dim:
        self = super().__new__(cls, value)
        self.axis = axis
        return self


class Sizes(tuple[Dim, ...]):
    """What ``Tensor.shape`` and ``Tensor.size()`` give while a tape records; behaves as ``torch.Size`` does."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self)
