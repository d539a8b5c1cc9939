"""What a writer sees of one node of our file, and the table of writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from linger.errors import UnsupportedError
from linger.onnx.loader import Graph, NodeDef
from linger.onnx.values import ReadNode

from .graph import F32, F64, Array, Kind, StandardGraph

_BITS = {torch.int8: 8, torch.int16: 16, torch.int32: 32}


@dataclass(frozen=True)
class Known:
    """What the trial run has found out about a tensor: sizes, None where they are open, and type."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Value:
    """A tensor of the standard graph.

    Attributes:
        name: Of the value.
        bits: Codes of 8 or 16 bits, which are integers in float32, or of 32 in float64; 0: an ordinary tensor.
        positive: Codes behind a ReLU.
    """

    name: str
    bits: int = 0
    positive: bool = False

    @property
    def kind(self) -> Kind:
        return F64 if self.bits == 32 else F32


class Values:
    """The tensors of our file, as far as they are written, in the standard graph."""

    def __init__(self, source: Graph, known: Mapping[str, Known], graph: StandardGraph) -> None:
        self.source, self.known, self.graph = source, known, graph
        self.written: dict[str, Value] = {}

    def value(self, name: str) -> Value:
        """A tensor: int8 and int16 ones as codes, others as they are."""
        if name not in self.written:
            array = self.source.constants[name].numpy()
            bits = array.dtype.itemsize * 8 if array.dtype.kind == "i" and array.dtype.itemsize < 4 else 0
            self.written[name] = Value(self.graph.decoded(array) if bits else self.graph.const(array), bits)
        return self.written[name]

    def codes(self, name: str) -> Value:
        """A tensor that a chip operator reads; int32 ones may have been taken for numbers so far."""
        value = self.value(name)
        if not value.bits:
            constant = self.source.constants.get(name)
            made = self.graph.to(value.name, F64) if constant is None else self.graph.decoded(constant.numpy(), F64)
            value = self.written[name] = Value(made, 32)
        return value


class Node:
    """One node: its attributes and operands, the graph to write into, and the place for results."""

    def __init__(self, values: Values, definition: NodeDef, rectified: bool, form: str) -> None:
        self.form = form
        self._values, self._attributes = values, definition.attributes
        self.g, self.op_type, self.name = values.graph, definition.op_type, definition.name
        read = ReadNode(values.source, definition, [None] * len(definition.inputs), (0, 0))
        self.has, self.integer, self.integers, self.scale = read.has, read.integer, read.integers, read.scale
        self.inputs, self.outputs = definition.inputs, definition.outputs
        self.n_inputs, self.n_outputs = len(definition.inputs), len(definition.outputs)
        self.low: int | None = 0 if rectified or self.integer("act_type", 0) == 1 else None

    @property
    def platform(self) -> str:
        """Chip of the file."""
        return self._values.source.platform

    @property
    def opset(self) -> int:
        """Version of the standard operators in our file."""
        return self._values.source.opset

    @property
    def attributes(self) -> Mapping[str, Any]:
        """All attributes, as the loader keeps them."""
        return self._attributes

    def refuse(self, why: str) -> NoReturn:
        """Raise an UnsupportedError that names the node."""
        raise UnsupportedError(f"to_{self.form}: {self.op_type} {self.name!r}: {why}")

    # ---- inputs
    def has_input(self, i: int) -> bool:
        """Whether input ``i`` is wired."""
        return i < self.n_inputs and self.inputs[i] != ""

    def array(self, i: int) -> Array | None:
        """Input ``i`` where it is an initializer."""
        found = self._values.source.constants.get(self.inputs[i]) if self.has_input(i) else None
        return None if found is None else found.numpy()

    def constant(self, i: int) -> Array:
        """Input ``i``, an initializer."""
        found = self.array(i)
        if found is None:
            self.refuse(f"input {i} is no initializer")
        return found

    def whole(self, i: int) -> list[int]:
        """Input ``i``, an initializer that lists integers."""
        return [int(v) for v in self.constant(i).reshape(-1)]

    def value(self, i: int) -> Value:
        """Input ``i`` as it was written."""
        return self._values.value(self.inputs[i])

    def codes(self, i: int, kind: Kind | None = None) -> str:
        """Codes of input ``i``, in the kind of their width or in another."""
        value = self._values.codes(self.inputs[i])
        return value.name if kind in (None, value.kind) else self.g.to(value.name, kind or F32)

    def bits(self, i: int = 0) -> int:
        """Width of the codes of input ``i``."""
        return self._values.codes(self.inputs[i]).bits

    def bits_of(self, i: int) -> int:
        """Width of input ``i`` in our file, 0 for what holds no codes."""
        return code_bits(self._values.known[self.inputs[i]].dtype)

    def shape(self, i: int = 0) -> tuple[int | None, ...]:
        """Sizes of input ``i``; None where they are open."""
        return self._values.known[self.inputs[i]].shape

    def result(self, i: int = 0) -> tuple[int | None, ...]:
        """Sizes of output ``i``."""
        return self._values.known[self.outputs[i]].shape

    def is_quantized(self) -> bool:
        """Whether input 0 holds codes and the chip's operator is meant, not the float one of the same name."""
        name = self.inputs[0] if self.has_input(0) else ""
        return name in self._values.known and name not in self._values.source.constants and self._holds_codes(name)

    def _holds_codes(self, name: str) -> bool:
        return code_bits(self._values.known[name].dtype) > 0 or self._values.value(name).bits > 0

    # ---- outputs
    def put(self, name: str, bits: int = 0, i: int = 0, positive: bool | None = None) -> None:
        """Output ``i``."""
        known = self.low == 0 if positive is None else positive
        self._values.written[self.outputs[i]] = Value(name, bits, known)

    def put_like(self, name: str, i: int = 0) -> None:
        """Output ``i`` in the format of input 0."""
        old = self.value(0)
        self.put(name, old.bits, i, old.positive)

    def narrow(self, x: str, s: int, bits: int, kind: Kind = F64) -> None:
        """Output 0: sat_bits(RSH(x, s)) of integers x, from 0 on where a ReLU follows."""
        y = self.g.clip(self.g.shift(x, s, kind), bits, kind, self.low)
        wanted = F64 if bits == 32 else F32
        self.put(y if kind is wanted else self.g.to(y, wanted), bits)

    def reshaped(self, x: str) -> str:
        """A result in the shape of input 0."""
        shape = self.shape(0)
        if sum(size is None for size in shape) > 1:
            return self.g.op("Reshape", x, self.g.op("Shape", self.value(0).name))
        return self.g.op("Reshape", x, self.g.ints(*(-1 if size is None else size for size in shape)))


Writer = Callable[[Node], None]
_writers: dict[tuple[str, str], Writer] = {}
EXACT_FORM, QDQ_FORM = "standard", "qdq"
BOTH_FORMS = (EXACT_FORM, QDQ_FORM)


def writes(*op_types: str, forms: Sequence[str] = (EXACT_FORM,)) -> Callable[[Writer], Writer]:
    """Register the decorated function as the writer of these operator names, both vocabularies, in some forms of file."""

    def register(writer: Writer) -> Writer:
        _writers.update({(form, op_type): writer for form in forms for op_type in op_types})
        return writer

    return register


def writer_of(form: str, op_type: str) -> Writer | None:
    """The function registered for an operator name, or None."""
    return _writers.get((form, op_type))


def code_bits(dtype: torch.dtype) -> int:
    """Width of codes; 0 for other tensors."""
    return _BITS.get(dtype, 0)


__all__ = [
    "BOTH_FORMS",
    "EXACT_FORM",
    "QDQ_FORM",
    "Known",
    "Node",
    "Value",
    "Values",
    "Writer",
    "code_bits",
    "writer_of",
    "writes",
]
