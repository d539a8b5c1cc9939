"""``linger.diagnose``: what quantization costs where in a network, worst first, with what helps."""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import dataclass
from typing import Any

from torch import nn

from linger.convert.report import format_table
from linger.files import replaced

from .advice import in_words, yaml_of
from .bench import Loss
from .cures import FLOAT
from .findings import Finding, findings_of, merged
from .measure import bench
from .rows import Measurement, Row

__all__ = ["Diagnosis", "diagnose"]

WIDTH = 100
_SHOWN = 25  # rows of the table in print; the page and to_dict have all
_HEAD = ("layer", "kind", "bits", "own", "model", "alone", "range", "step", "cut", "zero")


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; prints within 100 columns, and shows itself as a page in a notebook.

    Attributes:
        findings: What stands out, worst first.
        measurement: All numbers, by layer.
        yaml: Lines of a configuration that help, all findings together; they stand in front of other sections.
    """

    findings: tuple[Finding, ...]
    measurement: Measurement
    yaml: str

    @property
    def sqnr(self) -> float | None:
        """What the outputs keep of the float model's, in dB."""
        return self.measurement.output.sqnr

    @property
    def rows(self) -> list[Row]:
        """Layers and operators, those that cost most first."""
        rows = list(self.measurement.rows.values())
        return sorted(rows, key=lambda r: math.inf if r.alone.sqnr is None else r.alone.sqnr)

    def title(self) -> list[str]:
        """Sentences about the whole model."""
        m = self.measurement
        whom = "the reference's" if m.referred else "those of the same model in float"
        batches = "1 batch" if m.batches == 1 else f"{m.batches} batches"
        first = f"linger.diagnose, {m.settings.platform}, {batches}: the outputs keep {db(self.sqnr)} dB of {whom}"
        said = [first]
        if m.losses is not None:
            integers, real = m.losses
            ratio = f", ratio {integers / real:.3g}" if real else ""
            said.append(f"loss of the first batch: {integers:.4g} in integers, {real:.4g} in float{ratio}")
        return said

    def __str__(self) -> str:
        parts = self.title()
        for i, f in enumerate(self.findings, 1):
            parts += ["", *_told(i, f)]
        if not self.findings:
            parts += ["", "nothing stands out"]
        rows = self.rows
        parts += ["", "dB: own float form, float model, outputs with this layer alone in integers; cut, zero: shares"]
        parts.append(_table(rows[:_SHOWN]))
        if len(rows) > _SHOWN:
            parts.append(f"and {len(rows) - _SHOWN} more (to_dict(), save_html(path))")
        if self.yaml:
            parts += ["", "in the configuration, in front of other sections:", "", self.yaml.rstrip()]
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        m = self.measurement
        return {
            "platform": m.settings.platform,
            "batches": m.batches,
            "sqnr": self.sqnr,
            "losses": None if m.losses is None else dict(zip(("integers", "float"), m.losses, strict=True)),
            "findings": [f.to_dict() for f in self.findings],
            "layers": [_plain(r) for r in m.rows.values()],
            "outputs": list(m.outputs),
            "yaml": self.yaml,
        }

    def _repr_html_(self) -> str:
        from .page import fragment

        return fragment(self)

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file that needs nothing else: findings, the network from input to output, histograms."""
        from .page import page

        with replaced(path) as file:
            file.write(page(self).encode())


def diagnose(
    model: nn.Module, batches: Any, reference: nn.Module | None = None, *, loss: Loss | None = None
) -> Diagnosis:
    """Find what hurts a quantized model where, and what helps.

    Every batch runs through a copy of the model in integers and in float; then each layer alone runs in integers on the first
    batch, which says what it costs at the outputs, and for layers that stand out changes of their settings are tried.
    The model, its statistics, mode, hooks and the random states stay as they are.

    Args:
        model: Result of ``linger.init``, calibrated or trained.
        batches: A tensor, a dict of keyword arguments, or an iterable of these or of tuples and lists (a DataLoader), whose
            first entries go to ``forward``, as many as it takes. A few batches are enough.
        reference: The float model that this one was made from, or its trained state: then the weight limit and everything
            else that ``linger.init`` changes counts, too. None: the model itself with quantization off.
        loss: ``loss(output, batch)``, for the ratio of the first batch's losses.

    Returns:
        A report: ``.findings`` worst first, ``.yaml`` with the settings that help, ``.rows`` with the numbers of every layer,
        ``.to_dict()``, ``.save_html(path)``; prints, and shows itself in a notebook.

    Raises:
        TypeError: An argument of another kind.
        ValueError: The model is not initialised, cannot be copied or does not run on a batch; no batch was given.

    Example:
        >>> import torch, linger
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with torch.no_grad():
        ...     _ = net[2].weight.mul_(3000)
        >>> model, x = linger.init(net), torch.randn(64, 4)
        >>> with linger.calibration():
        ...     _ = model(x)
        >>> report = linger.diagnose(model, x)
        >>> print(report.findings[0].layer, report.findings[0].kind)
        2 saturation

    Source: ours.
    """
    with bench(model, batches, reference, loss, "diagnose") as b:
        b.attribute()
        found = findings_of(b)
        return Diagnosis(tuple(found), b.found, yaml_of(merged(found), b.found.settings))


# ---- print


def db(value: float | None) -> str:
    """A ratio in dB, to one place."""
    return "-" if value is None else "exact" if value == math.inf else f"{value:.1f}"


def _told(i: int, f: Finding) -> list[str]:
    """A finding in lines of at most 100 columns."""
    alone = "" if f.sqnr is None else f" (alone: {db(f.sqnr)} dB)"
    lines = [f"{i}. {f.layer or 'the model'}: {f.kind}{alone}", f.text]
    helps = helps_of(f)
    lines += [f"helps: {helps}"] if helps else []
    return [w for n, line in enumerate(lines) for w in _wrapped(line, "   " if n else "")]


def helps_of(f: Finding) -> str:
    """What helps, in words."""
    gain = "" if f.cure.after is None else f" ({db(f.cure.before)} -> {db(f.cure.after)} dB)"
    settings = f"{in_words(f.cure.sections)}{gain}" if f.cure.sections else ""
    if any(FLOAT in keys for keys in f.cure.sections.values()):
        settings += ", in float then, which no chip runs and linger.check names"
    return "; or ".join(filter(None, (settings, f.remedy)))


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent or "   ", break_on_hyphens=False
    )  # fmt: skip


def shortened(name: str, width: int) -> str:
    """A name of at most ``width`` characters: its middle goes."""
    if len(name) <= width:
        return name
    head = (width - 2) // 3
    return f"{name[:head]}..{name[len(name) - (width - 2 - head) :]}"


def span(row: Row) -> str:
    """The range of a layer's float values."""
    return f"{row.values.low:.3g}..{row.values.high:.3g}" if row.values.count else "-"


def share(part: int, row: Row) -> str:
    """A share of a layer's values."""
    if not row.values.count:
        return "-"
    percent = 100.0 * part / row.values.count
    return "0" if part == 0 else f"{percent:.1f}%" if percent >= 0.05 else "<0.1%"


def _table(rows: list[Row]) -> str:
    """The numbers of some layers; names are shortened to what the other columns leave."""
    cells = [_cells(row) for row in rows]
    others = sum(max(len(c[i]) for c in (_HEAD, *cells)) + 2 for i in range(1, len(_HEAD)))
    return format_table(_HEAD, [(shortened(c[0], max(WIDTH - others, 8)), *c[1:]) for c in cells])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name.replace("_linger_qtensor_", "") or "(root)",
        shortened(row.kind, 15),
        str(row.bits),
        db(row.own.sqnr),
        db(row.model.sqnr),
        db(row.alone.sqnr),
        span(row),
        f"{row.step:.3g}",
        share(row.values.saturated, row),
        share(row.values.zero_codes, row),
    )


def _plain(row: Row) -> dict[str, Any]:
    v, worst = row.values, row.own.worst_channel
    return {
        "name": row.name,
        "kind": row.kind,
        "inputs": list(row.inputs),
        "bits": row.bits,
        "scale": row.scale,
        "sqnr_own": row.own.sqnr,
        "sqnr_model": row.model.sqnr,
        "sqnr_alone": row.alone.sqnr,
        "worst_channel": None if worst is None else {"channel": worst[0], "sqnr": worst[1]},
        "low": v.low if v.count else None,
        "high": v.high if v.count else None,
        "reach": row.reach,
        "saturated": v.saturated / v.count if v.count else None,
        "zero": v.zero_codes / v.count if v.count else None,
        "zero_in_float": v.zeros / v.count if v.count else None,
        "not_finite": v.not_finite,
        "operands": [
            {"source": o.source, "bits_lost": o.bits_lost, "sqnr": o.energy.sqnr} for o in row.operands
        ],
        "weights": [
            {"name": w.name, "bits": w.bits, "scale": w.scale, "low": w.low, "high": w.high, "sqnr": w.energy.sqnr,
             "saturated": w.saturated, "limit": w.cut.limit if w.cut.key else None, "cut": w.cut.share}
            for w in row.weights
        ],
        "histogram": {"low": v.histogram.low, "high": v.histogram.high, "counts": list(v.histogram.counts)},
    }  # fmt: skip
