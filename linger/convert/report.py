"""What a conversion did: one row per layer, with the reason where something stayed in float."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from linger.nn.base import Converted
from linger.nn.functional import FunctionalLayer
from linger.nn.layers.embedding import EmbeddingInt
from linger.nn.recurrent.layer import RecurrentInt
from linger.quantizers import Quantizer, saturation
from linger.runtime import float_calls_of

__all__ = ["Report", "Row", "Summary", "format_table", "html_table", "report_of", "shortened", "summary"]

_CLAMPS = {"data": "activation", "weight": "weight", "bias": "bias"}
_COLUMNS = ("name", "from", "to", "note", "where")


def shortened(names: Iterable[str], most: int = 20) -> str:
    """Names for a message: all of a few, else the first ones and how many follow."""
    names = list(names)
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


@dataclass(frozen=True)
class Row:
    """One layer. `became` is empty where it stayed as it was; `note` then says why; `where` is ``file:line`` if known."""

    name: str
    was: str
    became: str
    note: str = ""
    where: str = ""

    def cells(self) -> tuple[str, ...]:
        """Text of the columns."""
        return (self.name or "(root)", self.was, self.became or "float", self.note, self.where)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


def format_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in (head, *rows)]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def html_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """The same as an HTML table."""

    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(line(r, 'td') for r in rows)}</tbody></table>"


@dataclass
class Report:
    """Outcome of one ``constrain`` or ``init``; prints as a table.

    Attributes:
        rows: Every layer that the call looked at.
        notes: Sentences about the whole model: pairs that could not be looked for, differences between the stages.
    """

    stage: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def stayed_float(self) -> list[Row]:
        """Layers that were not converted."""
        return [r for r in self.rows if not r.became]

    def __str__(self) -> str:
        table = format_table(_COLUMNS, [r.cells() for r in self.rows])
        return "\n".join([f"linger.{self.stage}", table, *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(n)}</p>" for n in self.notes)
        return html_table(_COLUMNS, [r.cells() for r in self.rows]) + notes

    def to_dict(self) -> dict[str, Any]:
        """Rows and notes as plain data."""
        return {"stage": self.stage, "rows": [r.to_dict() for r in self.rows], "notes": list(self.notes)}


def report_of(model: nn.Module) -> Report | None:
    """The report of the last ``constrain`` or ``init`` of a model, None for others."""
    record = model.__dict__.get("_linger_record")
    return None if record is None else record.report


@dataclass
class Summary:
    """State of a converted model: its layers with widths, what stayed float, all operators met so far that compute in float."""

    stage: str
    platform: str
    rows: list[tuple[str, ...]]
    islands: list[str]
    notes: list[str]

    head = ("name", "layer", "in/w/out bits", "scale", "range", "limits", "note")

    def __str__(self) -> str:
        parts = [f"linger {self.stage}, platform {self.platform}", format_table(self.head, self.rows), *self.notes]
        return "\n".join(parts + (["float operators:", *self.islands] if self.islands else []))

    def _repr_html_(self) -> str:
        extra = "".join(f"<p>{html.escape(t)}</p>" for t in (*self.notes, *self.islands))
        return html_table(self.head, self.rows) + extra

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        rows = [dict(zip(self.head, r, strict=True)) for r in self.rows]
        return {
            "stage": self.stage,
            "platform": self.platform,
            "layers": rows,
            "islands": self.islands,
            "notes": self.notes,
        }


def _limits(m: nn.Module) -> str:
    """The clamps of a layer in words; a static weight limit wins over the factor."""
    quant = getattr(m, "quant", None)
    factor = getattr(m, "normalize_factor", None if quant is None else quant.clamp.clamp_factor_value)
    own = {} if quant is None else {k: getattr(quant.clamp, f"clamp_{v}_value") for k, v in _CLAMPS.items()}
    out, weight, bias = (getattr(m, f"normalize_{k}", own.get(k)) for k in _CLAMPS)
    if isinstance(m, EmbeddingInt):
        out = None  # its rows are the table
    parts = [f"out {out:g}"] if out is not None else []
    if weight is not None:
        parts.append(f"weight {weight:g}")
    elif factor is not None:
        parts.append(f"weight {factor:g} x mean")
    return ", ".join(parts + ([f"bias {bias:g}"] if bias is not None else []))


def _range(m: nn.Module) -> tuple[str, str]:
    """Scale of a layer's result (codes per unit), and the range of its statistics; "-" where it has seen no data."""
    layer: Any = m
    q = getattr(m, "weight_quantizer" if isinstance(m, EmbeddingInt) else "output_quantizer", None)
    if isinstance(m, RecurrentInt):
        q = layer.output_quantizer_of(layer.num_layers - 1)
    if not isinstance(q, Quantizer) or q.scale.is_meta:
        return "", ""
    return (f"{float(q.scale):g}", f"±{q.reach:.3g}") if q.ready else ("-", "-")


def summary(model: nn.Module) -> Summary:
    """Layers, number formats, limits and what stays float of a converted model, as a table.

    Args:
        model: The root that ``constrain`` or ``init`` returned.

    Raises:
        TypeError: Something else was passed.
        ValueError: The model has not been converted.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"summary: model must be a torch.nn.Module, got {type(model).__name__}")
    record = model.__dict__.get("_linger_record")
    if record is None:
        raise ValueError("summary: the model was not converted: call linger.constrain or linger.init first")
    stayed = {r.name: r for r in record.report.stayed_float}
    rows: list[tuple[str, ...]] = []
    for name, m in model.named_modules():
        if "_orig_mod" in m._modules:  # torch.compile's wrapper answers for what it wraps
            continue
        q = getattr(m, "quant", None)
        limits = _limits(m)
        if q is not None and (hasattr(m, "output_quantizer") or isinstance(m, (Converted, FunctionalLayer))):
            reads, weights, writes = str(q.input_bits), str(q.weight_bits), str(q.output_bits)
            if isinstance(m, FunctionalLayer):
                weights, limits = "-", ""
            elif isinstance(m, EmbeddingInt):
                reads, writes = "-", weights
            note = q.method + (", ReLU fused" if getattr(m, "fused_relu", False) else "")
            note += f", platform {q.platform}" if q.platform != record.settings.platform else ""
            bits = f"{reads}/{weights}/{writes}"
            rows.append((name or "(root)", type(m).__name__, bits, *_range(m), limits, note))
        elif hasattr(m, "normalize_data"):
            rows.append((name or "(root)", type(m).__name__, "float", "", "", limits, ""))
        elif name in stayed:
            rows.append((name or "(root)", type(m).__name__, "float", "", "", "", stayed[name].note))
    islands = [str(i) for i in float_calls_of(model)]
    notes = list(record.report.notes)
    off = sorted(record.settings.float_operators) if record.stage == "init" else []
    if off:
        notes.insert(0, f"operators in float: {', '.join(off)} (`operators` of the configuration, or a setter)")
    still = [name or "(root)" for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.momentum == 0]
    if still:
        notes.append(f"running mean and variance stand still, their momentum is 0: {', '.join(still)}")
    for m in model.modules():
        if isinstance(m, Quantizer):
            notes += saturation(m).splitlines()
    return Summary(record.stage, record.settings.platform, rows, islands, notes)
