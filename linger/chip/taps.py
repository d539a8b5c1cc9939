"""Kernels along one axis that are longer than a chip's: their taps in rows of a map that holds the sequence several times."""

from __future__ import annotations

from typing import NamedTuple

from .platforms import Limits


class Taps(NamedTuple):
    """A kernel of one row as one of several rows; row ``j`` reads the sequence ``j * columns * dilation`` elements further on.

    Attributes:
        rows, columns: Taps per column and row; ``rows * columns`` is at least their number.
        extent: Elements of a row of the written kernel, zeros in between included.
        dilation: Of the node, along the row.
    """

    rows: int
    columns: int
    extent: int
    dilation: int


def rows_of_taps(chip: Limits, taps: int, dilation: int, stride: int) -> Taps | None:
    """The form of a kernel that the node does not take as it is: one sum, one rounding. None: it fits, or there is none.

    Args:
        chip: Row of the chip.
        taps: Length of the kernel.
        dilation, stride: Along the axis.
    """
    known = dilation in chip.dilations
    top = chip.max_kernel if dilation == 1 or not known else chip.max_kernel_dilated
    if known and taps <= top:
        return None
    columns = top if known else (chip.max_kernel - 1) // dilation + 1
    extent = columns if known else (columns - 1) * dilation + 1
    rows = -(-taps // columns)
    if rows > chip.max_kernel or extent < stride:
        return None
    return Taps(rows, columns, extent, dilation if known else 1)


def most_taps(chip: Limits, dilation: int = 1) -> int:
    """The longest kernel along one axis of a map of one row."""
    return max((n for n in range(1, chip.max_kernel_dilated**2 + 1) if _fits(chip, n, dilation)), default=0)


def _fits(chip: Limits, taps: int, dilation: int) -> bool:
    top = chip.max_kernel if dilation == 1 else chip.max_kernel_dilated
    return dilation in chip.dilations and taps <= top or rows_of_taps(chip, taps, dilation, 1) is not None


__all__ = ["Taps", "most_taps", "rows_of_taps"]
