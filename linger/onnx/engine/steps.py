"""Row F: LSTMs whose result has as many rows as the input has features, and whose weights are fetched in sixteens."""

from __future__ import annotations

from typing import Any

import numpy as np

from linger.runtime import Node, Value

from .graph import Graph, hint_of
from .upsampling import zeros_like

_GATES = 4


def rows_of_features(graph: Graph) -> None:
    """Features of zero up to as many as there are steps, hidden units of zero, and the valid part of the result behind it."""
    if not graph.engine.lacks("lstm rows") or graph.open_batch:
        return
    tape = graph.tape

    def rewrite(node: Node) -> bool:
        shape = graph.shape(node.inputs[0])
        if shape is None or len(shape) != 3 or shape[0] != 1:
            return False
        steps, features, hidden = shape[1], shape[2], int(node.attributes["hidden_size"])
        wide, units = max(steps, features), hidden
        used = [name in graph.outputs or bool(graph.readers(name)) for name in node.outputs]
        states = len(node.inputs) == 8 or len(used) > 2 and used[2]  # in 16 bits, which no operator makes longer
        while not states and (units * units % 4 or units * wide % 4):
            units += 1
        if (wide, units) == (features, hidden) and wide == steps:
            return False
        hint = hint_of(node)
        chain = graph.chain(node.inputs[0], hint)
        if wide > features:
            chain = chain.cat([zeros_like(chain, 2, wide - features)], 2)
        first = len(node.inputs) - 4
        columns = (wide, units, None, None)
        grown = (
            (name, _grown(tape.initializers[name], hidden, units, c))
            for name, c in zip(node.inputs[first:], columns, strict=True)
        )
        new = [Value(tape.constant(a, name)) for name, a in grown]
        attributes = node.attributes | {"input_size": wide, "hidden_size": units}
        between = [Value(name) for name in node.inputs[1:first]]
        made = [tape.value(f"{hint}.{part}") for part in ("rows", "h", "c")[: len(node.outputs)]]
        inputs = [chain.value, *between, *new]
        tape.node(node.op_type, inputs, made, attributes, domain=node.domain, hint=hint)
        sizes = [(1, wide, units), (1, 1, units), (1, 1, units)]
        for i, (value, size, name) in enumerate(zip(made, sizes, node.outputs, strict=False)):
            part = chain.behind(value, size, graph.scales.get(name))
            if used[i] and i == 0:
                part = part.slice(1, 0, steps)
            if used[i] and i < 2:
                part = part.slice(2, 0, hidden)
            graph.finish(part, name)
        return True

    graph.change(rewrite, "LSTMInt")


def _grown(a: np.ndarray[Any, Any], hidden: int, units: int, columns: int | None) -> np.ndarray[Any, Any]:
    """Parameters with zeros for more units of every gate, and for more columns."""
    gates = a.reshape(_GATES, hidden, *a.shape[1:])
    more = [(0, 0), (0, units - hidden), *([(0, columns - a.shape[1])] if columns is not None else [])]
    return np.ascontiguousarray(np.pad(gates, more).reshape(_GATES * units, *(() if columns is None else (columns,))))


__all__ = ["rows_of_features"]
