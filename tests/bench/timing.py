"""Interleaved timing: candidates alternate in one process, so that noise of the machine hits all alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Timing(NamedTuple):
    """Time of one candidate.

    Attributes:
        min_us, median_us: Microseconds per call.
        ratio_min: Its minimum over the minimum of the reference: the cost on an undisturbed machine.
        ratio_median: Median over rounds of candidate / reference within the same round.
    """

    min_us: float
    median_us: float
    ratio_min: float
    ratio_median: float


def compare(
    candidates: dict[str, Callable[[], object]], reference: str, *, rounds: int, block_s: float, budget_s: float
) -> dict[str, Timing]:
    """Times all candidates in shuffled rounds.

    Args:
        candidates: What to call, by name.
        reference: The candidate that ratios refer to.
        rounds: Rounds at most; at least five are run.
        block_s: Seconds that one measurement lasts at least.
        budget_s: Seconds after which no further round starts.
    """
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    inner = {name: _repeats(call, block_s) for name, call in candidates.items()}
    names, start = list(candidates), time.perf_counter()
    for i in range(rounds):
        order.shuffle(names)
        for name in names:
            times[name].append(_block(candidates[name], inner[name]))
        if i >= 4 and time.perf_counter() - start > budget_s:
            break
    base = times[reference]
    return {
        name: Timing(
            min(own) * 1e6,
            statistics.median(own) * 1e6,
            min(own) / min(base),
            statistics.median(a / b for a, b in zip(own, base, strict=True)),
        )
        for name, own in times.items()
    }


def _block(call: Callable[[], object], inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        call()
    return (time.perf_counter() - start) / inner


def _repeats(call: Callable[[], object], block_s: float) -> int:
    for _ in range(3):
        call()
    inner = 1
    while (spent := _block(call, inner) * inner) < block_s and inner < 1 << 16:
        inner = max(inner * 2, min(int(inner * block_s / max(spent, 1e-9)), inner * 16))
    return inner
