"""Bytes that a training step holds, from the allocator's own events: exact and repeatable."""

from __future__ import annotations

from collections.abc import Callable

import torch


def _changes(call: Callable[[], object]) -> list[int]:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        kept = call()
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    del kept
    return [n for _, n in memory]


def saved_bytes(forward: Callable[[], object]) -> int:
    """What is still allocated after ``forward``, its graph alive: what autograd keeps for backward."""
    return sum(_changes(forward))


def peak_bytes(step: Callable[[], object]) -> int:
    """Highest rise of the CPU allocator within one step."""
    now = top = 0
    for n in _changes(step):
        now += n
        top = max(top, now)
    return top
