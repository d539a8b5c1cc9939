"""From a tape to an ONNX model: dead nodes dropped, identities folded, types written. Opset 12 and IR 7 by default."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from linger._C import __version__
from linger.chip import FLOAT, TensorFacts
from linger.convert.findings import tape_facts
from linger.errors import ExportError
from linger.runtime import Node, Tape

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

_log = logging.getLogger("linger")


class GraphPort(NamedTuple):
    """An input or output of the graph and the tensor of the recorded forward that it is."""

    name: str
    tensor: Tensor


_PARAMETER = re.compile(r"(.*\.(?:weight|bias)\w*)_\d+")
_TYPES = {
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
}


def live_nodes(tape: Tape, outputs: Collection[str]) -> list[Node]:
    """Nodes that an output depends on, in order."""
    keep, wanted = [], set(outputs)
    for node in reversed(tape.nodes):
        if wanted.intersection(node.outputs):
            keep.append(node)
            wanted.update(node.inputs)
    return keep[::-1]


def _symbols(port: GraphPort, axes: Any) -> dict[int, str]:
    """Names of the open axes of a port, counted from the front."""
    given, rank = axes.get(port.name, {}), port.tensor.dim()
    if not isinstance(given, (dict, list, tuple)) or not all(isinstance(axis, int) for axis in given):
        raise TypeError(f"export: dynamic_axes: '{port.name}' needs {{axis: symbol}} or a list of axes, got {given!r}")
    found = {}
    for axis in given:
        symbol = given[axis] if isinstance(given, dict) else f"{port.name}_dynamic_{axis}"
        if not -rank <= axis < rank:
            raise ExportError(f"export: dynamic_axes: axis {axis} of '{port.name}', which has {rank} axes")
        if not isinstance(symbol, str) or not symbol:
            raise ExportError(f"export: dynamic_axes: axis {axis} of '{port.name}' needs a name, got {symbol!r}")
        found[axis % rank] = symbol
    return found


def open_axes_of(inputs: list[GraphPort], outputs: list[GraphPort], axes: Any) -> dict[str, dict[int, str]]:
    """Open axes by port. An output that is not named follows the inputs: axes of the same place and size are open, too."""
    if not isinstance(axes, dict):
        raise TypeError(f"export: dynamic_axes must be a dict by tensor name, got {axes!r}")
    ports = [p.name for p in (*inputs, *outputs)]
    for name in set(axes) - set(ports):
        known = ", ".join(map(repr, ports))
        _log.warning("linger.onnx.export: dynamic_axes: %r is no input or output; there are %s", name, known)
    found = {p.name: _symbols(p, axes) for p in (*inputs, *outputs)}
    follow_inputs(found, inputs, [out for out in outputs if out.name not in axes])
    return found


def follow_inputs(
    open_axes: dict[str, dict[int, str]], inputs: Sequence[GraphPort], others: Iterable[GraphPort]
) -> None:
    """Open the axes of ``others`` that have the place and size of an open axis of an input."""
    for other in others:
        mine = open_axes.setdefault(other.name, {})
        for port in inputs:
            for axis, symbol in open_axes[port.name].items():
                if axis < other.tensor.dim() and other.tensor.shape[axis] == port.tensor.shape[axis]:
                    mine.setdefault(axis, symbol)


def _port(port: GraphPort, symbols: dict[int, str], element: int | None = None) -> ValueInfoProto:
    from onnx import helper

    dims = [symbols.get(axis, int(size)) for axis, size in enumerate(port.tensor.shape)]
    kind = 1 if port.tensor.is_floating_point() else _TYPES.get(port.tensor.dtype)  # every float is float32 in a file
    if kind is None:
        raise ExportError(f"export: '{port.name}' has dtype {port.tensor.dtype}, which files do not carry")
    return helper.make_tensor_value_info(port.name, kind if element is None else element, dims)


def build_model(
    tape: Tape,
    nodes: Sequence[Node],
    inputs: list[GraphPort],
    outputs: list[GraphPort],
    opset: int,
    open_axes: dict[str, dict[int, str]],
    integer_inputs: Collection[str] = (),
    metadata: dict[str, str] | None = None,
) -> ModelProto:
    """Assemble the model.

    Args:
        tape: The recorded forward, outputs included.
        nodes: Those of its nodes that go into the file, see :func:`live_nodes`.
        inputs, outputs: Ports of the graph; unused inputs stay.
        opset: Version of the standard operators.
        open_axes: What :func:`open_axes_of` found.
        integer_inputs: Graph inputs that are declared int8, and whose Quant is left out.
        metadata: Text by key.

    Raises:
        ExportError: The onnx package is missing.
    """
    try:
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise ExportError("export: the onnx package is needed to write files: pip install onnx") from error
    elements = dict(tape.port_types)
    if integer_inputs:
        removed = {n.outputs[0]: n.inputs[0] for n in nodes if n.op_type == "Quant" and n.inputs[0] in integer_inputs}
        elements.update(dict.fromkeys(removed.values(), 3))
        kept = [n for n in nodes if n.outputs[0] not in removed]
        nodes = [replace(n, inputs=[removed.get(i, i) for i in n.inputs]) for n in kept]
    used = {i for n in nodes for i in n.inputs}
    protos = [
        helper.make_node(n.op_type, n.inputs, n.outputs, name=n.name, domain=n.domain, **n.attributes) for n in nodes
    ]
    symbols = open_axes
    shapes = {} if any(symbols.values()) else _shapes(tape, nodes, [p.name for p in outputs])
    ports = {p.name for p in (*inputs, *outputs)}
    graph = helper.make_graph(
        protos,
        "linger",
        [_port(p, symbols[p.name], elements.get(p.name)) for p in inputs],
        [_port(p, symbols[p.name], tape.port_types.get(p.name)) for p in outputs],
        [numpy_helper.from_array(a, n) for n, a in tape.initializers.items() if n in used],
        value_info=[helper.make_tensor_value_info(n, *shapes[n]) for n in shapes if n not in ports],
    )
    _shorten_names(graph)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("linger", 1)]
    producer = {"producer_name": "linger", "producer_version": __version__}
    model = helper.make_model(graph, opset_imports=opsets, ir_version=7, **producer)
    helper.set_model_props(model, metadata or {})
    return model


def _shapes(tape: Tape, nodes: Sequence[Node], outputs: Iterable[str]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type and shape of every tensor between the nodes, where they are known."""
    facts, _ = tape_facts(tape, nodes, outputs)
    real, found = tape.tensors(), {}
    for node, name in ((n, name) for n in nodes for name in n.outputs):
        fact = facts.get(name, TensorFacts())
        bits = fact.bits
        if bits == FLOAT and node.domain == "linger" and node.op_type != "Dequant":
            bits = node.attributes.get("o_bits", 8)  # codes that torch has as plain floats
        kind = None if bits is None else {FLOAT: 1, 8: 3, 16: 5, 32: 6}.get(bits)
        if kind is None and name in real:
            kind = _TYPES.get(real[name].dtype)
        if kind is not None and fact.shape is not None:
            found[name] = (kind, fact.shape)
    return found


def _shorten_names(graph: GraphProto) -> None:
    """``conv.weight_1`` is ``conv.weight`` where a rewrite has replaced the one that had this name."""
    made = {name for n in graph.node for name in n.output} | {p.name for p in graph.input}
    taken = made | {i.name for i in graph.initializer}
    short = {}
    for initializer in graph.initializer:
        numbered = _PARAMETER.fullmatch(initializer.name)
        if numbered and numbered[1] not in taken:
            short[initializer.name] = initializer.name = numbered[1]
            taken.add(numbered[1])
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = short.get(name, name)
