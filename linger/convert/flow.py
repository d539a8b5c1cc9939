"""Who feeds whom: the steps of one forward as data, and the pairs of layers that follow from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch import nn

from linger.nn.constrained.fused import EmptyBatchNorm
from linger.runtime import METADATA

__all__ = ["METADATA", "Adjacency", "Flow", "FlowStep", "is_alias"]


def is_alias(m: nn.Module | None) -> bool:
    """Whether a module hands its input on untouched, in training too."""
    return isinstance(m, (nn.Identity, EmptyBatchNorm))


@dataclass
class FlowStep:
    """One step: a leaf module, or an operator of user code. `dims` is the rank of the first result where it is known."""

    module: nn.Module | None
    relu: bool
    inputs: list[int]
    outputs: list[int]
    dims: int | None = None


@dataclass
class Flow:
    """The calls of one or several forwards. `leaving`: values that are read in ways the calls do not show."""

    calls: list[FlowStep] = field(default_factory=list)
    leaving: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)  # ids of modules whose code calls the layer's function on its parameters
    tainted: set[int] = field(default_factory=set)  # ids of modules that unseen code may call as well
    given: set[int] = field(default_factory=set)  # values that come from outside of what was read

    def adjacency(self) -> Adjacency:
        """Pairs of leaf modules of which each feeds only the other, and leaf modules whose only consumer is a ReLU.

        A module that runs several times must have the same neighbour every time.
        """
        consumers: dict[int, list[FlowStep]] = defaultdict(list)
        producer: dict[int, FlowStep] = {}
        by_module: dict[int, list[FlowStep]] = defaultdict(list)
        for call in self.calls:
            for value in set(call.inputs):
                consumers[value].append(call)
            for value in call.outputs:
                producer[value] = call
            if call.module is not None:
                by_module[id(call.module)].append(call)
        fed = {id(c.module) for c in self.calls if c.module is not None and self.given.intersection(c.inputs)}
        found = Adjacency(visited=set(by_module), own=self.own - self.tainted, unseen=fed | self.tainted)
        for key, calls in by_module.items():
            module = calls[0].module
            if module is None or key in self.tainted:
                continue
            nexts: list[FlowStep] = []
            for call in calls:
                users = [u for v in call.outputs for u in consumers[v]]
                if len(call.outputs) == 1 and len(users) == 1 and call.outputs[0] not in self.leaving:
                    nexts.append(users[0])
            if len(nexts) != len(calls):
                continue
            if all(n.relu for n in nexts):
                found.before_relu.add(key)
            after = nexts[0].module
            if after is None or any(n.module is not after or len(n.inputs) != 1 for n in nexts):
                continue
            back = by_module[id(after)]
            if len(back) == len(calls) and id(after) not in self.tainted:
                dims = {c.dims for c in calls if c.dims is not None}
                found.pairs.append((module, after, dims.pop() if len(dims) == 1 else None))
        return found


@dataclass
class Adjacency:
    """What is next to what.

    Args:
        pairs: (first, second, rank of the tensor between them or None): each is the other's only neighbour.
        before_relu: ids of the modules whose only consumer is a ReLU.
        where: id of a module -> ``file:line`` of its call.
        blind: owner's qualified name -> why its forward could not be read.
        visited: ids of the modules that ran.
        own: ids of the modules whose own code calls the function of the torch layer that they extend.
        doubts: A sentence for every pair that other ways through the model may break.
        unseen: ids of the modules whose operand may come from code that could not be read.
    """

    pairs: list[tuple[nn.Module, nn.Module, int | None]] = field(default_factory=list)
    before_relu: set[int] = field(default_factory=set)
    where: dict[int, str] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)
    visited: set[int] = field(default_factory=set)
    doubts: list[str] = field(default_factory=list)
    own: set[int] = field(default_factory=set)
    unseen: set[int] = field(default_factory=set)

    def agree(self, other: Adjacency) -> Adjacency:
        """What both say, and what one says of modules that do not run in the other."""
        pairs = self._unless(other) + [p for p in other._unless(self) if not self._has(p)]
        relus = {m for m in self.before_relu | other.before_relu if self._ahead_of_relu(m) and other._ahead_of_relu(m)}
        where, blind = {**other.where, **self.where}, {**other.blind, **self.blind}
        visited, own, unseen = self.visited | other.visited, self.own | other.own, self.unseen | other.unseen
        return Adjacency(pairs, relus, where, blind, visited, own=own, unseen=unseen)

    def _has(self, pair: tuple[nn.Module, nn.Module, int | None]) -> bool:
        return any(a is pair[0] and b is pair[1] for a, b, _ in self.pairs)

    def _unless(self, other: Adjacency) -> list[tuple[nn.Module, nn.Module, int | None]]:
        """The pairs that ``other`` does not contradict."""
        return [p for p in self.pairs if other._has(p) or other.visited.isdisjoint((id(p[0]), id(p[1])))]

    def _ahead_of_relu(self, key: int) -> bool:
        return key in self.before_relu or key not in self.visited
