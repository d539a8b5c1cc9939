"""ONNX bytes -> a checked graph. Nothing in the file is trusted: kinds, sizes, names and order are checked here."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from linger.chip import ENGINES, LIMITS, file_platform
from linger.errors import ModelError
from linger.files import reading

MAX_FILE_BYTES = 1 << 31  # protobuf's own limit
MAX_NODES = 100_000
MAX_ELEMENTS = 1 << 28  # of one tensor: far above any chip's memory, far below what would hurt a host
MAX_RANK = 8

AttributeValue = int | float | str | Tensor | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]

# elem_type of TensorProto -> dtype in which the runner keeps it
_DTYPES = {
    1: torch.float32, 10: torch.float32, 11: torch.float32,
    3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    2: torch.uint8, 9: torch.bool,
}  # fmt: skip
# type of AttributeProto -> the one field that may be set
_KINDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
_CONSTANT_KINDS = ("value", "value_int", "value_ints", "value_float", "value_floats")


@dataclass(frozen=True, slots=True)
class NodeDef:
    """One node of the file."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class ValueDef:
    """A graph input or output: dims are sizes or, where the file leaves them open, None; shape None = not declared."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...] | None
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked file: nodes in an order in which every input is defined before it is used."""

    nodes: tuple[NodeDef, ...]
    inputs: tuple[ValueDef, ...]
    outputs: tuple[ValueDef, ...]
    constants: dict[str, Tensor]
    platform: str
    opset: int
    engine: str | None = None  # that the file says it is for


def import_onnx() -> Any:
    """The onnx package, or one sentence that says how to get it."""
    try:
        import onnx
        import onnx.numpy_helper
    except ModuleNotFoundError as exc:
        raise ImportError("reading and writing ONNX files needs the onnx package: pip install onnx") from exc
    return onnx


def load(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Graph:
    """Read and check a model.

    Args:
        source: Path of the file, or its bytes.

    Raises:
        ModelError: The file is refused; the text names the node and the reason.
        OSError: The path cannot be read.
        TypeError: ``source`` is neither a path nor bytes.
        ImportError: The onnx package is missing.
    """
    onnx = import_onnx()
    data = _bytes(source)
    try:
        return _graph(onnx, _parse(onnx, data))
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError) as exc:
        if isinstance(exc, ModelError):
            raise
        raise ModelError(f"the file cannot be read: {exc}") from exc  # protobuf and numpy say it in many ways


def _bytes(source: object) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"OnnxRunner: expected a path or the bytes of a file, got {type(source).__name__}")
    with reading(source, "linger.onnx.export(model, example_input, path)") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise ModelError(f"{os.fspath(source)!r} is not a regular file")
        if info.st_size > MAX_FILE_BYTES:
            raise ModelError(f"the file has {info.st_size} bytes, more than {MAX_FILE_BYTES}")
        return file.read()


def _parse(onnx: Any, data: bytes) -> Any:
    if not data:
        raise ModelError("the file is empty")
    if data.startswith(b"PK\x03\x04"):
        raise ModelError("a checkpoint of torch.save, not an ONNX model: export the model first (linger.onnx.export)")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as exc:  # protobuf's DecodeError, whichever of its implementations is installed
        raise ModelError("the file is truncated or not an ONNX model") from exc
    if not model.HasField("graph"):
        raise ModelError("the file holds no graph: it is truncated or not an ONNX model")
    return model


def _graph(onnx: Any, model: Any) -> Graph:
    graph = model.graph
    if model.functions or model.training_info:
        raise ModelError("model-local functions and training graphs are not accepted")
    if graph.sparse_initializer:
        raise ModelError("sparse initializers are not accepted")
    if len(graph.node) > MAX_NODES:
        raise ModelError(f"the graph has {len(graph.node)} nodes, more than {MAX_NODES}")
    constants: dict[str, Tensor] = {}
    for proto in graph.initializer:
        if not proto.name or proto.name in constants:
            raise ModelError(f"initializer {proto.name!r}: the name is empty or used twice")
        constants[proto.name] = _tensor(onnx, proto, f"initializer {proto.name!r}")
    inputs = tuple(_value(proto, "input") for proto in graph.input if proto.name not in constants)
    outputs = tuple(_value(proto, "output") for proto in graph.output)
    nodes = []
    for proto in graph.node:
        node = _node(onnx, proto)
        if node.op_type == "Constant":
            constants[node.outputs[0]] = _constant(node)
        nodes.append(node)
    _check_names(nodes, inputs, outputs, constants)
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    kept = tuple(node for node in nodes if node.op_type != "Constant")
    said = next((entry.value for entry in model.metadata_props if entry.key == "linger.engine"), None)
    engine = said if said in ENGINES else None
    return Graph(kept, inputs, outputs, constants, _platform(nodes), opsets[0] if opsets else 12, engine)


def _check_names(
    nodes: list[NodeDef], inputs: tuple[ValueDef, ...], outputs: tuple[ValueDef, ...], constants: dict[str, Tensor]
) -> None:
    folded = {name for node in nodes if node.op_type == "Constant" for name in node.outputs}
    defined = set(constants) - folded
    for value in inputs:
        if value.name in defined:
            raise ModelError(f"input {value.name!r}: the name is used twice")
        defined.add(value.name)
    for node in nodes:
        for name in node.inputs:
            if name and name not in defined:
                made = any(name in other.outputs for other in nodes)
                why = "is made by this or a later node: a cycle, or nodes out of order" if made else "is not defined"
                _refuse(node, f"input {name!r} {why}")
        for name in node.outputs:
            if name in defined:
                _refuse(node, f"output {name!r} is defined already")
            if name:
                defined.add(name)
    if not outputs:
        raise ModelError("the graph has no output")
    for value in outputs:
        if value.name not in defined:
            raise ModelError(f"graph output {value.name!r} is not defined by any node")
    if len({value.name for value in outputs}) != len(outputs):
        raise ModelError("two graph outputs have the same name")


def _refuse(node: NodeDef, reason: str) -> NoReturn:
    raise ModelError(f"{node.op_type} {node.name!r}: {reason}")


def _node(onnx: Any, proto: Any) -> NodeDef:
    outputs, inputs = tuple(proto.output), tuple(proto.input)
    name = proto.name or f"{proto.op_type}_{next(iter(outputs), '')}"
    node = NodeDef(proto.op_type, name, inputs, outputs, {})
    if not node.op_type:
        _refuse(node, "the node has no operator type")
    if not outputs or not outputs[0]:
        _refuse(node, "the node has no output")
    for attribute in proto.attribute:
        if not attribute.name or attribute.name in node.attributes:
            _refuse(node, f"attribute {attribute.name!r}: the name is empty or used twice")
        node.attributes[attribute.name] = _attribute(onnx, node, attribute)
    return node


def _attribute(onnx: Any, node: NodeDef, proto: Any) -> AttributeValue:
    where = f"attribute {proto.name!r}"
    kind = _KINDS.get(proto.type)
    if kind is None or proto.ref_attr_name:
        _refuse(node, f"{where}: subgraphs, references and sparse tensors are not accepted (kind {proto.type})")
    extra = {field.name for field, _ in proto.ListFields()} - {"name", "doc_string", "type", kind}
    if extra:
        _refuse(node, f"{where} carries more than one kind of value: {', '.join(sorted(extra))}")
    if kind == "i":
        return int(proto.i)
    if kind == "f":
        return float(proto.f)
    if kind == "s":
        return _text(node, where, proto.s)
    if kind == "t":
        return _tensor(onnx, proto.t, f"{node.op_type} {node.name!r}: {where}")
    if kind == "ints":
        return tuple(int(v) for v in proto.ints)
    if kind == "floats":
        return tuple(float(v) for v in proto.floats)
    return tuple(_text(node, where, v) for v in proto.strings)


def _text(node: NodeDef, where: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        _refuse(node, f"{where} is not UTF-8 text")


def _dtype(elem_type: int, where: str) -> torch.dtype:
    dtype = _DTYPES.get(elem_type)
    if dtype is None:
        raise ModelError(f"{where}: element type {elem_type} is not accepted")
    return dtype


def _tensor(onnx: Any, proto: Any, where: str) -> Tensor:
    dtype = _dtype(proto.data_type, where)
    if proto.data_location == onnx.TensorProto.EXTERNAL or proto.external_data:
        raise ModelError(f"{where}: external data is not accepted")
    if proto.HasField("segment"):
        raise ModelError(f"{where}: segmented data is not accepted")
    shape = tuple(proto.dims)
    if len(shape) > MAX_RANK or any(not 0 <= d <= MAX_ELEMENTS for d in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"{where}: shape {shape} is not accepted")
    try:
        array = onnx.numpy_helper.to_array(proto)
    except (ValueError, TypeError) as exc:
        raise ModelError(f"{where}: the data does not fill shape {shape}") from exc
    if array.shape != shape:
        raise ModelError(f"{where}: the data has shape {array.shape}, {shape} declared")
    return torch.from_numpy(np.array(array)).to(dtype)


def _constant(node: NodeDef) -> Tensor:
    given = [kind for kind in _CONSTANT_KINDS if kind in node.attributes]
    if node.inputs or len(given) != 1 or len(node.outputs) != 1:
        _refuse(node, f"needs exactly one of {', '.join(_CONSTANT_KINDS)}, no input and one output")
    value = node.attributes[given[0]]
    if isinstance(value, Tensor):
        return value
    if isinstance(value, str) or (isinstance(value, tuple) and any(isinstance(v, str) for v in value)):
        _refuse(node, f"attribute {given[0]!r} must hold numbers")
    dtype = torch.float32 if "float" in given[0] else torch.int64
    return torch.tensor(value, dtype=dtype)


def _value(proto: Any, role: str) -> ValueDef:
    where = f"graph {role} {proto.name!r}"
    if not proto.name:
        raise ModelError(f"{where}: the name is empty")
    if not proto.type.HasField("tensor_type"):
        raise ModelError(f"{where}: only tensors are accepted")
    tensor = proto.type.tensor_type
    dtype = _dtype(tensor.elem_type, where)
    if not tensor.HasField("shape"):
        return ValueDef(proto.name, dtype, None)
    dims: list[int | None] = []
    for dim in tensor.shape.dim:
        known = dim.HasField("dim_value")
        if known and not 0 <= dim.dim_value <= MAX_ELEMENTS:
            raise ModelError(f"{where}: size {dim.dim_value} is not accepted")
        dims.append(int(dim.dim_value) if known else None)
    if len(dims) > MAX_RANK or math.prod(d or 1 for d in dims) > MAX_ELEMENTS:
        raise ModelError(f"{where}: shape {tuple(dims)} is not accepted")
    return ValueDef(proto.name, dtype, tuple(dims), tuple(dim.dim_param for dim in tensor.shape.dim))


def _platform(nodes: list[NodeDef]) -> str:
    found = "venus"
    first: NodeDef | None = None
    for node in nodes:
        written = node.attributes.get("platform")
        if written is None:
            continue
        if not isinstance(written, str) or written not in LIMITS:
            _refuse(node, f"attribute 'platform' must be one of {', '.join(LIMITS)}, got {written!r}")
        if first is not None and file_platform(written) != found:
            _refuse(node, f"attribute 'platform' is {written!r}, but {first.op_type} {first.name!r} says {found!r}")
        found, first = file_platform(written), first or node
    return found
