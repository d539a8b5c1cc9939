"""What would help a layer: changes of its settings, tried on the copy with everything around it in float."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from linger.chip import OPERATORS
from linger.errors import UnsupportedError
from linger.quantizers import Quantizer, calibration

from .bench import Bench
from .rows import Row

__all__ = ["FLOAT", "Cure", "cure_of"]

FLOAT = "open_quant"  # the key that keeps layers and operators of a section in float
_WIDTH, _ACTIVATIONS, _WEIGHTS = (
    f"quant_info.{key}" for key in ("output_bits", "a_calibrate_name", "w_calibrate_name")
)
_OUTPUTS = (_WIDTH, FLOAT)  # those who read the results are concerned, too
_ENOUGH, _FAIR, _MARGIN, _WORTH = 35.0, 25.0, 3.0, 3.0  # dB


@dataclass(frozen=True)
class Cure:
    """Settings that help.

    Attributes:
        sections: Qualified name -> dotted key -> value.
        before, after: SQNR of the outputs in dB with the layers concerned alone in integers; None: not tried.
    """

    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None


def cure_of(bench: Bench, row: Row) -> Cure | None:
    """The mildest change that helps a layer, None where nothing does; the first batch decides."""
    tried: list[Cure] = []
    for sections in _candidates(bench, row):
        cure = _try(bench, row, sections)
        if cure is not None:
            tried.append(cure)
    gains = [c for c in tried if c.after is not None and c.before is not None and c.after >= c.before + _WORTH]
    whole = [c for c in gains if not any(FLOAT in keys for keys in c.sections.values())]
    floats = [c for c in gains if c not in whole]
    reached = max((c.after or 0.0 for c in floats), default=-math.inf)
    if whole and max(c.after or 0.0 for c in whole) >= min(_FAIR, reached - 2 * _MARGIN):
        floats = []  # no chip computes in float: only where nothing else comes near
    kept = floats or whole
    best = max((c.after or 0.0 for c in kept), default=0.0)
    return next((c for c in kept if (c.after or 0.0) >= min(best - _MARGIN, _ENOUGH)), None)


Sections = dict[str, dict[str, Any]]


def _candidates(bench: Bench, row: Row) -> Iterator[Sections]:
    """Changes, the cheapest for the chip first."""
    rows, name = bench.found.rows, row.name
    ranges: list[dict[str, Any]] = [{_ACTIVATIONS: "w_like"}]
    if row.weights:
        ranges = [{_WEIGHTS: "w_like"}, *ranges, {_WEIGHTS: "w_like", _ACTIVATIONS: "w_like"}]
    wide = [bits for bits in (16, 32) if bits > row.bits and bits in _widths(bench, row)]
    yield from ({name: keys} for keys in ranges)
    for bits in wide:
        yield {name: {_WIDTH: bits}}
        if row.weights:
            yield {name: {_WEIGHTS: "w_like", _WIDTH: bits}}
    before = [rows[n] for n in row.inputs if n in rows]
    if before and all(16 in _widths(bench, r) for r in before):
        producers: Sections = {r.name: {_WIDTH: 16} for r in before if r.bits < 16}
        if producers:
            yield producers
            for bits in wide:
                yield producers | {name: {_WIDTH: bits}}
    yield {name: {FLOAT: False}}
    behind = _readers(bench, [name])
    if behind and row.operands:  # whoever reads the joined tensor would quantize it with one scale again
        yield {n: {FLOAT: False} for n in (name, *behind)}


def _widths(bench: Bench, row: Row) -> tuple[int, ...]:
    """Widths of results that the chip has for a layer or operator."""
    m: Any = bench.twin.get_submodule(row.name)
    key = getattr(m, "row", "") or next((c.__name__ for c in type(m).__mro__ if c.__name__ in OPERATORS), "")
    if not key or not isinstance(getattr(m, "output_quantizer", None), Quantizer):
        return ()
    return OPERATORS[key][m.quant.platform].bits


def _readers(bench: Bench, names: list[str]) -> list[str]:
    """Layers and operators that read the results of these."""
    return [r.name for r in bench.found.rows.values() if r.name not in names and any(n in names for n in r.inputs)]


def _try(bench: Bench, row: Row, sections: Sections) -> Cure | None:
    """What a change brings; None where the chip's layers refuse it."""
    changed = [row.name, *(n for n in sections if n != row.name)]
    handed_on = any(key in _OUTPUTS for keys in sections.values() for key in keys)
    around = [*changed, *(_readers(bench, changed) if handed_on else ())]
    floats = [n for n, keys in sections.items() if FLOAT in keys]
    try:
        with _changed(bench, sections):
            errors = bench.errors_with(floats)
    except UnsupportedError:
        return None
    before, after = bench.alone(around).sqnr, bench.alone(around, errors).sqnr
    return None if before is None or after is None else Cure(sections, before, after)


@contextmanager
@torch.no_grad()
def _changed(bench: Bench, sections: Sections) -> Iterator[None]:
    """The copy as if it had been initialised and calibrated with these settings; what is in float is the caller's."""
    with ExitStack() as stack:
        for name, keys in sections.items():
            m: Any = bench.twin.get_submodule(name)
            for q in (q for q in m.modules() if isinstance(q, Quantizer)):
                stack.callback(_restore, q, q.bits, q.state())
            if _WIDTH in keys:
                q = m.output_quantizer
                q.bits = keys[_WIDTH]
                q.set_range(torch.tensor(q.reach))
            methods = keys.get(_ACTIVATIONS), keys.get(_WEIGHTS)
            if any(methods):
                _calibrate(bench, m, methods)
        yield


def _restore(q: Quantizer, bits: int, state: Any) -> None:
    q.bits = bits
    q.restore(state)


def _calibrate(bench: Bench, m: nn.Module, methods: tuple[str | None, str | None]) -> None:
    """One kind of ranges of a layer anew; the others stay."""
    anew = {"activation": methods[0] is not None, "weight": methods[1] is not None}
    kept = [(q, q.state()) for q in m.modules() if isinstance(q, Quantizer) and not anew.get(q.role, False)]
    with calibration(m, *methods):
        bench.outputs()
    for q, state in kept:
        q.restore(state)
