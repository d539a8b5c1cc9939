"""Row G1: a pooling of one element that makes the packer reserve enough scratch memory for the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from linger.chip import Average, average_runs, limits_of, scratch_need, scratch_request
from linger.nn.functional import common_attributes
from linger.nn.nodes.file_tensor import FileTensor

from .graph import Graph

_MOST_RINGS = 4  # rows and columns of zeros around the tensor


class _Place(NamedTuple):
    """Where the pooling goes: bytes reserved, the tensor, its form (C, H, W), and rings of padding."""

    reserved: int
    tensor: str
    form: tuple[int, int, int]
    rings: int


def reserve_scratch(graph: Graph) -> None:
    """Put an AvgPool2dInt of kernel 1x1 where the largest request of the file is smaller than the largest need."""
    seen = list(graph.seen.values())
    need = max((scratch_need(n) for n in seen), default=0)
    if need <= max((scratch_request(n) for n in seen), default=0):
        return
    place = min(_places(graph, need), default=None)
    if place is not None:
        _insert(graph, place)


def _places(graph: Graph, need: int) -> Iterator[_Place]:
    each = graph.engine.requests["AvgPool2dInt"]
    for name in _tensors(graph):
        shape = graph.shape(name)
        if shape is None or shape[0] != 1:
            continue
        elements = 1
        for s in shape:
            elements *= s
        for rings in range(_MOST_RINGS + 1):
            for form in _forms(elements, rings):
                c, h, w = form
                reserved = each * c * (h + 2 * rings) * (w + 2 * rings)
                steps = range(max(rings, 1))
                fits = need <= reserved <= limits_of(graph.platform).shared_bytes
                if fits and all(_runs(graph, c, h + 2 * k, w + 2 * k, rings > 0) for k in steps):
                    yield _Place(reserved, name, form, rings)
                    break


def _forms(elements: int, rings: int) -> Iterator[tuple[int, int, int]]:
    """Maps with that many elements; without rings none of one pixel, which is a window over the whole map."""
    if rings or elements == 1:
        yield from ((elements // width, 1, width) for width in (1, 2, 4, 8, 16) if elements % width == 0)
        return
    for width in (8, 16, 64, 4, 2):
        if elements % width == 0:
            yield elements // width, 1, width
    for channels, width in ((8, 64), (8, 8)):
        if elements % (channels * width) == 0:
            yield channels, elements // (channels * width), width
    yield 1, 1, elements


def _runs(graph: Graph, c: int, h: int, w: int, padded: bool) -> bool:
    ring = int(padded)
    return average_runs(graph.engine, Average(graph.platform, c, h, w, (1, 1), (1, 1), (ring,) * 4))


def _tensors(graph: Graph) -> Iterator[str]:
    """Codes behind the Quants of the file, and around the nodes that need the memory."""
    known: set[str] = set()
    for node in graph.nodes:
        facts = graph.seen.get(node.outputs[0])
        sensitive = facts is not None and scratch_need(facts) > 0
        around = [node.outputs[0]] if node.op_type == "Quant" else node.inputs[:1] if sensitive else []
        for name in around:
            if name not in known and name not in graph.loose and graph.codes(name) and graph.maker(name) is not None:
                known.add(name)
                yield name


def _insert(graph: Graph, place: _Place) -> None:
    """Every reader of the tensor reads it behind the pooling."""
    tape, nodes = graph.tape, graph.nodes
    at = next(i for i, node in enumerate(nodes) if place.tensor in node.outputs)
    maker, behind = nodes[at], nodes[at + 1 :]
    tape.nodes = nodes[: at + 1]
    chain = graph.chain(place.tensor, f"{place.tensor}.scratch")
    made = _pooled(chain, place)
    for new in tape.nodes[at + 1 :]:
        new.where, new.layer = maker.where, maker.layer
    final = tape.nodes[-1].outputs[0]
    assert made.value is not chain.value
    for node in behind:
        node.inputs = [final if name == place.tensor else name for name in node.inputs]
    tape.nodes = [*tape.nodes, *behind]
    graph.refresh()


def _pooled(chain: FileTensor, place: _Place) -> FileTensor:
    shape, (c, h, w), rings = chain.shape, place.form, place.rings
    x = chain.reshape(1, c, h, w)
    attributes = common_attributes(chain.tape) | {
        "data_bits": 8,
        "o_bits": 8,
        "scale_x": chain.scale,
        "scale_o": chain.scale,
    }
    attributes |= {"kernel_shape": [1, 1], "strides": [1, 1], "ceil_mode": 0}
    for k in range(max(rings, 1)):
        ring = int(rings > 0)
        size = (1, c, h + 2 * (k + ring), w + 2 * (k + ring)) if ring else (1, c, h, w)
        x = x.node("AvgPool2dInt", size, attributes | {"pads": [ring] * 4}, chip=True)
    return x.slice(2, rings, rings + h).slice(3, rings, rings + w).reshape(*shape)


__all__ = ["reserve_scratch"]
