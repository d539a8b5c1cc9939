"""The chips' sigmoid and tanh inside a graph, of operands that no table can hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linger.chip.tables import segments_of

from .graph import F64, I32, Array, StandardGraph

_PART = 16  # bits of the lower part of a slope


def write_segments(g: StandardGraph, x: str, functions: Sequence[str], platform: str) -> str:
    """The function, as wide as the chip's tables have it, of float64 integers in the chip's format.

    Args:
        g: Graph to write into.
        x: Operand ``[..., n]``.
        functions: One per column, or one for all.
        platform: Chip.
    """
    names = list(dict.fromkeys(functions))
    rows = [segments_of(name, platform) for name in names]
    which = np.array([names.index(f) for f in functions])
    least, half, bits = rows[0].least, rows[0].half, rows[0].bits
    if any(r.half != half or r.bits != bits for r in rows):
        raise AssertionError("the tables of one chip round alike")
    # breakpoints in rising order, so that counting those that x has passed finds the segment
    passed = np.array([[-v - 1 for v in reversed(r.limits)] + [-1, *r.limits] for r in rows])
    order = [*range(31, 15, -1), *range(16)]
    slope, icpt, shift = (
        np.array([np.array(values)[order] for values in column], np.int64).reshape(-1)
        for column in zip(*((r.slope, r.icpt, r.shift) for r in rows), strict=True)
    )
    floors = np.array([r.least for r in rows], np.float64)[which]
    x = g.op("Max", x, g.const(floors if len(set(floors)) > 1 else float(least), F64))
    past = g.op("Greater", g.op("Unsqueeze", x, g.ints(-1)), g.const(passed[which], F64))
    at = g.op("ReduceSum", g.to(past, I32), g.ints(-1), keepdims=0)
    if len(names) > 1:
        at = g.op("Add", at, g.const(which * 32, I32))

    def column(values: Array) -> str:
        return g.op("Gather", g.const(values, F64), at)

    # floor((slope * x + half) / 2**shift): slopes of 32 bits in two parts, so that every product is a float64
    if bits > 16:
        high = slope >> _PART
        part = g.op("Floor", g.op("Mul", column((slope - (high << _PART)) * 2.0**-_PART), x))
        total, taken = g.op("Add", g.op("Mul", column(high * 1.0), x), part), _PART
    else:
        total, taken = g.op("Mul", column(slope * 1.0), x), 0
    if half:
        total = g.add(total, half * 2.0**-taken)
    powers = 2.0 ** (taken - shift)
    total = g.op("Floor", g.op("Mul", total, g.const(powers[0]) if len(set(powers)) == 1 else column(powers)))
    return g.clip(g.op("Add", total, column(icpt * 1.0)), bits)


__all__ = ["write_segments"]
