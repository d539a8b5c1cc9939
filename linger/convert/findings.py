"""A recorded forward seen by the rules of a chip: one place for ``init``, ``check`` and ``export``."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from linger.chip import (
    ALIASES,
    FLOAT,
    GraphNode,
    NodeFacts,
    TensorFacts,
    Violation,
    check_graph,
    check_node,
    check_total,
    outputs_of,
    parameter_bytes,
)
from linger.nn import QuantLayer, RecurrentInt
from linger.runtime import Node, Tape, info

__all__ = ["findings", "follow", "layer_findings", "of_text", "sentences", "tape_facts", "unsaid", "walk"]

_FORMATS = ("Quant", "Dequant")


def findings(
    tape: Tape,
    nodes: Sequence[Node],
    outputs: Iterable[str],
    layers: Container[str],
    platform: str,
    engine: str | None = None,
) -> list[Violation]:
    """What the layers noted on the tape, and what the rules say about each node that computes on codes.

    Args:
        tape: The recorded forward.
        nodes: Its nodes that an output needs, in order.
        outputs: Names of the graph's outputs.
        layers: Qualified names of the model's modules; a node of none of them is named by the place of the call.
        platform: Chip, as the user calls it (files know no mars).
        engine: Release of the engine; None: the shipped one.
    """
    found = [v if isinstance(v, Violation) else of_text(v) for v in tape.violations]
    names = [n.layer if n.layer and n.layer in layers else n.where for n in nodes]
    found += follow(*_entries(tape, nodes, names, platform, set(outputs)), engine=engine)
    return list(dict.fromkeys(found))


def tape_facts(
    tape: Tape, nodes: Sequence[Node], outputs: Iterable[str]
) -> tuple[dict[str, TensorFacts], dict[str, NodeFacts]]:
    """What is known about the tensors of a recording, by name, and its nodes that compute on codes, by first output."""
    graph = _entries(tape, nodes, [n.layer or n.where for n in nodes], tape.platform, set(outputs))
    facts: dict[str, TensorFacts] = {}
    seen = {entry[4][0]: node for entry, node in walk(*graph, engine=None, facts=facts)}
    return facts, seen


def _entries(
    tape: Tape, nodes: Sequence[Node], names: Sequence[str], platform: str, outputs: set[str]
) -> tuple[Any, ...]:
    """A recording as :func:`walk` takes it."""
    given = {name: _facts(t) for name, t in tape.tensors().items()}
    entries = [(n.op_type, name, n.attributes, n.inputs, n.outputs) for n, name in zip(nodes, names, strict=True)]
    chip_nodes = {n.outputs[0] for n in nodes if n.domain == "linger"}
    return entries, platform, given, tape.initializers, outputs, chip_nodes


def layer_findings(model: nn.Module, platform: str, engine: str | None = None) -> list[Violation]:
    """What the rules say about the layers of an initialised model before any input is seen."""
    found: list[Violation] = []
    for name, m in model.named_modules():
        if isinstance(m, RecurrentInt):
            sizes = {"input_size": m.input_size, "hidden_size": m.hidden_size}
            found += check_node(NodeFacts(m.op_type, platform, name, sizes, (TensorFacts(),) * 5, engine=engine))
        elif isinstance(m, QuantLayer) and (facts := m.node_facts(platform)) is not None:
            found += check_node(replace(facts, engine=engine))
    return found


def sentences(found: Iterable[Violation]) -> list[str]:
    """One sentence for every finding; layers that share one are listed together."""
    layers: dict[Violation, list[str]] = {}
    for v in found:
        layers.setdefault(replace(v, layer=""), []).append(v.layer or "(root)")
    return [str(replace(v, layer=", ".join(dict.fromkeys(names)))) for v, names in layers.items()]


def unsaid(model: nn.Module, found: Iterable[Violation]) -> list[Violation]:
    """The findings that this process has not told the user about this model, which from now on it has."""
    here = os.getpid()
    pid, said = model.__dict__.get("_linger_said", (here, frozenset()))
    known = said if pid == here else frozenset()
    new = [v for v in found if (v.layer, v.what, v.operator) not in known]
    model.__dict__["_linger_said"] = here, known | {(v.layer, v.what, v.operator) for v in new}
    return new


Entry = tuple[str, str, Mapping[str, Any], Sequence[str], Sequence[str]]


def walk(
    entries: Sequence[Entry],
    platform: str,
    given: Mapping[str, TensorFacts],
    initializers: Mapping[str, np.ndarray[Any, Any]],
    outputs: set[str],
    chip_nodes: set[str] | None = None,
    *,
    engine: str | None = None,
    facts: dict[str, TensorFacts] | None = None,
) -> Iterator[tuple[Entry, NodeFacts]]:
    """The nodes that compute on codes as the rules see them, with shapes and widths followed through the graph.

    Args:
        entries: Operator, layer, attributes, names of inputs and of outputs.
        platform: Chip.
        given: What is known about tensors beforehand (graph inputs, recorded tensors).
        initializers: Constants by name.
        outputs: Names of the graph's outputs.
        chip_nodes: First outputs of the nodes of the chips' own domain; None: told apart by operator and operands.
        engine: Release of the engine; None: the shipped one.
        facts: Filled with what becomes known about every tensor.
    """
    facts = {} if facts is None else facts
    facts |= {name: _constant(a) for name, a in initializers.items()} | dict(given)
    for entry in entries:
        op, layer, attributes, inputs, results = entry
        op = ALIASES.get(op, op)
        reads = tuple(facts.get(name, TensorFacts()) if name else None for name in inputs)
        first = reads[0] if reads else None
        quantized = chip_nodes is not None and results[0] in chip_nodes or op.startswith("iq") or op.endswith("Int")
        quantized |= op in (*_FORMATS, "Requant") or first is not None and first.bits not in (None, FLOAT)
        node = NodeFacts(op, platform, layer, attributes, reads, engine=engine)
        constants = {i: initializers[n].reshape(-1).tolist() for i, n in enumerate(inputs) if _small(initializers, n)}
        made = outputs_of(node, len(results), constants, quantized)
        for name, new in zip(results, made, strict=True):
            old = facts.get(name, TensorFacts())
            shape = new.shape if old.shape is None else old.shape
            bits = new.bits if old.bits is None else old.bits
            facts[name] = TensorFacts(shape, bits, False, op, name in outputs)
        if quantized:
            yield entry, replace(node, outputs=tuple(facts[name] for name in results))


def follow(*graph: Any, engine: str | None = None) -> list[Violation]:
    """Apply the rules node by node, and those of whole graphs; the arguments are those of :func:`walk`."""
    found: list[Violation] = []
    stored: dict[str, int] = {}  # bytes of parameters by name
    platform = str(graph[1])
    seen: list[GraphNode] = []
    for (_, _, _, inputs, outputs), node in walk(*graph, engine=engine):
        found += check_node(node)
        stored |= {inputs[i]: size for i, size in parameter_bytes(node).items()}
        constants = {name: graph[3][name] for name in inputs if name in graph[3]}
        seen.append(GraphNode(node, tuple(inputs), tuple(outputs), constants))
    return found + check_graph(platform, engine, seen) + check_total(platform, sum(stored.values()))


def of_text(text: str) -> Violation:
    """A note of a layer, ``"layer: what is wrong"``, as a finding."""
    layer, _, rest = text.partition(": ")
    what, _, limit = rest.partition(", ")
    return Violation(layer, what, "", limit.removeprefix("the chip takes ").removeprefix("the chips take "))


def _facts(t: Tensor) -> TensorFacts:
    fmt = info(t)
    if fmt is not None:
        return TensorFacts(tuple(t.shape), fmt.bits)
    return TensorFacts(tuple(t.shape), FLOAT if t.is_floating_point() else None)


def _constant(a: np.ndarray[Any, Any]) -> TensorFacts:
    bits = FLOAT if a.dtype.kind == "f" else a.dtype.itemsize * 8
    scalar = float(a.reshape(-1)[0]) if a.size == 1 else None
    return TensorFacts(tuple(a.shape), bits, True, scalar=scalar)


def _small(initializers: Mapping[str, np.ndarray[Any, Any]], name: str) -> bool:
    return name in initializers and initializers[name].dtype == np.int64 and initializers[name].size <= 64
