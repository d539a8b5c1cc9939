"""A recorded file on its way through the rewrites: its nodes, and what is known about its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from linger.chip import Engine, NodeFacts, TensorFacts, engine_of
from linger.convert.findings import tape_facts
from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import Node, Tape, Value

_FOLLOW = frozenset(
    "MaxPool Relu Reshape Flatten Transpose Slice Squeeze Unsqueeze Split ShuffleChannel Identity".split()
)


class Graph:
    """The nodes of a tape that an output needs, and the shapes and scales between them.

    Args:
        tape: Its nodes are replaced by :meth:`change`.
        outputs: Names of the graph's outputs.
        engine: Release of the engine.
        open_batch: The first axis of the inputs is open: Reshapes must follow it.
    """

    def __init__(self, tape: Tape, outputs: Iterable[str], engine: str | None, open_batch: bool = False) -> None:
        self.tape, self.outputs, self.open_batch = tape, set(outputs), open_batch
        self.engine: Engine = engine_of(engine, tape.platform)
        self._whole: list[Node] | None = None  # all nodes while some of them are replaced
        self.facts: dict[str, TensorFacts] = {}
        self.seen: dict[str, NodeFacts] = {}  # first output -> the node as the rules see it
        self.scales: dict[str, float] = {}
        self.loose: set[str] = set()  # tensors with fewer rows for shorter sequences
        self.refresh()

    @property
    def nodes(self) -> list[Node]:
        """In order."""
        return self.tape.nodes

    @property
    def platform(self) -> str:
        """As files spell it."""
        return self.tape.platform

    def refresh(self) -> None:
        """Look at the nodes again: a rewrite has changed them."""
        self.facts, self.seen = tape_facts(self.tape, self.nodes, self.outputs)
        self.scales = {}
        for node in self.nodes:
            scale = node.attributes.get("scale_x" if node.op_type == "Quant" else "scale_o")
            if node.op_type in _FOLLOW or scale is None:
                scale = self.scales.get(node.inputs[0]) if node.inputs else None
            if scale is not None and node.op_type != "Dequant":
                self.scales.update((name, float(scale)) for name in node.outputs)
        self.loose = set()
        for node in self.nodes:
            length = node.inputs[1] if node.op_type in ("LSTMInt", "GRUInt") and len(node.inputs) > 5 else ""
            if self.loose.intersection(node.inputs) or length and length not in self.tape.initializers:
                self.loose.update(node.outputs)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Sizes of a tensor, where they are known."""
        return self.facts.get(name, TensorFacts()).shape

    def codes(self, name: str) -> bool:
        """Whether a tensor holds int8 codes of a known scale."""
        return self.facts.get(name, TensorFacts()).bits == 8 and name in self.scales

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a tensor."""
        return [node for node in self._whole or self.nodes if name in node.inputs]

    def maker(self, name: str) -> Node | None:
        """The node that writes a tensor."""
        return next((node for node in self._whole or self.nodes if name in node.outputs), None)

    def chain(self, name: str, hint: str) -> FileTensor:
        """New nodes behind a tensor."""
        shape = self.shape(name)
        assert shape is not None
        return FileTensor(self.tape, Value(name), shape, self.scales.get(name), hint)

    def change(self, rewrite: Callable[[Node], bool], *op_types: str) -> None:
        """Go through the nodes of these operators; where ``rewrite`` returns True it has appended others in their place."""
        old, changed = self.tape.nodes, False
        self._whole, self.tape.nodes = old, []
        for node in old:
            start = len(self.tape.nodes)
            if node.op_type not in op_types or not rewrite(node):
                self.tape.nodes.append(node)
                continue
            changed = True
            for new in self.tape.nodes[start:]:
                new.where, new.layer, new.call = node.where, node.layer, node.call
        self._whole = None
        if changed:
            self.refresh()

    def finish(self, chain: FileTensor, name: str) -> None:
        """The tensor of ``chain``, which the last rewrite has made, is the one that was called ``name``."""
        assert isinstance(chain.value, Value)
        made = chain.value.name
        for node in self.tape.nodes:
            node.outputs = [name if o == made else o for o in node.outputs]
            node.inputs = [name if i == made else i for i in node.inputs]


def hint_of(node: Node) -> str:
    """Base of the names of the nodes that replace this one."""
    return node.layer or node.name.removesuffix(f".{node.op_type}")


def sizes(values: Sequence[int]) -> tuple[int, ...]:
    """Plain integers."""
    return tuple(int(v) for v in values)


__all__ = ["Graph", "hint_of", "sizes"]
