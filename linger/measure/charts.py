"""Drawings of the page, as SVG: histograms with the codes' grid, and the rails that join the layers of the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .rows import Row

__all__ = ["Rails", "axis_of", "histogram", "rails_of", "tone"]

_WIDTH, _HEIGHT = 480.0, 100.0
_LINES = 128  # of the grid; more would be a grey area
_STEP, _LANES = 16, 10  # pixels between rails, and how many are drawn
_GOOD, _FAIR = 35.0, 20.0  # dB


def tone(sqnr: float | None) -> str:
    """Colour of a ratio in dB: good, fair, bad or none."""
    if sqnr is None:
        return "none"
    return "good" if sqnr >= _GOOD else "fair" if sqnr >= _FAIR else "bad"


# ---- histograms


def axis_of(row: Row) -> tuple[float, float]:
    """Ends of a histogram's axis: the values, and the reach of the codes where it is not far away."""
    low, high = row.values.histogram.low, row.values.histogram.high
    size = max(-low, high)
    if row.reach <= 4 * size:
        high = max(high, 1.04 * row.reach) if high > 0 else high
        low = min(low, -1.04 * row.reach) if low < 0 and not row.relu else low
    return low, high


def histogram(row: Row) -> str:
    """The float values of a layer, the codes' grid, and what is beyond the codes; heights are square roots of counts."""
    h = row.values.histogram
    if not h.counts or not row.bits or row.values.low == row.values.high:
        return ""
    low, high = axis_of(row)

    def x(value: float) -> float:
        return (value - low) / (high - low) * _WIDTH

    top, width = max(h.counts), (h.high - h.low) / len(h.counts)
    bars = "".join(
        f"M{x(h.low + i * width):.1f} {_HEIGHT:.0f}V{_HEIGHT * (1 - 0.96 * math.sqrt(n / top)):.1f}"
        f"H{x(h.low + (i + 1) * width):.1f}V{_HEIGHT:.0f}Z"
        for i, n in enumerate(h.counts)
        if n
    )
    drawn = [f'<path class="bars" d="{bars}"/>', f'<path class="grid" d="{_grid(row, low, high, x)}"/>']
    for edge in (row.reach, -row.reach - row.step):
        if low < edge < high:
            start, end = (x(edge), _WIDTH) if edge > 0 else (0.0, x(edge))
            drawn.append(f'<rect class="over" x="{start:.1f}" y="0" width="{end - start:.1f}" height="{_HEIGHT:.0f}"/>')
            drawn.append(f'<path class="reach" d="M{x(edge):.1f} 0V{_HEIGHT:.0f}"/>')
    drawn.append(f'<path class="base" d="M0 {_HEIGHT:.0f}H{_WIDTH:.0f}"/>')
    label = f"histogram of {row.values.count} values from {row.values.low:.3g} to {row.values.high:.3g}"
    return (
        f'<svg class="hist" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
    )


def every(row: Row, low: float, high: float) -> int:
    """Which codes the grid shows: every one, or every second, fourth ..."""
    top = min(high, row.reach) / row.step
    bottom = max(low, -row.reach - row.step) / row.step
    codes = max(top - bottom, 1.0)
    return 1 << max(0, math.ceil(math.log2(codes / _LINES)))


def _grid(row: Row, low: float, high: float, x: object) -> str:
    gap = every(row, low, high)
    first = math.ceil(max(low / row.step, -(1 << (row.bits - 1))) / gap)
    last = math.floor(min(high / row.step, (1 << (row.bits - 1)) - 1) / gap)
    scale = _WIDTH / (high - low)
    return "".join(f"M{(i * gap * row.step - low) * scale:.1f} 0V{_HEIGHT:.0f}" for i in range(first, last + 1))


# ---- the network


@dataclass(frozen=True)
class Rails:
    """Rails beside one layer.

    Attributes:
        at: Rail of the layer.
        joins: Rails that end in it, from above.
        passes: Rails that go on below.
        goes_on: Whether its own does.
    """

    at: int
    joins: tuple[int, ...]
    passes: tuple[int, ...]
    goes_on: bool

    def svg(self, colour: str) -> str:
        """The part beside the layer."""
        lines = [_line(j, "0", self.at, "50%") for j in self.joins]
        lines += [_line(j, "0", j, "100%") for j in self.passes]
        lines += [_line(self.at, "50%", self.at, "100%")] if self.goes_on else []
        dot = f'<circle class="{colour}" cx="{_place(self.at)}" cy="50%" r="6.5"/>'
        return f'<svg class="rails" aria-hidden="true">{"".join(lines)}{dot}</svg>'

    def below(self) -> str:
        """The part beside what unfolds below the layer."""
        lines = [_line(j, "0", j, "100%") for j in (*self.passes, *([self.at] if self.goes_on else []))]
        return f'<svg class="rails" aria-hidden="true">{"".join(lines)}</svg>'


def _place(lane: int) -> int:
    return 10 + _STEP * min(lane, _LANES - 1)


def _line(a: int, top: str, b: int, bottom: str) -> str:
    return f'<line x1="{_place(a)}" y1="{top}" x2="{_place(b)}" y2="{bottom}"/>'


def rails_of(nodes: Sequence[tuple[str, Sequence[str]]]) -> tuple[list[Rails], int]:
    """Rails of a network whose nodes (name, whose results it reads) stand in order; and the width in pixels."""
    last: dict[str, int] = {}
    for i, (_, reads) in enumerate(nodes):
        last.update(dict.fromkeys(reads, i))
    lanes: list[str | None] = []
    found, widest = [], 1
    for i, (name, reads) in enumerate(nodes):
        joins = tuple(j for j, p in enumerate(lanes) if p is not None and p in reads)
        ending = [j for j in joins if last[lanes[j] or ""] == i]
        free = [j for j, p in enumerate(lanes) if p is None]
        at = min(ending, default=None) if ending else min(free, default=len(lanes))
        assert at is not None
        for j in ending:
            lanes[j] = None
        passes = tuple(j for j, p in enumerate(lanes) if p is not None)
        if at == len(lanes):
            lanes.append(None)
        goes_on = last.get(name, i) > i
        lanes[at] = name if goes_on else None
        found.append(Rails(at, joins, passes, goes_on))
        widest = max(widest, len(lanes))
    return found, _STEP * min(widest, _LANES) + 8
