"""Operators that compute in float, as findings: no chip runs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from linger.chip import Violation, nearest
from linger.runtime import Node, Tape

from .serialise import GraphPort

_OTHERS = "an operator of docs/operators.md, or the end of the network in the application"
_LAYERS = {
    "linear": "nn.Linear", "conv1d": "nn.Conv1d", "conv2d": "nn.Conv2d", "conv_transpose1d": "nn.ConvTranspose1d",
    "conv_transpose2d": "nn.ConvTranspose2d", "batch_norm": "nn.BatchNorm1d or nn.BatchNorm2d", "embedding": "nn.Embedding",
    "lstm": "nn.LSTM", "gru": "nn.GRU",
}  # fmt: skip
"""Functions of layers: quantized as layers, with the state of theirs."""


_MOVES = frozenset("Dequant Identity Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Gather Cast".split())


class Step(Protocol):
    """A node of the tape or of a file."""

    @property
    def op_type(self) -> str:
        """Operator."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names."""


_S = TypeVar("_S", bound=Step)


def float_nodes(nodes: Iterable[_S], floats: Iterable[str]) -> list[_S]:
    """The nodes that compute in float; ``floats`` are the float inputs of the graph. Those that move are none beside others."""
    known = set(floats)
    found: list[_S] = []
    moves: list[_S] = []
    for node in nodes:
        if node.op_type == "Dequant" or node.op_type != "Quant" and known.intersection(node.inputs):
            known.update(node.outputs)
            if node.op_type not in _MOVES:
                call = node.call if isinstance(node, Node) else None
                (moves if call is not None and call.moves else found).append(node)
    return found or moves


def float_inputs(ports: Iterable[GraphPort], tape: Tape) -> set[str]:
    """Names of the inputs that are neither indices nor wide codes."""
    return {p.name for p in ports if p.tensor.is_floating_point() and p.name not in tape.port_types}


def float_operator(node: Node, platform: str) -> Violation:
    """A node that computes in float, as the call of user code that it belongs to; calls of several nodes give equal ones."""
    call = node.call
    if call is None:
        return island(node.where, node.op_type)
    if call.operator in _LAYERS:
        layer = f"{_LAYERS[call.operator]} as a layer that linger.init converts"
        return island(node.where, call.operator, "it is called as a function, or its layer was left in float", layer)
    if not call.handled:
        return island(node.where, call.operator)
    if call.codes:
        remedy = nearest(call.operator, "a form of docs/operators.md")
        return island(node.where, call.operator, f"{platform} does not compute this form", remedy)
    in_front = "integers in front of it: a quantized layer, an operator of docs/operators.md"
    return island(node.where, call.operator, "its operand is float", in_front)


def island(where: str, operator: str, why: str = "no chip computes it", remedy: str = "") -> Violation:
    """A node that computes in float, and why."""
    remedy = remedy or nearest(operator, _OTHERS)
    limit = f"{why}: it runs in float between a Dequant and a Quant"
    return Violation(where, "float operator", operator, limit, remedy, "error", False, operator)


__all__ = ["float_inputs", "float_nodes", "float_operator", "island"]
