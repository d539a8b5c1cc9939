"""Rules that see several nodes at once: memory that nodes share, constants that they share, layouts that the packer moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .facts import NodeFacts
from .scratch import scratch_need, scratch_request
from .violation import Violation

_AGAIN = "export the model again"
PREFETCHED = frozenset(
    "Conv2dInt Conv1dInt ConvTranspose2dInt LinearInt BatchNorm2dInt LayerNormInt LSTMInt GRUInt".split()
)
"""Operators whose parameters the packer brings into the shared memory."""


@dataclass(frozen=True)
class GraphNode:
    """One node and its wires.

    Args:
        facts: As the rules of single nodes see it.
        inputs, outputs: Names of its tensors.
        constants: Those of its inputs that are initializers.
    """

    facts: NodeFacts
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)


def check_graph(platform: str, engine: str | None, nodes: Sequence[GraphNode]) -> list[Violation]:
    """What is wrong with nodes that are right on their own."""
    return [*_scratch(nodes), *_shared(nodes), *_zero_sizes(nodes), *_transposed_maps(nodes), *_rows(nodes)]


def _scratch(nodes: Sequence[GraphNode]) -> Iterator[Violation]:
    room = max((scratch_request(n.facts) for n in nodes), default=0)
    for n in nodes:
        need = scratch_need(n.facts)
        if need > room:
            limit = f"the packer reserves {room} bytes for the whole file: what lies behind them is overwritten"
            remedy = f"{_AGAIN}: a pooling of one element that reserves more is put in front; sizes must be known"
            yield n.facts.error("scratch memory", f"{need} bytes", limit, remedy, refused=False)


def _shared(nodes: Sequence[GraphNode]) -> Iterator[Violation]:
    known: set[str] = set()
    for n in nodes:
        if n.facts.op_type not in PREFETCHED or not n.facts.revision.lacks("shared parameters"):
            continue
        names = {name for name in n.inputs if name in n.constants}
        if known & names:
            limit = "parameters of its own: the prefetch loses one of two biases"
            yield n.facts.error("parameters", "shared with another node", limit, _AGAIN, refused=False)
        known |= names


def _zero_sizes(nodes: Sequence[GraphNode]) -> Iterator[Violation]:
    for n in nodes:
        if n.facts.op_type != "Reshape" or not n.facts.revision.lacks("zero sizes") or len(n.inputs) < 2:
            continue
        sizes = n.constants.get(n.inputs[1])
        given = [] if sizes is None else [int(s) for s in sizes.reshape(-1)]
        if 0 in given[1:]:
            limit = "a 0 for the batch only: the packer merges Reshapes, and it copies another axis"
            yield n.facts.error("sizes of a Reshape", given, limit, _AGAIN, refused=False)


def _transposed_maps(nodes: Sequence[GraphNode]) -> Iterator[Violation]:
    moved: set[str] = set()
    for n in nodes:
        facts = n.facts
        if not facts.revision.lacks("transposed map"):
            return
        exchanged = facts.op_type == "Transpose" and facts.integers("perm") == (0, 1, 3, 2)
        if exchanged or moved.intersection(n.inputs):
            moved.update(n.outputs)
        if (
            facts.op_type == "Conv2dInt"
            and moved.intersection(n.inputs[:1])
            and set(facts.integers("kernel_shape")) != {1}
        ):
            limit = "no exchange of height and width in front, which the packer applies to the kernel"
            yield facts.error("transposed map", "", limit, _AGAIN, refused=False)


def _rows(nodes: Sequence[GraphNode]) -> Iterator[Violation]:
    """An LSTM that writes a row per feature: only a Slice of its steps may read them."""
    for n in nodes:
        shape = n.facts.shape(0, 3)
        if not n.facts.revision.lacks("lstm rows") or n.facts.op_type != "LSTMInt" or shape is None:
            continue
        steps, features = shape[1:]
        readers = [m for m in nodes if n.outputs[0] in m.inputs]
        if features > steps and not all(_keeps(m, steps) for m in readers):
            limit = f"a Slice of {steps} rows behind it: the engine writes as many rows as there are features"
            yield n.facts.error("features beyond the steps", f"{features} > {steps}", limit, _AGAIN, refused=False)


def _keeps(n: GraphNode, steps: int) -> bool:
    """Whether a node takes the first ``steps`` elements of axis 1."""
    if n.facts.op_type != "Slice" or len(n.inputs) < 4 or not set(n.inputs[1:4]) <= set(n.constants):
        return False
    start, end, axis = (int(n.constants[name].reshape(-1)[0]) for name in n.inputs[1:4])
    return (start, end, axis) == (0, steps, 1)


__all__ = ["PREFETCHED", "GraphNode", "check_graph"]
