"""What stands out in a measurement, worst first, each with what helps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .bench import Bench
from .cures import FLOAT, Cure, cure_of
from .rows import Row
from .weights import FACTOR

__all__ = ["Finding", "findings_of", "merged"]

_LOW = 20.0  # dB of a layer alone from which it stands out
_SHARE = 0.1  # of the noise of all layers: what stands out next to the others
_QUIET = 30.0  # dB of a layer alone from which float, which no chip runs, is no cure for its weights
_HEARD = 45.0  # dB of a layer alone from which saturation and coarse weights do not matter
_GAP = 3.0  # bits that an operand may lose
_EXTREME = 16.0  # a channel's weights over those of the median channel


@dataclass(frozen=True)
class Finding:
    """One trouble and what helps.

    Attributes:
        layer: Qualified name of the layer or operator; empty: the whole model.
        kind: What it is, in two or three words.
        text: What was seen, one sentence.
        remedy: What helps, where it is no setting.
        cure: Settings that help.
        sqnr: What the network's outputs keep of the float model's with this trouble alone, in dB; None: not known.
        channels: Of a trouble of single channels.
    """

    layer: str
    kind: str
    text: str
    remedy: str = ""
    cure: Cure = field(default_factory=Cure)
    sqnr: float | None = None
    channels: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        sections = {name: dict(keys) for name, keys in self.cure.sections.items()}
        plain = {"layer": self.layer, "kind": self.kind, "text": self.text, "remedy": self.remedy, "sqnr": self.sqnr}
        return plain | {"settings": sections, "before": self.cure.before, "after": self.cure.after}


def findings_of(bench: Bench) -> list[Finding]:
    """Everything that stands out, worst first; what has no number stands behind what has."""
    found = [*_whole(bench)]
    noise = {r.name: r.alone.noise for r in bench.found.rows.values()}
    total = sum(n for n in noise.values() if math.isfinite(n))
    for row in bench.found.rows.values():
        share = noise[row.name] / total if total else 0.0
        mine = [f for look in _GRAVE for f in look(bench, row)]
        if not mine and (row.alone.sqnr is None or row.alone.sqnr < _HEARD):
            mine = next(filter(None, (list(look(bench, row)) for look in _MILD)), [])
        if not mine and not _dead(row) and row.own.sqnr is not None:
            low = row.own.sqnr < _LOW
            if low and (share > _SHARE or row.alone.sqnr is None) and (cure := cure_of(bench, row)):
                text = f"its integers keep {row.own.sqnr:.1f} dB of its float form"
                mine = [Finding(row.name, "coarse codes", text, cure=cure)]
        rank = row.alone.sqnr if row.alone.sqnr is not None else row.own.sqnr
        mine += _look_clamp(row)
        found += [f if f.sqnr is not None or f.kind in _UNRANKED else _ranked(f, rank) for f in mine]
    return sorted(found, key=_order)


_UNRANKED = ("dead in float", "float operator", "float layer", "training clamp")


def _ranked(finding: Finding, sqnr: float | None) -> Finding:
    return Finding(**{**finding.__dict__, "sqnr": sqnr})


def _order(f: Finding) -> tuple[int, float]:
    if not f.layer:
        return 0, 0.0
    return (2, 0.0) if f.sqnr is None else (1, f.sqnr)


# ---- the whole model


def _whole(bench: Bench) -> Iterator[Finding]:
    found = bench.found
    if found.unseen:
        names = sorted({_layer(name) for name in found.unseen})
        text = f"{len(found.unseen)} quantizer(s) have seen no data and take the range of each batch: {_few(names)}"
        yield Finding("", "no ranges", text, "with linger.calibration(model): model(batch)")
    for island in found.islands:
        text = f"{island.operator} computes in float behind integers ({_near(island.file)}:{island.line})"
        remedy = "an operator of docs/operators.md, or the end of the network in the application"
        yield Finding(island.owner or "(root)", "float operator", text, remedy)
    for name, was, note in found.left_float:
        if not note.startswith(("disable_", FLOAT, "not in ")):
            yield Finding(name or "(root)", "float layer", f"{was} was not converted: {note}")


def _near(file: str) -> str:
    """A path as it is written from here."""
    here = os.getcwd() + os.sep
    return file.removeprefix(here)


def _layer(name: str) -> str:
    parts = name.split(".")
    own = [i for i, part in enumerate(parts) if "quantizer" in part]
    return ".".join(parts[: own[0]]) if own else name


def _few(names: list[str], n: int = 4) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


# ---- one layer


def _dead(row: Row) -> bool:
    return row.values.count > 0 and row.values.zero_codes == row.values.count


def _look_dead(bench: Bench, row: Row) -> Iterator[Finding]:
    if not _dead(row):
        return
    if row.values.zeros == row.values.count:
        text = "every value is 0, in float too: what it feeds sees nothing of it"
        yield Finding(row.name, "dead in float", text, "take it out, or train it again from another start")
    else:
        text = f"every code is 0, though the float values reach {_size(row):.3g}: they are below half a step ({row.step:.3g})"
        yield Finding(row.name, "all codes zero", text, cure=cure_of(bench, row) or Cure())


def _size(row: Row) -> float:
    return max(abs(row.values.low), abs(row.values.high))


def _look_not_finite(bench: Bench, row: Row) -> Iterator[Finding]:
    if row.values.not_finite:
        text = f"{row.values.not_finite} of its float values are NaN or infinite"
        yield Finding(row.name, "NaN", text, "find the operator that makes them: torch.autograd.detect_anomaly()")


def _look_saturated(bench: Bench, row: Row) -> Iterator[Finding]:
    values = row.values
    share = values.saturated / values.count if values.count else 0.0
    if share < 1e-3 or row.own.sqnr is None or row.own.sqnr > 30.0:
        return
    end = f"{row.reach:g}, the most that {row.bits} bits hold" + (" at scale 1" if row.scale == 1 else "")
    text = f"{share:.1%} of its values saturate at {end}; they reach {_size(row):.4g}"
    cure = cure_of(bench, row)
    if cure is not None or row.scale == 1:
        yield Finding(
            row.name, "saturation", text, "smaller numbers (normalised targets)" * (row.scale == 1), cure or Cure()
        )


def _look_clamp(row: Row) -> Iterator[Finding]:
    """Said beside everything else: it is no matter of the codes, and costs in training alone."""
    cut = row.values.clamped / row.values.count if row.values.count else 0.0
    if cut > 0.01:
        text = f"training cuts {cut:.1%} of its values at clamp_activation_value; they reach {_size(row):.4g}"
        yield Finding(
            row.name, "training clamp", text, cure=Cure({row.name: {"clamp_info.clamp_activation_value": None}})
        )


def _look_gap(bench: Bench, row: Row) -> Iterator[Finding]:
    for operand in row.operands:
        if operand.bits_lost < _GAP or operand.energy.sqnr is None or operand.energy.sqnr > _LOW:
            continue
        text = (
            f"{operand.bits_lost:g} bits of '{operand.source}' are lost: its range is {2**operand.bits_lost:g} times smaller "
            f"than the result's; {operand.energy.sqnr:.1f} dB of it are left"
        )
        remedy = f"scale '{operand.source}' up by {2**operand.bits_lost:g} and the weights that read it down"
        yield Finding(row.name, "scale gap", text, remedy, cure_of(bench, row) or Cure())


def _look_limit(bench: Bench, row: Row) -> Iterator[Finding]:
    for w in row.weights:
        if not w.cut.large:
            continue
        text = (
            f"{w.cut.key} cuts {w.cut.share:.2%} of '{w.name}' and {w.cut.energy:.1%} of its energy: it reaches "
            f"{w.cut.peak:.3g}, the limit is {w.cut.limit:.3g}; start again from the float weights"
        )
        off: dict[str, Any] = {"clamp_info.clamp_factor_value": None}
        if w.cut.key.startswith("clamp_weight_value"):
            off["clamp_info.clamp_weight_value"] = None
        yield Finding(row.name, "weight limit", text, cure=Cure({row.name: off}))


def _look_weights(bench: Bench, row: Row) -> Iterator[Finding]:
    for w in row.weights:
        if w.energy.sqnr is None or w.energy.sqnr >= 25.0:
            continue
        what = "factor" if w.name == FACTOR else f"'{w.name}'"
        text = f"in {w.bits} bits its {what} keeps {w.energy.sqnr:.1f} dB"
        if w.saturated and w.scale:
            text += (
                f": {w.saturated:.1%} of it lies beyond the largest code ({((1 << (w.bits - 1)) - 1) / w.scale:.3g})"
            )
        cure = cure_of(bench, row)
        quiet = row.alone.sqnr is not None and row.alone.sqnr > _QUIET
        if cure is not None and not (quiet and any(FLOAT in keys for keys in cure.sections.values())):
            yield Finding(row.name, "coarse weights", text, cure=cure)


def _extreme(factors: list[float]) -> tuple[int, ...]:
    return tuple(i for i, f in enumerate(factors) if f > _EXTREME)


def _look_extreme(bench: Bench, row: Row) -> Iterator[Finding]:
    norm = bench.found.fusions.get(row.name, row.name if "BatchNorm" in row.kind else "")
    for w in row.weights:
        channels = _extreme(w.factors)
        if not channels or not norm or w.energy.sqnr is None:
            continue
        folded = "" if norm == row.name else ", which is folded into this layer,"
        each = ", ".join(f"{i} ({w.factors[i]:.0f}x)" for i in channels[:4]) + (" ..." if len(channels) > 4 else "")
        text = (
            f"BatchNorm '{norm}'{folded} multiplies channel(s) {each} far more than the median channel: a variance near "
            "0, or a large factor"
        )
        remedy = f"look at running_var and weight of '{norm}' there"
        yield Finding(row.name, "extreme BatchNorm", text, remedy, cure_of(bench, row) or Cure(), channels=channels)


# where a layer has one of the first, the others mostly follow from it
_GRAVE: tuple[Callable[[Bench, Row], Iterator[Finding]], ...] = (
    _look_dead,
    _look_not_finite,
    _look_limit,
    _look_gap,
    _look_extreme,
)
_MILD = (_look_saturated, _look_weights)


def merged(findings: list[Finding]) -> Mapping[str, dict[str, Any]]:
    """The settings of all findings: qualified name -> dotted key -> value. Float wins over widths."""
    sections: dict[str, dict[str, Any]] = {}
    for finding in findings:
        for name, keys in finding.cure.sections.items():
            mine = sections.setdefault(name, {})
            for key, value in keys.items():
                mine.setdefault(key, value)
    return {name: {FLOAT: False} if FLOAT in keys else keys for name, keys in sections.items()}
