"""What packing a file will take: memory of every layer, its work, and what the packer does with it."""

from __future__ import annotations

import html
import os
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from linger.chip import NodeFacts, limits_of, parameter_bytes
from linger.convert.findings import follow, walk
from linger.convert.report import format_table, html_table

from .engine.pack import packing
from .graph_facts import graph_facts
from .loader import load

__all__ = ["PackReport", "PackRow", "pack_report"]

_HEAD = ("layer", "operator", "activations", "parameters", "multiply-accumulates")


@dataclass(frozen=True)
class PackRow:
    """One node.

    Attributes:
        layer: Name of the node.
        operator: As the packer knows it.
        activations: Bytes of its inputs and results; None where sizes are open.
        parameters: Bytes of its weights, biases and tables.
        work: Multiply-accumulates of one sample; None where sizes are open.
    """

    layer: str
    operator: str
    activations: int | None
    parameters: int
    work: int | None


@dataclass(frozen=True)
class PackReport:
    """What packing a file will take; prints as a table.

    Attributes:
        platform: Chip.
        engine: Release of the engine that the file is for.
        shared_bytes, psram_bytes: What the chip has: for activations and the parameters of the running layer, and for all
            parameters.
        rows: One per node that computes on codes.
        options: Of the packer, beside its defaults.
        notes: What the packer will do, and why it needs the options.
        errors: What the engine does not compute as the runner does, or what does not fit.
    """

    platform: str
    engine: str
    shared_bytes: int
    psram_bytes: int
    rows: tuple[PackRow, ...] = ()
    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """Bytes of all parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def largest(self) -> PackRow | None:
        """The node with the most parameters."""
        return max(self.rows, key=lambda row: row.parameters, default=None)

    @property
    def activations(self) -> int:
        """Bytes of the node whose inputs and results take the most."""
        return max((row.activations or 0 for row in self.rows), default=0)

    @property
    def work(self) -> int:
        """Multiply-accumulates of one sample."""
        return sum(row.work or 0 for row in self.rows)

    def _sums(self) -> list[str]:
        sums = [
            f"activations of one layer: at most {self.activations} of {self.shared_bytes} bytes of shared memory",
            f"parameters: {self.parameters} of {self.psram_bytes} bytes of PSRAM",
            f"multiply-accumulates: {self.work}",
            f"options: {' '.join(self.options) or 'none'}",
        ]
        if self.largest is not None and self.largest.parameters:
            sums.insert(2, f"largest parameters: {self.largest.layer}, {self.largest.parameters} bytes")
        return sums

    def _cells(self) -> list[tuple[str, ...]]:
        def shown(size: int | None) -> str:
            return "open" if size is None else str(size)

        return [(r.layer, r.operator, shown(r.activations), str(r.parameters), shown(r.work)) for r in self.rows]

    def _lines(self) -> list[str]:
        return [*self._sums(), *self.notes, *(f"error: {line}" for line in self.errors)]

    def __str__(self) -> str:
        title = f"linger.onnx.pack_report, {self.platform}, engine {self.engine}"
        return "\n".join([title, format_table(_HEAD, self._cells()), *self._lines()])

    def _repr_html_(self) -> str:
        return html_table(_HEAD, self._cells()) + "".join(f"<p>{html.escape(line)}</p>" for line in self._lines())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self) | {"parameters": self.parameters, "activations": self.activations, "work": self.work}


def pack_report(source: str | os.PathLike[str] | bytes) -> PackReport:
    """What packing an exported file will take: memory against the chip's, work, and the packer's options.

    Args:
        source: Path of the file, or its bytes.

    Returns:
        A report that prints as a table: ``.rows``, ``.parameters``, ``.activations``, ``.work``, ``.options``, ``.to_dict()``.

    Raises:
        ModelError: The file cannot be read.
        OSError: The path cannot be read.

    Source: docs/numerics.md, "Engines".
    """
    graph = load(source)
    facts = graph_facts(graph)
    found = follow(*facts, engine=graph.engine)
    open_axes = {s: at for port in graph.inputs for at, s in enumerate(port.symbols) if s}
    ranges = {s: (1, 1, 1) for s, at in open_axes.items() if at == 0}
    packed = packing(graph.platform, graph.engine, found, ranges)
    counted: set[str] = set()
    rows, borders, fused = [], 0, 0
    makers: dict[str, str] = {}
    for (_, name, _, inputs, outputs), node in walk(*facts, engine=graph.engine):
        makers |= dict.fromkeys(outputs, node.op_type)
        borders += node.op_type in ("Quant", "Dequant")
        fused += node.op_type == "Relu" and makers.get(inputs[0]) in ("Conv2dInt", "ConvTranspose2dInt")
        if node.op_type in ("Quant", "Dequant"):
            continue
        own = {i: size for i, size in parameter_bytes(node).items() if inputs[i] not in counted}
        counted.update(inputs[i] for i in own)
        rows.append(PackRow(name, node.op_type, _activations(node), sum(own.values()), _work(node)))
    chip = limits_of(graph.platform)
    notes = [f"{borders} Quant and Dequant nodes at the borders are removed: inputs and outputs are integers"] * bool(
        borders
    )
    notes += [f"{fused} ReLUs run within the convolution in front of them"] * bool(fused)
    prefetched = "--dma_prefetch False" not in packed.options
    where = (
        "are fetched into the shared memory while the layer in front runs" if prefetched else "are read where they lie"
    )
    notes.append(f"parameters lie in PSRAM and {where}")
    return PackReport(
        graph.platform,
        packed.engine,
        chip.shared_bytes,
        chip.psram_bytes,
        tuple(rows),
        packed.options,
        (*notes, *packed.notes),
        packed.errors,
    )


def _activations(node: NodeFacts) -> int | None:
    total = 0
    for x in (*node.inputs, *node.outputs):
        if x is None or x.constant:
            continue
        if x.size is None:
            return None
        total += x.size * max(x.bits or 8, 8) // 8
    return total


def _work(node: NodeFacts) -> int | None:
    """Multiply-accumulates; operators without a product have none."""
    x, w = node.shape(0), node.shape(1)
    y = node.outputs[0].shape if node.outputs else None
    match node.op_type:
        case "Conv2dInt" | "Conv1dInt" if y is not None and w is not None:
            return prod(y) * prod(w[1:])
        case "ConvTranspose2dInt" if x is not None and w is not None:
            return prod(x) * prod(w[1:])
        case "LinearInt" | "BmmInt" if y is not None and x is not None:
            return prod(y) * x[-1]
        case "LSTMInt" | "GRUInt" if x is not None:
            hidden, gates = int(node.get("hidden_size", 0)), 4 if node.op_type == "LSTMInt" else 3
            return prod(x[:2]) * gates * hidden * (x[2] + hidden)
        case "Conv2dInt" | "Conv1dInt" | "ConvTranspose2dInt" | "LinearInt" | "BmmInt" | "LSTMInt" | "GRUInt":
            return None
    return 0
