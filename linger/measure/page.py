"""A diagnosis as one HTML page that needs nothing else, and as the same in a notebook."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from .advice import in_words
from .charts import Rails, axis_of, every, histogram, rails_of, tone
from .style import SHEET

if TYPE_CHECKING:
    from .diagnosis import Diagnosis
    from .findings import Finding
    from .rows import Row

__all__ = ["fragment", "page"]

_OPERATOR = "_linger_qtensor_"
_FULL = 60.0  # dB of a whole bar
_LEGEND = (
    ("own", "the layer's integers against its own float form on the same operands: what its rounding and saturation cost."),
    ("model", "its integers against the float model's values at this place: with everything that went wrong in front of it."),
    ("alone", "the network's outputs with this layer alone in integers: what it costs where it counts, on the first batch."),
    ("histogram", "the layer's float values (heights are square roots), the grid of the codes, and in red what lies beyond."),
)  # fmt: skip


def page(diagnosis: Diagnosis) -> str:
    """The whole file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>linger.diagnose</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>html { background: #f5f6f8 } body { margin: 0 } @media (prefers-color-scheme: dark) { html { background: "
        f"#10151b }} }}</style></head><body>{fragment(diagnosis)}</body></html>\n"
    )


def fragment(diagnosis: Diagnosis) -> str:
    """The page's content with its sheet, for a notebook."""
    parts = [_head(diagnosis), "<h2>What stands out</h2>"]
    parts += [_finding(i, f) for i, f in enumerate(diagnosis.findings, 1)]
    if not diagnosis.findings:
        parts.append('<p class="soft">Nothing.</p>')
    if diagnosis.yaml:
        parts += ["<h2>Settings that help</h2>", f'<pre class="card">{html.escape(diagnosis.yaml)}</pre>']
        parts.append(
            '<p class="soft" style="margin-top:6px">They stand in front of other sections of the configuration.</p>'
        )
    parts += ["<h2>The network, from input to output</h2>", _network(diagnosis), _legend()]
    return f'<div class="lgr"><style>{SHEET}</style><div>{"".join(parts)}</div></div>'


def _head(diagnosis: Diagnosis) -> str:
    m, sqnr = diagnosis.measurement, diagnosis.sqnr
    whom = "the reference" if m.referred else "the same model in float"
    said = f"{m.settings.platform} &middot; {m.batches} batch{'es' if m.batches != 1 else ''} &middot; against {whom}"
    losses = ""
    if m.losses is not None:
        ratio = f" (ratio {m.losses[0] / m.losses[1]:.3g})" if m.losses[1] else ""
        losses = f'<p class="soft">loss of the first batch: {m.losses[0]:.4g} in integers, {m.losses[1]:.4g} in float{ratio}</p>'
    return (
        f'<div class="head"><div><h1>linger.diagnose</h1><p class="soft">{said}</p>{losses}</div>'
        f'<div class="total {tone(sqnr)}"><b>{_db(sqnr)}</b><span class="soft">dB of the outputs are kept</span></div></div>'
    )


def _db(value: float | None) -> str:
    return "&ndash;" if value is None else "exact" if value == math.inf else f"{value:.1f}"


def _named(name: str) -> str:
    return html.escape(name.replace(_OPERATOR, "") or "(root)")


def _finding(i: int, f: Finding) -> str:
    cost = "" if f.sqnr is None else f'<p class="cost soft">alone {_db(f.sqnr)} dB</p>'
    gain = (
        "" if f.cure.after is None else f'<span class="gain">{_db(f.cure.before)} &rarr; {_db(f.cure.after)} dB</span>'
    )
    helps = f"<code>{html.escape(in_words(f.cure.sections))}</code>{gain}" if f.cure.sections else ""
    helps += f"<span>{'or ' if helps else ''}{html.escape(f.remedy)}</span>" if f.remedy else ""
    colour = "bad" if not f.layer or tone(f.sqnr) == "bad" else "none" if f.sqnr is None else "fair"
    return (
        f'<div class="card finding {colour}"><div class="rank">{i}</div><div class="title">'
        f'<b title="{html.escape(f.layer)}">{_named(f.layer) if f.layer else "the model"}</b>'
        f'<span class="chip">{html.escape(f.kind)}</span></div>{cost}<p>{html.escape(f.text)}</p>'
        + (f'<div class="helps"><span class="soft">helps</span>{helps}</div>' if helps else "")
        + "</div>"
    )


def _network(diagnosis: Diagnosis) -> str:
    m = diagnosis.measurement
    rows = list(m.rows.values())
    nodes = [("input", ()), *((r.name, r.inputs) for r in rows), ("output", m.outputs)]
    rails, width = rails_of(nodes)
    labels = "".join(f"<div>{t}</div>" for t in ("layer", "SQNR in dB", "range", "shares", "values and codes"))
    parts = [f'<div class="line labels">{labels}</div>', _end("input", rails[0])]
    parts += [_row(r, rail) for r, rail in zip(rows, rails[1:-1], strict=True)]
    parts.append(_end("output", rails[-1]))
    return f'<div class="card net" style="--lanes:{width}px">{"".join(parts)}</div>'


def _end(name: str, rails: Rails) -> str:
    return f'<div class="row"><div class="line end">{rails.svg("none")}<div class="who soft">{name}</div></div></div>'


def _meters(row: Row) -> str:
    cells = ""
    for label, value in (("own", row.own.sqnr), ("model", row.model.sqnr), ("alone", row.alone.sqnr)):
        full = 0.0 if value is None else 100.0 * min(max(value, 0.0) / _FULL, 1.0)
        bar = f'<div class="meter {tone(value)}"><i style="width:{full:.0f}%"></i></div>'
        cells += f"<span>{label}</span>{bar}<b>{_db(value)}</b>"
    return f'<div class="meters">{cells}</div>'


def _pairs(*pairs: tuple[str, str, bool]) -> str:
    cells = "".join(f"<span>{k}</span><b{' class=hot' if hot else ''}>{html.escape(v)}</b>" for k, v, hot in pairs)
    return f'<div class="pair">{cells}</div>'


def _percent(part: int, row: Row) -> str:
    share = 100.0 * part / row.values.count if row.values.count else 0.0
    return "0" if not part else "<0.1%" if share < 0.05 else f"{share:.1f}%"


def _row(row: Row, rails: Rails) -> str:
    v = row.values
    about = f"{row.kind} &middot; {row.bits} bits"
    hot = bool(v.count) and v.saturated / v.count > 1e-3
    dead = bool(v.count) and v.zero_codes == v.count
    span = _pairs(("from", f"{v.low:.3g}" if v.count else "-", False), ("to", f"{v.high:.3g}" if v.count else "-", False),
                  ("step", f"{row.step:.3g}", False))  # fmt: skip
    shares = _pairs(("cut", _percent(v.saturated, row), hot), ("zero", _percent(v.zero_codes, row), dead))
    return (
        f'<details class="row"><summary class="line">{rails.svg(tone(row.alone.sqnr))}'
        f'<div class="who"><b title="{html.escape(row.name)}">{_named(row.name)}</b><small>{about}</small></div>'
        f'{_meters(row)}{span}{shares}<div class="drawn">{histogram(row)}</div></summary>'
        f'<div class="more">{rails.below()}{_more(row)}</div></details>'
    )


def _more(row: Row) -> str:
    worst = row.own.worst_channel
    facts = [("reads", ", ".join(_named(n) for n in row.inputs), False), ("scale", f"{row.scale:g}", False)]
    facts.append(("codes reach", f"{row.reach:.4g}", False))
    facts += [("worst channel", f"{worst[0]} ({worst[1]:.1f} dB)", worst[1] < 10)] if worst is not None else []
    facts += [(f"{_named(o.source)} loses", f"{o.bits_lost:g} bits", o.bits_lost >= 3) for o in row.operands]
    for w in row.weights:
        kept = "-" if w.energy.sqnr is None else f"{w.energy.sqnr:.1f} dB"
        facts.append((f"{html.escape(w.name)}, {w.bits} bits", kept, w.energy.sqnr is not None and w.energy.sqnr < 25))
        facts += [("beyond its limit", f"{w.cut.share:.2%}", w.cut.large)] if w.cut.share else []
    if row.place:
        facts.append(("called at", row.place.replace("\\", "/").rpartition("/")[2], False))
    drawn = histogram(row)
    if not drawn:
        return f'<div class="soft">every value is {row.values.low:g}</div>{_pairs(*facts)}'
    low, high = axis_of(row)
    shown = every(row, low, high)
    grid = "one line per code" if shown == 1 else f"one line for {shown} codes"
    axis = f'<div class="axis soft"><span>{low:.3g}</span><span>{grid}</span><span>{high:.3g}</span></div>'
    return f"<div>{drawn}{axis}</div>{_pairs(*facts)}"


def _legend() -> str:
    return '<div class="legend">' + "".join(f"<small><b>{k}</b>: {v}</small>" for k, v in _LEGEND) + "</div>"
