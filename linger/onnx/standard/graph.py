"""Builder of a graph of standard operators: constants, arithmetic that is exact in float32 or float64, the chips' shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

Array = np.ndarray[Any, np.dtype[Any]]
Kind = type[np.generic]
F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64
_STORED: dict[int, Kind] = {8: np.int8, 16: np.int16, 32: np.int32}
EXACT = 1 << 24  # every integer up to here is a float32: sums that stay below it are exact in any order


def code_limits(bits: int) -> tuple[int, int]:
    """Smallest and largest code."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


class StandardGraph:
    """Nodes and initializers; the body of a Scan is one with the same initializers.

    Every value is named after the node of the file that it comes from (``scope``). Methods that compute take the kind of
    ``x``, float64 where nothing is said, and return the name of the result.
    """

    def __init__(self, parent: StandardGraph | None = None) -> None:
        self._root: StandardGraph = self if parent is None else parent._root
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.scope: str = "" if parent is None else parent.scope
        self._constants: dict[Any, str] = {}
        self._decoded: dict[Any, str] = {}
        self._taken: set[str] = set()

    def reserve(self, names: Sequence[str]) -> None:
        """Names that nothing made here may have."""
        self._root._taken.update(names)

    def fresh(self, hint: str) -> str:
        """A new name."""
        taken, base, n = self._root._taken, f"{self.scope}/{hint}" if self.scope else hint, 1
        name = base
        while name in taken:
            n += 1
            name = f"{base}_{n}"
        taken.add(name)
        return name

    # ---- nodes
    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """One node with one output."""
        return self.ops(kind, inputs, 1, [out] if out is not None else None, **attributes)[0]

    def ops(
        self, kind: str, inputs: Sequence[str], n: int, outs: Sequence[str] | None = None, **attributes: Any
    ) -> list[str]:
        """One node with ``n`` outputs."""
        from onnx import helper

        name = self.fresh(kind)
        made = list(outs) if outs is not None else [name if n == 1 else f"{name}:{i}" for i in range(n)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made

    def fork(self) -> StandardGraph:
        """The body of a Scan."""
        return StandardGraph(self)

    # ---- constants
    def const(self, value: Any, kind: Kind | None = None, shared: bool = True) -> str:
        """An initializer; equal ones are one, unless ``shared`` is False."""
        from onnx import numpy_helper

        array, root = np.asarray(value, kind), self._root
        key = (array.dtype.str, array.shape, array.tobytes())
        if shared and key in root._constants:
            return root._constants[key]
        name = self.fresh("constant")
        root.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        if shared:
            root._constants[key] = name
        return name

    def decoded(self, array: Any, kind: Kind = F32, exp2: int = 0) -> str:
        """Integers, stored as they are, as floats ``array * 2**exp2``; runtimes compute this when they load the file."""
        if self is not self._root:  # bodies see what stands outside
            return self._root.decoded(array, kind, exp2)
        stored = self.const(array)
        key = (stored, kind, exp2)
        if key not in self._decoded:
            self._decoded[key] = self.scale(self.to(stored, kind), exp2, kind)
        return self._decoded[key]

    def decode(self, x: str, bits: int) -> str:
        """Integer tensor -> codes as floats."""
        return self.to(x, F64 if bits == 32 else F32)

    def encode(self, x: str, bits: int) -> str:
        """Codes as floats -> integer tensor; they are in range."""
        return self.to(x, _STORED[bits])

    def ints(self, *values: int) -> str:
        """A list of int64."""
        return self.const(values, I64)

    # ---- arithmetic
    def to(self, x: str, kind: Kind) -> str:
        """Cast."""
        from onnx import helper

        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def add(self, x: str, c: float | Array, kind: Kind = F64) -> str:
        """The sum of x and a constant."""
        return self.op("Add", x, self.const(c, kind))

    def mul(self, x: str, c: float | Array, kind: Kind = F64) -> str:
        """The product of x and a constant."""
        return self.op("Mul", x, self.const(c, kind))

    def scale(self, x: str, exp2: int, kind: Kind = F64) -> str:
        """The product of x and 2**exp2."""
        return self.mul(x, 2.0**exp2, kind) if exp2 else x

    def floor(self, x: str, exp2: int = 0, kind: Kind = F64) -> str:
        """The product of x and 2**exp2, rounded down."""
        return self.op("Floor", self.scale(x, exp2, kind))

    def clip(self, x: str, bits: int, kind: Kind = F64, low: int | None = None) -> str:
        """Saturated to ``bits``; from ``low`` on."""
        least, most = code_limits(bits)
        return self.op("Clip", x, self.const(least if low is None else low, kind), self.const(most, kind))

    def shift(self, x: str, s: int, kind: Kind = F64) -> str:
        """RSH(x, s), rounded half up; x * 2**-s for s < 0."""
        if s <= 0:
            return self.scale(x, -s, kind)
        return self.op("Floor", self.add(self.scale(x, -s, kind), 0.5, kind))

    def bring(self, x: str, e: int, q: int, bits: int = 32) -> str:
        """Integers of exponent ``e`` in exponent ``q``: rounded down, saturated up."""
        return self.clip(self.scale(x, q - e), bits) if e < q else self.shift(x, e - q)

    def product_shift(self, x: str, y: str, s: int) -> str:
        """RSH(x * y, s), 17 < s, exact in float64 for |x|, |y| <= 2**31: x in two parts of 16 bits."""
        high = self.floor(x, -16)
        low = self.op("Sub", x, self.scale(high, 16))
        total = self.op("Add", self.op("Mul", high, y), self.floor(self.op("Mul", low, y), -16))
        return self.op("Floor", self.add(self.scale(total, 16 - s), 0.5))

    def row_sum(self, x: str) -> str:
        """Sum along the last axis, which stays with one element."""
        return self.op("ReduceSum", x, self.ints(-1), keepdims=1)

    def look_up(self, table: Any, at: str, kind: Kind = F64) -> str:
        """table[at], ``at`` floats that are integers inside the table; negative ones count from its end."""
        array = np.asarray(table)
        data = self.const(array, kind) if array.dtype.kind == "f" else self.decoded(array, kind)
        return self.op("Gather", data, self.to(at, I32))


__all__ = ["EXACT", "F32", "F64", "I32", "I64", "Array", "Kind", "StandardGraph", "code_limits"]
