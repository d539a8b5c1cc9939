"""Kernels that are larger than a chip's: their taps in rows or channels of a map that holds the input several times."""

from __future__ import annotations

from collections.abc import Sequence
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


class Blocks(NamedTuple):
    """One axis of a kernel as several kernels side by side; block ``j`` reads the input ``j * taps * gap`` elements further on.

    Attributes:
        parts, taps: Blocks, and taps of each; ``parts * taps`` is at least their number.
        extent: Elements of a written block, zeros in between and behind included.
        dilation: Of the node.
        gap: Of the taps in the input.
    """

    parts: int
    taps: int
    extent: int
    dilation: int
    gap: int


def blocks_of_taps(
    chip: Limits, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]
) -> tuple[Blocks, ...] | None:
    """A 2-D kernel in blocks that fit, one sum, one rounding: every block has input channels of its own.

    Args:
        chip: Row of the chip.
        kernel, dilation, stride: Along height and width.

    Returns:
        A row for each axis; None: the kernel fits as it is, or the chip lacks the stride.
    """
    plane = all(d == 1 for d in dilation)
    top = chip.max_kernel if plane else chip.max_kernel_dilated
    fits = all(d in chip.dilations and k <= top for k, d in zip(kernel, dilation, strict=True))
    if fits or any(s not in chip.strides for s in stride):
        return None
    return tuple(_blocks(chip, *axis) for axis in zip(kernel, dilation, stride, strict=True))


def _blocks(chip: Limits, taps: int, gap: int, stride: int) -> Blocks:
    if gap > 1 and gap in chip.dilations and taps <= chip.max_kernel_dilated:
        return Blocks(1, taps, taps, gap, gap)
    parts = -(-taps // ((chip.max_kernel - 1) // gap + 1))
    each = -(-taps // parts)
    return Blocks(parts, each, max((each - 1) * gap + 1, stride), 1, gap)


def most_taps(chip: Limits, dilation: int = 1) -> int:
    """The longest kernel along one axis of a map of one row."""
    return max((n for n in range(1, chip.max_kernel_dilated**2 + 1) if _fits(chip, n, dilation)), default=0)


def _fits(chip: Limits, taps: int, dilation: int) -> bool:
    top = chip.max_kernel if dilation == 1 else chip.max_kernel_dilated
    return dilation in chip.dilations and taps <= top or rows_of_taps(chip, taps, dilation, 1) is not None


__all__ = ["Blocks", "Taps", "blocks_of_taps", "most_taps", "rows_of_taps"]
