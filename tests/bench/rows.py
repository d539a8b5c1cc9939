"""One line of the table, and the options that every part takes."""

from __future__ import annotations

from typing import NamedTuple

from .timing import Timing


class Settings(NamedTuple):
    """Options of the command line.

    Attributes:
        rounds: Interleaved rounds per comparison, at most.
        budget_s: Seconds per comparison, about.
        quick: Fewer shapes and no peers.
    """

    rounds: int
    budget_s: float
    quick: bool


class Row(NamedTuple):
    """One measurement.

    Attributes:
        what: What was measured.
        who: The candidate.
        time: Its time, against the reference of that comparison.
        saved, peak: Bytes kept for backward and highest rise of the allocator, 0 where not measured.
    """

    what: str
    who: str
    time: Timing
    saved: int = 0
    peak: int = 0

    def text(self) -> str:
        """As a line of the table."""
        t = self.time
        memory = f" {self.saved / 1e6:9.2f} {self.peak / 1e6:9.2f}" if self.peak else ""
        times = f"{t.min_us:11.1f} {t.median_us:11.1f} {t.ratio_min:7.2f} {t.ratio_median:7.2f}"
        return f"{self.what:34s} {self.who:30s} {times}{memory}"


HEAD = (
    f"{'what':34s} {'candidate':30s} {'min us':>11s} {'median us':>11s} {'x min':>7s} {'x med':>7s}"
    f" {'saved MB':>9s} {'peak MB':>9s}"
)
