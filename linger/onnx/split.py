"""A file cut at its borders: what computes in float before the first Quant, or behind the last Dequant, in files of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from linger.chip import TensorFacts
from linger.convert.findings import tape_facts
from linger.runtime import Node, Tape

from .serialise import GraphPort


@dataclass(frozen=True)
class Part:
    """One of the files.

    Args:
        suffix: Behind the stem of the file's name; empty for the chip's own part.
        nodes: In order.
        inputs, outputs: Ports of its graph.
    """

    suffix: str
    nodes: list[Node]
    inputs: list[GraphPort]
    outputs: list[GraphPort]

    @property
    def content(self) -> tuple[list[Node], list[GraphPort], list[GraphPort]]:
        """Nodes, inputs, outputs."""
        return self.nodes, self.inputs, self.outputs

    def path(self, f: str | os.PathLike[str]) -> Path:
        """``model.onnx`` -> ``model.before.onnx``."""
        path = Path(os.fsdecode(f))
        return path.with_name(f"{path.name.removesuffix('.onnx')}{self.suffix}.onnx") if self.suffix else path


def split(
    tape: Tape, inputs: Sequence[GraphPort], outputs: Sequence[GraphPort], floats: Iterable[Node]
) -> tuple[Part | None, Part, Part | None]:
    """The float nodes at the borders of a graph, and the rest.

    Args:
        tape: Its nodes are those that an output needs.
        inputs, outputs: Ports of the whole graph.
        floats: The nodes that compute in float; where a border has none it stays as it is.

    Returns:
        What runs before the chip's part (None where nothing does), the chip's part, what runs behind it. Nodes in float
        between two quantized ones stay in the chip's part.
    """
    computing = {id(node) for node in floats}
    border = _border(tape.nodes)
    before, after = (_cut(border, side, computing) for side in ("before", "after"))
    taken = {id(n) for n in (*before, *after)}
    chip = [n for n in tape.nodes if id(n) not in taken]
    facts, _ = tape_facts(tape, tape.nodes, [p.name for p in outputs])
    tensors = tape.tensors()
    known = {p.name: p for p in (*inputs, *outputs)}

    def port(name: str) -> GraphPort:
        if name in known:
            return known[name]
        tensor = tensors.get(name)
        shape = facts.get(name, TensorFacts()).shape
        return GraphPort(name, torch.empty(shape or ()) if tensor is None else tensor)

    def part(suffix: str, nodes: list[Node]) -> Part:
        made = {name for n in nodes for name in n.outputs}
        elsewhere = {name for n in tape.nodes if not any(n is m for m in nodes) for name in n.inputs}
        read = dict.fromkeys(name for n in nodes for name in n.inputs if name)
        wanted = [name for name in read if name not in made and name not in tape.initializers]
        given = dict.fromkeys(n for n in (*(p.name for p in inputs), *wanted) if n in wanted)
        ends = dict.fromkeys(p.name for p in outputs if p.name in made)
        ends |= {name: None for n in nodes for name in n.outputs if name in elsewhere}
        return Part(suffix, nodes, [port(name) for name in given], [port(name) for name in ends])

    main = part("", chip) if taken else Part("", chip, list(inputs), list(outputs))
    return part(".before", before) if before else None, main, part(".after", after) if after else None


def _border(nodes: Sequence[Node]) -> list[tuple[Node, str]]:
    """Every node with its side: ``before`` all codes and needed by a Quant, ``after`` all codes, or empty."""
    chip: set[int] = set()
    codes: set[str] = set()
    behind: set[str] = set()  # tensors that depend on codes
    for n in nodes:
        if n.domain == "linger" or n.op_type in ("Quant", "Dequant") or codes.intersection(n.inputs):
            chip.add(id(n))
            behind.update(n.outputs)
            codes.update(n.outputs if n.op_type != "Dequant" else ())
        elif behind.intersection(n.inputs):
            behind.update(n.outputs)
    to_chip: set[str] = set()  # tensors that lead to a node on codes
    to_quant: set[str] = set()
    sides = []
    for n in reversed(nodes):
        on_chip, leads = id(n) in chip, bool(to_chip.intersection(n.outputs))
        entering = n.op_type == "Quant" or bool(to_quant.intersection(n.outputs))
        if on_chip or leads:
            to_chip.update(n.inputs)
        if entering:
            to_quant.update(n.inputs)
        if on_chip:
            sides.append("")
        elif entering and not behind.intersection(n.inputs):
            sides.append("before")
        else:
            sides.append("" if leads else "after")
    return list(zip(nodes, reversed(sides), strict=True))


def _cut(border: list[tuple[Node, str]], side: str, computing: set[int]) -> list[Node]:
    found = [n for n, where in border if where == side]
    return found if any(id(n) in computing for n in found) else []


__all__ = ["Part", "split"]
