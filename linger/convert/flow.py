"""Who feeds whom: the steps of one forward as data, and the pairs of layers that follow from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch import nn

from linger.nn.constrained.fused import EmptyBatchNorm

__all__ = ["METADATA", "Adjacency", "Call", "Flow", "is_alias"]

METADATA = frozenset(
    {
        "size", "dim", "shape", "dtype", "device", "is_cuda", "is_cpu", "requires_grad", "ndim", "numel",
        "nelement", "__len__", "is_floating_point", "is_contiguous", "layout", "stride", "storage_offset",
        "is_complex", "is_leaf", "names", "element_size", "itemsize", "is_sparse", "is_quantized", "is_meta",
        "grad_fn", "ndimension", "get_device", "_version", "is_inference",
    }
)  # fmt: skip
"""Reads that do not use a tensor's values."""


def is_alias(m: nn.Module | None) -> bool:
    """Whether a module hands its input on untouched, in training too."""
    return isinstance(m, (nn.Identity, EmptyBatchNorm))


@dataclass
class Call:
    """One step: a leaf module, or an operator of user code. `dims` is the rank of the first result where it is known."""

    module: nn.Module | None
    relu: bool
    inputs: list[int]
    outputs: list[int]
    dims: int | None = None


@dataclass
class Flow:
    """The calls of one or several forwards. `leaving`: values that are read in ways the calls do not show."""

    calls: list[Call] = field(default_factory=list)
    leaving: set[int] = field(default_factory=set)
    tainted: set[int] = field(default_factory=set)  # ids of modules that unseen code may call as well

    def adjacency(self) -> Adjacency:
        """Pairs of leaf modules of which each feeds only the other, and leaf modules whose only consumer is a ReLU.

        A module that runs several times must have the same neighbour every time.
        """
        consumers: dict[int, list[Call]] = defaultdict(list)
        producer: dict[int, Call] = {}
        by_module: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            for value in set(call.inputs):
                consumers[value].append(call)
            for value in call.outputs:
                producer[value] = call
            if call.module is not None:
                by_module[id(call.module)].append(call)
        found = Adjacency()
        for key, calls in by_module.items():
            module = calls[0].module
            if module is None or key in self.tainted:
                continue
            nexts: list[Call] = []
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
    """

    pairs: list[tuple[nn.Module, nn.Module, int | None]] = field(default_factory=list)
    before_relu: set[int] = field(default_factory=set)
    where: dict[int, str] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)

    def agree(self, other: Adjacency) -> Adjacency:
        """What both say."""
        theirs = {(id(a), id(b)) for a, b, _ in other.pairs}
        pairs = [p for p in self.pairs if (id(p[0]), id(p[1])) in theirs]
        where = {**other.where, **self.where}
        return Adjacency(pairs, self.before_relu & other.before_relu, where, {**other.blind, **self.blind})
