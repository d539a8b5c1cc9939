"""The last look at a file before it is written: what the packer would refuse is refused here, by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from linger.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PASS = set("MaxPool Relu Reshape Flatten Transpose Slice Squeeze Unsqueeze Split Identity ShuffleChannel".split())


def _attribute(node: NodeProto, name: str) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _scales(node: NodeProto) -> Iterable[tuple[str, float]]:
    for a in node.attribute:
        if a.name.startswith("scale_"):
            yield a.name, float(a.f)


def _operand_scale(node: NodeProto, i: int) -> Any:
    if node.op_type == "iqCat":
        return _attribute(node, f"scale_x_{i}")
    if node.op_type == "Dequant":
        return _attribute(node, "scale_o")
    return _attribute(node, ("scale_x", "scale_y")[i]) if i < 2 else None


def validate(model: ModelProto) -> None:
    """Check names, types and scales, edge by edge.

    Raises:
        ExportError: Nothing in the graph is constant, a tensor that nobody writes, a quantized tensor that enters a float
            operator (or the reverse), a scale that is no power of two or not its producer's; names the node and the tensor.
    """
    from onnx import checker

    graph = model.graph
    if not graph.initializer:
        raise ExportError("export: the graph has no parameter and no constant; the packer refuses such a model")
    constants = {i.name: i.data_type for i in graph.initializer}
    scale: dict[str, float | None] = dict.fromkeys(constants)
    floats = {i.name for i in graph.input if i.type.tensor_type.elem_type in (1, 11)}
    wide = {i.name for i in graph.input if i.type.tensor_type.elem_type in (5, 6)}  # cell states, in pieces
    scale.update((i.name, None) for i in graph.input)
    for node in graph.node:
        where = f"node {node.name} ({node.op_type})"
        for name, value in _scales(node):
            if not (value > 0 and math.isfinite(value) and math.frexp(value)[0] == 0.5):
                raise ExportError(f"export: {where}: {name} must be a power of two, got {value}")
        for name in filter(None, node.input):
            if name not in scale:
                raise ExportError(f"export: {where} reads '{name}', which no node writes")
        chip = node.domain == "linger" and node.op_type not in {"Quant", "Dequant", *PASS}
        for i, name in enumerate(node.input):
            known = scale.get(name)
            wanted = _operand_scale(node, i) if node.domain == "linger" and node.op_type != "Quant" else None
            if known is not None and wanted is not None and wanted != known:
                raise ExportError(f"export: {where}: '{name}' was made with scale {known}, the node reads {wanted}")
            if chip and name in floats:
                raise ExportError(f"export: {where}: float tensor '{name}' enters a quantized operator without a Quant")
        quantized = [n for n in node.input if scale.get(n) is not None]
        if node.op_type == "Quant":
            if node.input[0] in wide:
                raise ExportError(
                    f"export: {where} reads '{node.input[0]}' as a float tensor, and an LSTM reads it as its cell state, which "
                    "enters in the chip's wide integers: give hidden and cell state as two tensors"
                )
            produced: float | None = _attribute(node, "scale_x")
        elif node.op_type == "Dequant":
            produced = None
        elif chip:
            produced = _attribute(node, "scale_o")
        elif quantized and node.op_type == "ArgMax":
            produced = None  # int32 maxima and places
        elif quantized and node.op_type in PASS:
            produced = scale[quantized[0]]
        elif quantized:
            raise ExportError(
                f"export: {where}: quantized tensor '{quantized[0]}' enters a float operator without a Dequant"
            )
        else:
            produced = None
        moved = node.op_type in PASS and bool(node.input) and node.input[0] in constants
        for i, name in enumerate(node.output):
            if name in scale:
                raise ExportError(f"export: {where} writes '{name}' a second time")
            if moved:  # the codes of a constant in another shape
                constants[name], scale[name] = constants[node.input[0]], None
                continue
            cell = node.op_type == "LSTMInt" and i == 2  # integers in the chip's own format
            scale[name] = None if cell else produced
            if node.op_type == "Cast" and _attribute(node, "to") != 1 or node.op_type in PASS and node.input[0] in wide:
                wide.add(name)
            elif produced is None:
                floats.add(name)
    for output in graph.output:
        if output.name not in scale:
            raise ExportError(f"export: output '{output.name}' is written by no node")
        if scale[output.name] is not None:
            raise ExportError(f"export: output '{output.name}' is quantized and has no Dequant")
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ExportError(f"export: the ONNX checker refuses the file: {error}") from error
