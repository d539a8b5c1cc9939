"""``linger.compare_stats``: the ranges of some data against those that a model has stored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from linger.convert.dry_run import copied
from linger.convert.report import format_table, html_table
from linger.quantizers import Quantizer, calibration, layer_of

from .diagnosis import shortened
from .measure import measured_model
from .watch import arguments_of, batches_of, run

__all__ = ["Drift", "DriftReport", "compare_stats"]

_NOTABLE = 0.5  # bits
_HEAD = ("layer", "tensor", "stored", "data", "drift", "")


@dataclass(frozen=True)
class Drift:
    """One tensor's range.

    Attributes:
        layer: Qualified name.
        tensor: ``input`` or ``output``, with a number where a layer has several.
        stored: Range of the statistics, in real units; None: it has seen no data.
        data: The same of the batches.
        bits: log2 of their ratio: above 0 the data are larger, and saturate; below 0 codes are unused.
    """

    layer: str
    tensor: str
    stored: float | None
    data: float
    bits: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class DriftReport:
    """What :func:`compare_stats` found, in the order of the model; prints within 100 columns.

    Attributes:
        rows: Every tensor that a quantizer with a range of its own saw.
        batches: How many were seen.
    """

    rows: tuple[Drift, ...]
    batches: int

    @property
    def largest(self) -> Drift | None:
        """The tensor that has drifted most."""
        known = [r for r in self.rows if r.bits is not None]
        return max(known, key=lambda r: abs(r.bits or 0.0), default=None)

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                shortened(r.layer, 50),
                r.tensor,
                "no data" if r.stored is None else f"{r.stored:.4g}",
                f"{r.data:.4g}",
                "-" if r.bits is None else f"{r.bits:+.1f} bits",
                "" if r.bits is None or abs(r.bits) < _NOTABLE else "saturates" if r.bits > 0 else "unused codes",
            )
            for r in self.rows
        ]

    def _title(self) -> str:
        worst = self.largest
        title = f"linger.compare_stats, {self.batches} batch{'es' if self.batches != 1 else ''}"
        if worst is None or worst.bits is None or abs(worst.bits) < _NOTABLE:
            return f"{title}: the data fit the stored ranges"
        return f"{title}: {worst.layer} {worst.tensor} has drifted by {worst.bits:+.1f} bits"

    def __str__(self) -> str:
        return f"{self._title()}\n{format_table(_HEAD, self._cells())}"

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>{html_table(_HEAD, self._cells())}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {"batches": self.batches, "rows": [r.to_dict() for r in self.rows]}


def compare_stats(model: nn.Module, batches: Any) -> DriftReport:
    """Compare the ranges that some data have with those that a quantized model has stored; nothing of the model changes.

    The data run through a copy in float. Their ranges are taken as the stored ones were: by the calibration method where the
    last ranges come from a calibration in this process, else as the mean of the batches' largest absolute values.

    Args:
        model: Result of ``linger.init``, calibrated or trained.
        batches: As for :func:`linger.diagnose`.

    Returns:
        A report that prints as a table: per tensor the stored range, the data's, and the drift in bits.

    Raises:
        TypeError: An argument of another kind.
        ValueError: The model is not initialised or cannot be copied; no batch was given.

    Example:
        >>> import torch, linger
        >>> model, x = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 8))), torch.randn(256, 4)
        >>> with linger.calibration():
        ...     _ = model(x)
        >>> linger.compare_stats(model, 4 * x).rows[0].bits
        2.0

    Source: ours.
    """
    measured_model(model, "compare_stats")
    n, sums = 0, dict[Quantizer, float]()
    with copied(model, "compare_stats") as twin, torch.no_grad():
        mine = [q for q in twin.modules() if isinstance(q, Quantizer) and q.role == "activation"]
        stored = {q: q.reach if q.ready else None for q in mine}
        for q in mine:
            if not q.calibrated:
                q.calibrate = "abs_max"
        for batch in batches_of(batches):
            args, kwargs = arguments_of(twin, batch)
            for q in mine:
                q.reset()
            with calibration(twin):
                run(twin, args, kwargs)
            for q in mine:
                if q.ready:
                    sums[q] = sums.get(q, 0.0) + q.reach
            n += 1
    if not n:
        raise ValueError("compare_stats: batches gave no batch")
    rows = [_drift(q.name, stored[q], sums[q] / n) for q in mine if q in sums]
    return DriftReport(tuple(rows), n)


def _drift(name: str, stored: float | None, data: float) -> Drift:
    layer, tensor = layer_of(name)
    number = name.rpartition(".")[2]
    bits = None if stored is None else math.log2(data / stored)
    return Drift(layer, f"{tensor} {number}" if number.isdigit() else tensor, stored, data, bits)
