"""How float calls become standard ONNX nodes: one bound call, its operands, and the table of writers.

A writer takes a :class:`Call` and returns the value (or values) of the file that the result is, or None where the call
has no form. Operands are cast to the type that torch computes in; parameters and constants become initializers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor

from linger.errors import ExportError
from linger.runtime import Tape, Value, resolve

__all__ = [
    "CODES",
    "TABLE",
    "Array",
    "Call",
    "Piece",
    "Value",
    "Writer",
    "Written",
    "add",
    "ints",
    "tuple_of",
    "writes",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Piece: TypeAlias = Value | Array
Written: TypeAlias = Value | Array | Sequence[Value | Array] | None
Writer = Callable[["Call"], Written]

CODES = {torch.float32: 1, torch.int32: 6, torch.int64: 7, torch.bool: 9}
_ARRAYS: dict[torch.dtype, Any] = {
    torch.float32: np.float32,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}
_SYNONYMS = {"self": "input", "axis": "dim", "keepdims": "keepdim", "tensor": "input", "x": "input", "a": "input"}
_REQUIRED = object()


def in_file(dtype: torch.dtype) -> torch.dtype:
    """Type that a file has for a torch type: every float is float32."""
    return torch.float32 if dtype.is_floating_point else dtype


class Signature:
    """Names of arguments by position; from a text such as ``"input dim=None keepdim=False"`` (``*dims`` takes the rest)."""

    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.rest = ""
        self.defaults: dict[str, Any] = {}
        for word in text.split():
            name, given, default = word.partition("=")
            if name.startswith("*"):
                self.rest = name[1:]
                self.defaults[self.rest] = ()
            else:
                self.names.append(name)
                self.defaults[name] = ast.literal_eval(default) if given else _REQUIRED

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Arguments by name, or None: the call asks for something the writer does not know."""
        bound = dict(self.defaults)
        bound.update(zip(self.names, args, strict=False))
        if len(args) > len(self.names):
            if not self.rest:
                return None
            extra = args[len(self.names) :]
            bound[self.rest] = tuple(extra[0]) if isinstance(extra[0], (list, tuple)) else tuple(extra)
        for key, value in kwargs.items():
            name = key if key in bound else _SYNONYMS.get(key, key)
            if name == self.rest:
                bound[name] = tuple(value) if isinstance(value, (list, tuple)) else (value,)
            elif name in bound:
                bound[name] = value
            elif value is not None and value is not False:  # out=None, inplace=False ask for nothing
                return None
        return None if _REQUIRED in bound.values() else bound


class Call:
    """One float call that is being written.

    Args:
        tape: Receives the nodes.
        func: The torch function.
        named: Its arguments by name.
        result: What it returned.
    """

    def __init__(self, tape: Tape, func: Callable[..., Any], named: dict[str, Any], result: Any) -> None:
        self.tape, self.func, self.named, self.result = tape, func, named, result
        first = result if isinstance(result, Tensor) else next(t for t in result if isinstance(t, Tensor))
        self.dtype = in_file(first.dtype)

    def __getitem__(self, name: str) -> Any:
        return self.named[name]

    @property
    def x(self) -> Tensor:
        """The tensor that the call works on."""
        x: Tensor = self.named["input"]
        return x

    @property
    def rank(self) -> int:
        """Number of dimensions of the input."""
        return self.x.dim()

    @property
    def shape(self) -> list[int]:
        """Sizes of the result."""
        return [int(s) for s in self.result.shape]

    def axis(self, name: str = "dim") -> int:
        """Argument ``name`` as an axis of the input, counted from the front."""
        return int(self.named[name]) % max(self.rank, 1)

    def axes(self, name: str = "dim") -> list[int] | None:
        """Argument ``name`` as axes of the input, or None: all of them."""
        given = self.named[name]
        listed = [given] if isinstance(given, int) else list(given or ())
        return sorted(int(d) % max(self.rank, 1) for d in listed) or None

    # ---- operands
    def of(self, what: Any, dtype: torch.dtype | None = None) -> Piece:
        """A tensor or number as an operand of a node.

        Args:
            what: Tensor of the forward, number, or an operand already.
            dtype: Type to cast to; None keeps a tensor's own and gives numbers the type of the result.
        """
        if isinstance(what, (Value, np.ndarray)):
            return what
        if not isinstance(what, Tensor):
            return np.array(what, _ARRAYS[dtype or self.dtype])
        wanted = in_file(dtype or what.dtype)
        if wanted not in CODES:
            self.refuse(f"files do not carry {wanted}")
        if wanted == in_file(what.dtype):
            return Value(self.tape.float_name(what))
        if not self.tape.has(what):
            return np.asarray(what.detach().cpu().to(wanted).numpy())
        return self.node("Cast", Value(self.tape.float_name(what)), to=CODES[wanted])

    def __call__(self, name: str = "input", dtype: torch.dtype | None = None) -> Piece:
        """Operand of the argument ``name``."""
        return self.of(self.named[name], dtype)

    def constant(self, t: Tensor, array: Array, suffix: str) -> Value:
        """A rearranged parameter as an initializer that keeps the parameter's name."""
        name = self.tape.parameters.get(id(t), "constant")
        return Value(self.tape.constant(np.ascontiguousarray(array), f"{name}.{suffix}"))

    def fixed(self, t: Tensor) -> Array | None:
        """Content of a tensor that does not depend on the graph's inputs, or None."""
        if self.tape.has(t) and self.tape.name_of(t) not in self.tape.initializers:
            return None
        content: Array = t.detach().cpu().to(in_file(t.dtype)).numpy()
        return content

    # ---- nodes
    def node(self, op_type: str, *inputs: Piece | float | None, **attributes: Any) -> Value:
        """Append a node with one output; numbers become constants of the result's type."""
        return self.nodes(op_type, 1, *inputs, **attributes)[0]

    def nodes(self, op_type: str, n: int, *inputs: Piece | float | None, **attributes: Any) -> list[Value]:
        """Append a node with ``n`` outputs."""
        outputs = [self.tape.value(f"{op_type}.out") for _ in range(n)]
        self.tape.node(op_type, [None if i is None else self.of(i) for i in inputs], outputs, attributes)
        return outputs

    def refuse(self, why: str) -> NoReturn:
        """The call has no form; the result says why when something needs it.

        Raises:
            ExportError: Always.
        """
        name = getattr(self.func, "__name__", str(self.func))
        raise ExportError(f"operator `{name}` stays in float and has no form in the file ({why}): {self.tape.where()}")


TABLE: dict[Callable[..., Any], tuple[Writer, tuple[Signature, ...]]] = {}


def find(spelling: str) -> Callable[..., Any] | None:
    """The function object of a spelling, ``linalg`` and ``special`` included."""
    space, _, name = spelling.partition(".")
    if space in ("linalg", "special"):
        found: Callable[..., Any] | None = getattr(getattr(torch, space), name, None)
        return found
    return resolve(spelling)


def add(spellings: str, signature: str, writer: Writer) -> None:
    """Enter a writer for every spelling that the running torch has, in-place twins (``add_``, ``__iadd__``) included.

    ``|`` separates alternative signatures.
    """
    signatures = tuple(Signature(text) for text in signature.split("|"))
    for spelling in spellings.split():
        space, _, name = spelling.partition(".")
        twin = (
            f"__i{name[2:]}"
            if name.startswith("__") and space == "Tensor" and name[2] != "r"
            else f"{name.rstrip('_')}_"
        )
        for form in (spelling, f"{space}.{twin}", f"operator.i{name.rstrip('_')}" if space == "operator" else spelling):
            func = find(form)
            if callable(func):
                TABLE[func] = (writer, signatures)


def writes(spellings: str, signature: str) -> Callable[[Writer], Writer]:
    """Decorator form of :func:`add`."""

    def register(writer: Writer) -> Writer:
        add(spellings, signature, writer)
        return writer

    return register


def ints(*values: int) -> Array:
    """A list of integers as ONNX takes shapes and axes."""
    return np.array([int(v) for v in values], np.int64)


def tuple_of(value: Any, n: int) -> list[int]:
    """A size as ``n`` integers; torch takes one or a sequence of one or n."""
    items = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (items * n if len(items) == 1 else items)]
