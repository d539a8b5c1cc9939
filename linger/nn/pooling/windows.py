"""Which elements the windows of a pooling cover along one axis, and how few nodes with one kernel and stride compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Run(NamedTuple):
    """Neighbouring windows of one axis with one length.

    Attributes:
        start: First element of the first window; below 0 in the padding.
        length: Elements of a window, padding included.
        step: Distance of the windows; at most ``length`` where ``rows`` is None and there are several.
        number: Number of windows.
        rows: Elements to gather beforehand, window behind window, so that the step is the length; None: they lie regularly.
    """

    start: int
    length: int
    step: int
    number: int
    rows: tuple[int, ...] | None = None

    def part(self, size: int) -> tuple[int, int, int, int]:
        """(first element, end, padding before, padding after) of an axis of ``size`` elements."""
        end = self.start + (self.number - 1) * self.step + self.length
        low, high = max(0, self.start), min(size, end)
        before, after = low - self.start, end - high
        if after == 0 and (size - low + before - self.length) // self.step + 1 == self.number:
            high = size  # what is left over gives no window
        return low, high, before, after


def outputs(size: int, kernel: int, stride: int, padding: int, ceil: bool, dilation: int = 1) -> int:
    """Number of windows of one axis; in ceil mode none begins behind the input and its first padding."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def starts(stride: int, padding: int, count: int) -> list[int]:
    """First elements of ``count`` windows of a pooling, below 0 in the padding."""
    return [i * stride - padding for i in range(count)]


def bounds(size: int, kernel: int, stride: int, padding: int, count: int, include_pad: bool) -> list[tuple[int, int]]:
    """(start, end) of the elements that an average counts, as torch has it: a last window beyond the padding is cut."""
    windows = []
    for start in starts(stride, padding, count):
        end = min(start + kernel, size + padding)
        windows.append((start, end) if include_pad else (max(start, 0), min(end, size)))
    return windows


def adaptive(size: int, count: int) -> list[tuple[int, int]]:
    """(start, end) of the windows of an adaptive pooling; neighbours may overlap and differ in length by one."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def average_runs(size: int, kernel: int, stride: int, padding: int, ceil: bool, include_pad: bool) -> list[Run]:
    """The windows of an average pooling along one axis; usually one run."""
    count = outputs(size, kernel, stride, padding, ceil)
    inside = (count - 1) * stride + kernel <= size + 2 * padding and (include_pad or padding == 0)
    if inside and (kernel >= stride or count == 1):
        return [Run(-padding, kernel, min(stride, kernel), count)]
    return runs(bounds(size, kernel, stride, padding, count, include_pad), size, stride)


def runs(windows: Sequence[tuple[int, int]], size: int, stride: int) -> list[Run]:
    """Windows in order as runs; ``stride`` is the step of a run of one window."""
    found: list[Run] = []
    group: list[tuple[int, int]] = []
    regular = inside = True
    for window in windows:
        here = window[0] >= 0 and window[1] <= size  # only such elements can be gathered
        even = _follows(group, window)
        same = not group or window[1] - window[0] == group[0][1] - group[0][0]
        if same and (regular and even or inside and here):
            regular, inside = regular and even, inside and here
        else:
            found.append(_run(group, regular, stride))
            group, regular, inside = [], True, here
        group.append(window)
    return [*found, _run(group, regular, stride)]


def _follows(group: Sequence[tuple[int, int]], window: tuple[int, int]) -> bool:
    """Whether a window continues the step of those before it, without a gap."""
    if not group:
        return True
    step = window[0] - group[-1][0]
    return 0 < step <= window[1] - window[0] and (len(group) < 2 or step == group[1][0] - group[0][0])


def _run(group: Sequence[tuple[int, int]], regular: bool, stride: int) -> Run:
    (start, end), count = group[0], len(group)
    length = end - start
    if count == 1:
        return Run(start, length, min(stride, length), 1)
    if regular:
        return Run(start, length, group[1][0] - start, count)
    return Run(0, length, length, count, tuple(i for a, b in group for i in range(a, b)))


__all__ = ["Run", "adaptive", "average_runs", "bounds", "outputs", "runs", "starts"]
