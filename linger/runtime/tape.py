"""Recording one eval forward as a graph: nodes, initializers and the names of the real tensors that flow between them.

Quantized operators append their nodes themselves (next to their modules in ``linger.nn``); ``linger.onnx`` supplies what a
float operator becomes and turns the tape into a file. Nothing here knows the ONNX package.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from linger.errors import ExportError

from . import sites
from .sizes import Dim, Sizes
from .spellings import HANDLERS, NAMES
from .state import state
from .tag import Format, info, scale_value, tag, tensors, version_of
from .tape_entries import Array, FloatCall, Moved, Node, Operand, Value

_SET_ITEM = Tensor.__setitem__


class FloatWriter(Protocol):
    """Writes one float call as standard ONNX nodes; returns False where it has no form for it."""

    def __call__(
        self, tape: Tape, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> bool:
        """Append the nodes and bind the results."""


_WEIGHTED = frozenset("Conv1dInt Conv2dInt ConvTranspose2dInt LinearInt BatchNorm2dInt LayerNormInt".split())
_READS = frozenset({"item", "tolist", "__bool__", "__int__", "__float__", "numpy"})


@dataclass
class Tape:
    """Args: platform: name written into files (``arcs``, ``venusA``, ``venus``); write_float: form of float operators."""

    platform: str
    write_float: FloatWriter
    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Array] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)  # id of a parameter or buffer -> qualified name
    without_data: list[str] = field(default_factory=list)  # quantizers that ran without statistics
    violations: list[Any] = field(default_factory=list)  # texts or findings: limits of the chip that a layer breaks
    _notes: dict[int, tuple[Any, tuple[tuple[Tensor, int | None], ...]]] = field(default_factory=dict)
    _quantized: dict[tuple[int, int | None, int, float], Tensor] = field(
        default_factory=dict
    )  # tensor, version, bits, scale
    port_types: dict[str, int] = field(default_factory=dict)  # ONNX element type of graph ports that carry wide codes
    wide: dict[str, int] = field(default_factory=dict)  # the same of tensors whose scale the packer does not know
    steps: dict[str, int] = field(default_factory=dict)  # results of recurrent nodes: steps in this forward
    windows: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # results of averages: height and width of a window
    states: set[str] = field(default_factory=set)  # graph inputs (layers, B, H): their first axis is no batch
    _names: dict[int, str] = field(default_factory=dict)
    _keep: list[Tensor] = field(default_factory=list)
    _floats: dict[str, str] = field(default_factory=dict)
    _reasons: dict[int, str] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _call: FloatCall | None = None  # the float call that is being written

    # ---- names
    def fresh(self, hint: str) -> str:
        """A name nobody has, made of letters, digits, dots and underscores (the packer dislikes '/', '@' and 'Scale')."""
        base = "".join(c if c.isalnum() or c in "._" else "_" for c in hint) or "t"
        if base.lower().startswith("scale"):
            base = f"t_{base}"
        name, k = base, 0
        while name in self._used:
            k += 1
            name = f"{base}_{k}"
        self._used.add(name)
        return name

    def value(self, hint: str) -> Value:
        """A new tensor of the file."""
        return Value(self.fresh(hint))

    def bind(self, t: Tensor, name: str) -> None:
        """Say which tensor of the file ``t`` is."""
        self._names[id(t)] = name
        self._reasons.pop(id(t), None)
        self._keep.append(t)

    def alias(self, new: Tensor, old: Tensor) -> None:
        """``new`` is the same tensor of the file as ``old`` (clone, contiguous, dropout in eval ...)."""
        if id(new) != id(old):
            if id(old) in self._reasons:
                self.poison(new, self._reasons[id(old)])
            else:
                self.bind(new, self.name_of(old))
            what = self.noted(old)
            if what is not None:
                self.note(new, what, *(t for t, _ in self._notes[id(old)][1]))

    def note(self, t: Tensor, what: Any, *sources: Tensor) -> None:
        """Remember something of a tensor, and of those it was made from, until one of them is overwritten."""
        self._notes[id(t)] = what, tuple((s, version_of(s)) for s in (t, *sources))

    def noted(self, t: Tensor) -> Any:
        """What :meth:`note` was told of this tensor; None where nothing, or where it no longer holds."""
        what, stamps = self._notes.get(id(t), (None, ()))
        return what if all(version_of(s) == version for s, version in stamps) else None

    def has(self, t: object) -> bool:
        """Whether ``t`` flows in the graph: produced by a recorded node or a graph input."""
        return isinstance(t, Tensor) and (id(t) in self._names or id(t) in self._reasons)

    def poison(self, t: Tensor, reason: str) -> None:
        """``t`` has no form in the file; an error only if a written node or an output needs it."""
        self._reasons[id(t)] = reason
        self._keep.append(t)

    def name_of(self, t: Tensor) -> str:
        """Name of ``t`` in the file; parameters, buffers and constants become initializers.

        Raises:
            ExportError: ``t`` depends on an operator that has no form in the file.
        """
        if id(t) in self._reasons:
            raise ExportError(self._reasons[id(t)])
        name = self._names.get(id(t))
        if name is None:
            if info(t) is not None:
                raise ExportError(f"a quantized tensor of shape {tuple(t.shape)} reached {self.where()} unrecorded")
            for other in self._sharing([t])[1:]:  # e.g. a buffer into which the graph's data was copied through a view
                if id(other) in self._reasons:
                    raise ExportError(self._reasons[id(other)])
            content = t.detach().cpu()
            content = content.float() if content.is_floating_point() else content  # files hold no other float
            name = self.constant(content.numpy(), self.parameters.get(id(t), "constant"))
            self.bind(t, name)
        return name

    def float_name(self, t: Tensor) -> str:
        """Name of ``t`` as a float tensor: behind one Dequant when it is quantized."""
        name = self.name_of(t)
        fmt = info(t)
        if fmt is None or not fmt.exact:
            return name
        if name not in self._floats:
            out = self.fresh(f"{name}_float")
            self.node("Dequant", [Value(name)], [Value(out)], {"scale_o": scale_value(fmt)}, domain="linger")
            self._floats[name] = out
        return self._floats[name]

    def constant(self, array: Array, hint: str) -> str:
        """Name of an initializer with this content; equal content under one hint is stored once."""
        base = "".join(c if c.isalnum() or c in "._" else "_" for c in hint)
        for name, known in self.initializers.items():
            same = name == base or name.startswith(f"{base}_")
            if same and known.dtype == array.dtype and known.shape == array.shape and np.array_equal(known, array):
                return name
        name = self.fresh(base)
        self.initializers[name] = np.ascontiguousarray(array) if array.ndim else array
        return name

    def constant_of(self, t: Tensor) -> Array | None:
        """Content of ``t`` where it is an initializer of the file, else None."""
        return self.initializers.get(self._names.get(id(t), ""))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the forward that flow in the graph, by name."""
        return {self._names[id(t)]: t for t in self._keep if id(t) in self._names}

    # ---- nodes
    def where(self) -> str:
        """Owner, file and line of the user code that runs now."""
        file, line = sites.where(sys._getframe(1))
        owner = state.frames[-1].owner.__dict__.get("_linger_name", "") if state.frames else ""
        return f"'{owner or '(root)'}' ({file}:{line})"

    def node(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        outputs: Sequence[Tensor | Value],
        attributes: dict[str, Any] | None = None,
        *,
        domain: str = "",
        hint: str = "",
    ) -> None:
        """Append one node.

        Args:
            op_type: As the packer knows it.
            inputs: Tensors of the forward, values of the file, arrays (become initializers), or None (left out).
            outputs: New tensors; they get names from ``hint``.
            attributes: ints, floats, strings or lists of them.
            domain: ``""`` for standard ONNX, ``"linger"`` for the chips' operators.
            hint: Base of the names, usually the layer's qualified name.
        """
        names = []
        for i, operand in enumerate(inputs):
            if operand is None:
                names.append("")
            elif isinstance(operand, Value):
                names.append(operand.name)
            elif isinstance(operand, Tensor):
                names.append(self.name_of(operand))
            else:
                names.append(self.constant(operand, f"{hint or op_type}.{_parameter(op_type, i)}"))
        while names and not names[-1]:
            names.pop()
        call = self._call.operator if self._call is not None and not domain else ""
        base = hint or call or op_type
        node_name = self.fresh(f"{base}.{op_type}" if hint or call else base)
        out_names = []
        for out in outputs:
            if isinstance(out, Value):
                out_names.append(out.name)
            else:
                out_names.append(self.fresh(f"{base}.out"))
                self.bind(out, out_names[-1])
        self.nodes.append(
            Node(op_type, node_name, names, out_names, dict(attributes or {}), domain, self.where(), hint, self._call)
        )

    def quant(self, source: Tensor, quantized: Tensor, bits: int, scale: float) -> None:
        """A float tensor enters the integers: a Quant node, or int8 codes in the file where it does not depend on the inputs."""
        fmt = info(quantized)
        known = self._quantized.setdefault((id(source), version_of(source), bits, scale), quantized)
        if known is not quantized:
            self.alias(quantized, known)
            return
        self._keep.append(source)
        moved = self.noted(source)
        if isinstance(moved, Moved) and fmt is not None:  # the packer takes a Quant at the graph's inputs only
            inner = [tag(t.detach().clone(), Format(fmt.scale, bits)) for t in moved.sources]
            for t, codes in zip(moved.sources, inner, strict=True):
                self.quant(t, codes, bits, scale)
            moved.write(inner, quantized)
            return
        if not self.has(source) and fmt is not None and fmt.codes is not None:
            kind = np.int8 if bits <= 8 else np.int16 if bits <= 16 else np.int32
            hint = (
                f"{self.parameters.get(id(source), 'constant')}_q{math.frexp(scale)[1] - 1}"  # a tensor has one scale
            )
            self.bind(quantized, self.constant(fmt.codes.cpu().numpy().astype(kind), hint))
            return
        attributes = {"data_bits": bits, "scale_x": scale, "platform": self.platform, "zero_point": 0}
        self.node("Quant", [source], [quantized], attributes, domain="linger", hint=f"{self.name_of(source)}_q")

    def reserve(self, name: str) -> None:
        """Keep the name that the user gave to an input or output, exactly as it is.

        Raises:
            ExportError: It is empty or taken.
        """
        if not name or name in self._used:
            raise ExportError(
                f"export: the name {name!r} is {'given twice' if name else 'empty'}; tensors need names of their own"
            )
        self._used.add(name)

    def dequantized_output(self, source: str, name: str, fmt: Format) -> None:
        """Graph output ``name`` is the Dequant of ``source``."""
        attributes = {"scale_o": scale_value(fmt)}
        self.nodes.append(Node("Dequant", self.fresh(f"{name}.Dequant"), [source], [name], attributes, "linger"))

    def integer_output(self, source: str, name: str) -> None:
        """Graph output ``name`` is the tensor ``source`` itself, in integers: no Dequant knows its scale."""
        self.port_types[name] = self.wide[source]
        for node in self.nodes:
            node.inputs = [name if i == source else i for i in node.inputs]
            node.outputs = [name if o == source else o for o in node.outputs]

    def identity_output(self, source: str, name: str) -> None:
        """Graph output ``name`` is the float tensor ``source``."""
        self.nodes.append(Node("Identity", self.fresh(f"{name}.Identity"), [source], [name], {}, ""))

    # ---- calls that are nobody's operator
    def read(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A getter or another call that computes nothing; sizes remember where they came from."""
        result = func(*args, **kwargs)
        if args and _name(func) in _READS and self.has(args[0]):
            warnings.warn(
                f"linger: export: {self.where()} reads the value of a tensor; the file keeps what it was for this input",
                stacklevel=2,
            )
        if func == Tensor.data.__get__ and self.has(args[0]):  # type: ignore[attr-defined]
            self.bind(result, self.float_name(args[0]))
        if args and self.has(args[0]) and (func is Tensor.size or func == Tensor.shape.__get__):  # type: ignore[attr-defined]
            axis = args[1] if len(args) > 1 else kwargs.get("dim")
            if axis is not None:
                return Dim(result, int(axis) % args[0].dim())
            return Sizes(Dim(s, i) for i, s in enumerate(result))
        return result

    def float_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that runs in float: written as standard ONNX where the closed list has a form for it."""
        given = list(tensors([*args, *kwargs.values()]))
        involved = [t for t in given if self.has(t)]
        before = [(t, t._version, info(t)) for t in given if not t.is_inference()]
        copies = {
            id(t): tag(t.detach().clone(), fmt.like(None)) for t, _, fmt in before if fmt is not None and self.has(t)
        }
        result = func(*args, **kwargs)
        outputs = list(tensors([result]))
        if not involved:
            return result
        overwritten = {id(t): fmt for t, version, fmt in before if t._version != version}
        if overwritten:
            cure = " (write masks with torch.where, other places as slices of step 1)" if func is _SET_ITEM else ""
            reason = f"in-place `{_name(func)}` on a float tensor has no form in the file{cure}: {self.where()}"
            target = result if isinstance(result, Tensor) and id(result) in overwritten else None
            if target is not None and id(target) in copies:  # the file reads what was there before the write
                old = copies[id(target)]
                self.alias(old, target)
                args = tuple(old if a is target else a for a in args)
                kwargs = {k: old if a is target else a for k, a in kwargs.items()}
            for t in self._sharing([t for t in given if id(t) in overwritten]):
                if t is not target:
                    self.poison(t, reason)
            if target is None:
                return result
        if not outputs:
            return result
        handled = func in HANDLERS
        self._call = FloatCall(_name(func).strip("_"), handled, any(info(t) is not None for t in given))
        try:
            written = self.write_float(self, func, args, kwargs, result)
        except ExportError as error:
            written, reason = False, str(error)
        else:
            reason = f"operator `{_name(func)}` stays in float and has no form in the file: {self.where()}"
        finally:
            self._call = None
        if not written:
            for t in outputs:
                if id(t) in overwritten or not any(t is i for i in involved):
                    self.poison(t, reason)
        return result

    def _sharing(self, written: list[Tensor]) -> list[Tensor]:
        """``written`` and every known tensor in the same memory."""
        memory = {t.untyped_storage().data_ptr() for t in written}
        known = [t for t in self._keep if t.untyped_storage().data_ptr() in memory]
        return [*written, *known]


def _parameter(op_type: str, i: int) -> str:
    """The name of a constant input, as torch has it where it is a parameter."""
    if op_type in _WEIGHTED and i in (1, 2):
        return "weight" if i == 1 else "bias"
    return "weight" if op_type == "Gather" and i == 0 else str(i)


def _name(func: Callable[..., Any]) -> str:
    return str(NAMES.get(func) or getattr(func, "__name__", str(func)))
