"""One node at work: the values that flow through a running graph and the checked access to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from linger.errors import ModelError
from linger.onnx.loader import MAX_ELEMENTS, MAX_RANK, AttributeValue, Graph, NodeDef
from linger.runtime.graph import CodeValue

MAX_WORK = 1 << 40  # multiply-accumulates of one node
BITS = {torch.int8: 8, torch.int16: 16, torch.int32: 32}
_SYNONYMS = (("x_bits", "data_bits"), ("w_bits", "parameter_bits"), ("strides", "stride"), ("scale_x", "scale_i"))
_OTHER = {a: b for pair in _SYNONYMS for a, b in (pair, pair[::-1])}


class TooLarge(ModelError):
    """A node asked for more room than its run allows."""


class InputError(ValueError):
    """What the caller passed does not suit the file."""


@dataclass(slots=True)
class Value:
    """A tensor of a running graph.

    Codes (int8, int16, int32) have a scale 2**exp2, None while no node has given one; float32 tensors and indices
    (int64, bool, uint8) have none. ``codes`` is the integer tensor a Dequant was made from, ``given`` the name of the
    float graph input for which the caller passed integers.
    """

    tensor: Tensor
    exp2: int | None = None
    constant: bool = False
    codes: Tensor | None = None
    given: str | None = None

    @property
    def is_float(self) -> bool:
        return self.tensor.is_floating_point()

    @property
    def is_codes(self) -> bool:
        return self.tensor.dtype in BITS

    @property
    def kind(self) -> str:
        return "float" if self.is_float else f"int{BITS[self.tensor.dtype]}" if self.is_codes else "index"


class ReadNode:
    """A ``linger.runtime.graph.NodeReader`` over one node of a checked file; lives for one execution of the node."""

    def __init__(self, graph: Graph, definition: NodeDef, inputs: list[Value | None], room: tuple[int, int]) -> None:
        self._graph, self._def, self._inputs, self._room = graph, definition, inputs, room
        self.outputs: list[Value | None] = [None] * len(definition.outputs)

    @property
    def op_type(self) -> str:
        return self._def.op_type

    @property
    def name(self) -> str:
        return self._def.name

    @property
    def platform(self) -> str:
        return self._graph.platform

    @property
    def opset(self) -> int:
        return self._graph.opset

    @property
    def n_inputs(self) -> int:
        return len(self._inputs)

    @property
    def n_outputs(self) -> int:
        return len(self.outputs)

    def error(self, message: str) -> ModelError:
        return ModelError(f"{self.op_type} {self.name!r}: {message}")

    # attributes

    def has(self, name: str) -> bool:
        return name in self._def.attributes or _OTHER.get(name) in self._def.attributes

    def _attribute(self, name: str) -> AttributeValue | None:
        found = self._def.attributes.get(name)
        return self._def.attributes.get(_OTHER.get(name, name)) if found is None else found

    def _wrong(self, name: str, expected: str, got: object) -> ModelError:
        return self.error(f"attribute {name!r} must be {expected}, got {got!r}" if got is not None else
                          f"attribute {name!r} is missing")  # fmt: skip

    def integer(self, name: str, default: int | None = None) -> int:
        found = self._attribute(name)
        if found is None and default is not None:
            return default
        if not isinstance(found, int):
            raise self._wrong(name, "an integer", found)
        return found

    def integers(self, name: str, length: int | None = None, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        found = self._attribute(name)
        if found is None and default is not None:
            return default
        values = (found,) if isinstance(found, int) else found
        if not isinstance(values, tuple) or any(not isinstance(v, int) for v in values):
            raise self._wrong(name, "a list of integers", found)
        if length is not None and len(values) != length:
            raise self._wrong(name, f"a list of {length}", values)
        return tuple(int(v) for v in values)

    def real(self, name: str, default: float | None = None) -> float:
        found = self._attribute(name)
        if found is None and default is not None:
            return default
        value = found[0] if isinstance(found, tuple) and len(found) == 1 else found
        if not isinstance(value, (float, int)) or not math.isfinite(value):
            raise self._wrong(name, "a finite number", found)
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        found = self._attribute(name)
        if found is None and default is not None:
            return default
        if not isinstance(found, str):
            raise self._wrong(name, "a text", found)
        return found

    def texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """List-of-texts attribute."""
        found = self._attribute(name)
        if found is None:
            return default
        if not isinstance(found, tuple) or any(not isinstance(v, str) for v in found):
            raise self._wrong(name, "a list of texts", found)
        return tuple(str(v) for v in found)

    def tensor(self, name: str, default: Tensor) -> Tensor:
        """Tensor attribute."""
        found = self._attribute(name)
        if found is None:
            return default
        if not isinstance(found, Tensor):
            raise self._wrong(name, "a tensor", found)
        return found

    def scale(self, name: str) -> int:
        value = self.real(name)
        mantissa, exponent = math.frexp(value)
        if mantissa != 0.5 or abs(exponent) > 126:
            raise self.error(f"attribute {name!r} must be a power of two, got {value:g}")
        return exponent - 1

    # inputs

    def has_input(self, i: int) -> bool:
        return i < len(self._inputs) and self._inputs[i] is not None

    def value(self, i: int) -> Value:
        """Input ``i``; the runner's own view."""
        found = self._inputs[i] if i < len(self._inputs) else None
        if found is None:
            raise self.error(f"input {i} is missing")
        return found

    def _where(self, i: int) -> str:
        return f"input {i} ({self._def.inputs[i]!r})"

    def is_float(self, i: int) -> bool:
        return self.has_input(i) and self.value(i).is_float

    def data(self, i: int) -> Tensor:
        return self.value(i).tensor

    def codes(self, i: int) -> CodeValue:
        value = self.value(i)
        bits = BITS.get(value.tensor.dtype)
        if bits is None:
            hint = ": a Quant is missing in front" if value.is_float else ""
            raise self.error(f"{self._where(i)} must be int8, int16 or int32, got {value.tensor.dtype}{hint}")
        return CodeValue(value.tensor, value.exp2, bits)

    def optional(self, i: int) -> CodeValue | None:
        return self.codes(i) if self.has_input(i) else None

    def constant(self, i: int) -> Tensor:
        value = self.value(i)
        if not value.constant:
            raise self.error(f"{self._where(i)} must be an initializer")
        return value.tensor

    def floats(self, i: int) -> Tensor:
        value = self.value(i)
        if value.is_float:
            return value.tensor
        if value.given is not None:
            raise InputError(
                f"input {value.given!r} reaches the float operator {self.op_type} {self.name!r}: pass floats for it"
            )
        hint = ": a Dequant is missing in front" if value.is_codes else ""
        raise self.error(f"{self._where(i)} must be float32, got {value.tensor.dtype}{hint}")

    def match(self, i: int, exp2: int) -> None:
        value = self.value(i)
        if value.exp2 is None:
            value.exp2 = exp2
        elif value.exp2 != exp2:
            raise self.error(f"{self._where(i)} has scale 2**{value.exp2} where it is made, 2**{exp2} is written here")

    # outputs

    def room(self, shape: tuple[int, ...], work: int = 1) -> None:
        elements = math.prod(shape)
        if len(shape) > MAX_RANK or any(d < 0 for d in shape):
            raise self.error(f"the output would have shape {shape}")
        if elements > min(self._room[0], MAX_ELEMENTS) or elements * work > min(self._room[1], MAX_WORK):
            raise TooLarge(
                f"{self.op_type} {self.name!r}: an output of shape {shape} is more than this runner computes"
            )

    def _put(self, i: int, value: Value) -> None:
        if i >= len(self.outputs):
            raise self.error(f"the operator has {i + 1} outputs, {len(self.outputs)} are written")
        self.outputs[i] = value

    def put(self, i: int, codes: Tensor, exp2: int | None) -> None:
        self._put(i, Value(codes, exp2))

    def put_float(self, i: int, value: Tensor) -> None:
        self._put(i, Value(value.to(torch.float32)))

    def put_dequantized(self, i: int, value: Tensor, codes: Tensor) -> None:
        """Store float output ``i`` together with the integers it was made from."""
        self._put(i, Value(value, codes=codes))

    def put_index(self, i: int, value: Tensor) -> None:
        """Store output ``i`` of shape arithmetic: int64 or bool."""
        self._put(i, Value(value if value.dtype == torch.bool else value.to(torch.int64)))

    def put_like(self, i: int, value: Tensor, source: int) -> None:
        old = self.value(source)
        self._put(i, old if value is old.tensor else Value(value, old.exp2, given=old.given))
