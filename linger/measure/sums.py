"""Sums over batches: energies of signals and of what is lost, counts, extremes, a histogram."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Energy", "Histogram", "Values", "decibels"]

_BINS = 96


def decibels(signal: float, noise: float) -> float | None:
    """The ratio of two energies in dB: None without a signal, infinity without noise."""
    if not signal > 0.0 or math.isnan(noise):
        return None
    return math.inf if noise == 0.0 else 10.0 * math.log10(signal / noise)


def _sums(x: Tensor, axis: int | None) -> Tensor:
    """Sum of squares in double precision, by channel where an axis is given."""
    squares = x.double().square()
    return squares.sum() if axis is None else squares.movedim(axis, 0).flatten(1).sum(1)


@dataclass
class Energy:
    """Energies of a signal and of the difference to what was computed, over batches, whole and by channel.

    Args:
        axis: Axis of the channels; None: none.
    """

    axis: int | None = None
    signal: float = 0.0
    noise: float = 0.0
    channels: list[Tensor] = field(default_factory=list)

    def add(self, wanted: Tensor, got: Tensor) -> None:
        """One batch: float values and what was computed for them, of one shape."""
        wanted = wanted.float()
        lost = got.float() - wanted
        self.signal += float(_sums(wanted, None))
        self.noise += float(_sums(lost, None))
        if self.axis is not None and wanted.dim() > 1 and wanted.shape[self.axis] > 1:
            now = [_sums(wanted, self.axis), _sums(lost, self.axis)]
            same = self.channels and self.channels[0].shape == now[0].shape
            self.channels = [a + b for a, b in zip(self.channels, now, strict=True)] if same else now

    @property
    def sqnr(self) -> float | None:
        """Ratio of signal and noise in dB."""
        return decibels(self.signal, self.noise)

    @property
    def worst_channel(self) -> tuple[int, float] | None:
        """The channel that loses most of its own signal, and its ratio in dB."""
        if not self.channels:
            return None
        signal, noise = self.channels
        ratios = torch.where(signal > 0, noise / signal.clamp_min(1e-300), torch.zeros_like(signal))
        at = int(ratios.argmax())
        found = decibels(float(signal[at]), float(noise[at]))
        return None if found is None else (at, found)


@dataclass
class Histogram:
    """Counts of values in bins of one width; the first and the last also count what is beyond them."""

    low: float = 0.0
    high: float = 0.0
    counts: list[int] = field(default_factory=list)

    def add(self, x: Tensor) -> None:
        """One batch; the first decides the bins."""
        if not self.counts:
            low, high = float(x.min()), float(x.max())
            margin = 0.02 * (high - low) or max(abs(high), 1.0) * 0.02
            self.low, self.high, self.counts = low - margin, high + margin, [0] * _BINS
        width = (self.high - self.low) / _BINS
        found = torch.bincount(((x.double() - self.low) / width).long().clamp(0, _BINS - 1), minlength=_BINS)
        self.counts = [a + b for a, b in zip(self.counts, found.tolist(), strict=True)]


@dataclass
class Values:
    """What a tensor's float values are, and what became of them in codes, over batches.

    Attributes:
        low, high: Smallest and largest float value.
        count: Values.
        saturated: Those beyond the largest or smallest code.
        zeros: Those that are zero in float.
        zero_codes: Those whose code is zero.
        clamped: Those beyond the limit of a training step.
        not_finite: NaN and infinities; nothing else counts them.
    """

    low: float = math.inf
    high: float = -math.inf
    count: int = 0
    saturated: int = 0
    zeros: int = 0
    zero_codes: int = 0
    clamped: int = 0
    not_finite: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, wanted: Tensor, got: Tensor, scale: float, bits: int, limit: float | None = None) -> None:
        """One batch: float values, those of the codes, the codes' format, and the limit of a training step."""
        x, y = wanted.float().flatten(), got.float().flatten()
        finite = x.isfinite()
        if not bool(finite.all()):
            self.not_finite += int((~finite).sum())
            x, y = x[finite], y[finite]
        if not x.numel():
            return
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.count += x.numel()
        top = 1 << (bits - 1)
        self.saturated += int(((x * scale >= top - 0.5) | (x * scale < -top - 0.5)).sum())
        self.clamped += 0 if limit is None else int((x.abs() > limit).sum())
        self.zeros += int((x == 0).sum())
        self.zero_codes += int((y == 0).sum())
        self.histogram.add(x)
