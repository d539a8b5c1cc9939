"""Run an exported file on the host: the chip's integers, from the same kernels that the layers use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import linger.nn  # noqa: F401  its families register their readers
from linger.errors import ModelError
from linger.onnx.islands import ANY_KIND, ISLANDS, Island
from linger.onnx.loader import MAX_ELEMENTS, Graph, ValueDef, load
from linger.onnx.plan import Plan, Recorder
from linger.onnx.values import MAX_WORK, InputError, ReadNode, TooLarge, Value
from linger.runtime.graph import Reader, reader_of

_FULL = (MAX_ELEMENTS, MAX_WORK)
_TRIAL = (1 << 22, 1 << 28)  # elements and steps of one node in the run on zeros at load time
_MOST_PLANS = 16  # kinds of inputs that are remembered
_RECURRENT = ("LSTMInt", "QLSTM", "GRUInt", "QGRU")
_NATIVE = frozenset(np.dtype(kind) for kind in (np.float32, np.int8, np.int16, np.int32, np.int64))
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


class OnnxRunner:
    """Executes a file that ``linger.onnx.export`` wrote, or any file of the packer's contract, integer for integer.

    Both vocabularies are read (``Conv2dInt`` and ``QConv2d``). Standard float operators between a Dequant and a Quant
    run in float32. The file is untrusted: it is checked completely when it is loaded, and where its shapes are fixed
    and small it is run once on zeros, so that what is wrong is said here and not at the first use. Nothing in the file
    is executed. An instance may be shared between threads; it remembers how inputs of the shapes seen so far were run.

    Args:
        source: Path of the ``.onnx`` file, or its bytes.

    Raises:
        ModelError: The file is refused; the text names node and reason.
        OSError: The path cannot be read.
        ImportError: The ``onnx`` package is missing.

    Example:
        >>> runner = OnnxRunner("digits.onnx")                       # doctest: +SKIP
        >>> codes = runner.run(image, integers=True)["logits"]       # doctest: +SKIP

    Source: docs/numerics.md, "Exported files".
    """

    def __init__(self, source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> None:
        self._graph = load(source)
        self._last_use = _last_use(self._graph)
        self._of_length = follows_length(self._graph)
        self._code_types = code_types_of(self._graph)
        floats = all(port.dtype == torch.float32 for port in self._graph.inputs)
        self._float_names = set(self.inputs) if floats else set()
        self._plans: dict[Any, tuple[Plan, Plan] | tuple[()]] = {}
        for node in self._graph.nodes:
            if reader_of(node.op_type) is None and node.op_type not in ISLANDS:
                raise ModelError(f"{node.op_type} {node.name!r}: unknown operator {node.op_type!r}")
        self._try_zeros()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph inputs, in order."""
        return tuple(value.name for value in self._graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph outputs, in order."""
        return tuple(value.name for value in self._graph.outputs)

    @property
    def platform(self) -> str:
        """Chip that the file is written for; ``venus`` where no node says it."""
        return self._graph.platform

    def __repr__(self) -> str:
        def shown(values: Sequence[ValueDef]) -> str:
            return ", ".join(value.name + ("" if value.shape is None else f" {_shown(value)}") for value in values)

        return f"{type(self).__name__}({self.platform}: {shown(self._graph.inputs)} -> {shown(self._graph.outputs)})"

    def run(self, inputs: Any, integers: bool = False) -> dict[str, np.ndarray[Any, Any]]:
        """Execute the file.

        Args:
            inputs: A dict by input name, a list or tuple in the order of the graph inputs, or one array where the graph
                has one input; numpy arrays or torch tensors. An integer array for a float input counts as already
                quantized and skips its Quant node. NaN quantizes to 0, as on the chip.
            integers: Return the integer tensor in front of each final Dequant instead of the floats behind it. Outputs
                without a Dequant are returned as they are in both forms.

        Returns:
            Arrays by graph output name.

        Raises:
            ValueError: An input is missing, unknown, or of the wrong shape or range.
            TypeError: An input is not an array or has the wrong kind of elements.
            ModelError: The file cannot be executed on these shapes.
        """
        known = self._known(inputs)
        if known is not None:
            both, tensors = known
            return {name: _array(t) for name, t in zip(self.outputs, both[integers].run(tensors), strict=True)}
        values = self._bind(_by_name(inputs, self._graph.inputs))
        given = [values[port.name].tensor for port in self._graph.inputs]
        key = tuple((t.shape, t.dtype) for t in given)
        plans = self._plans.get(key)
        if plans is None:
            results = self._recorded(key, values, given)
            return {name: _result(value, integers) for name, value in results.items()}
        made = plans[integers].run(given) if plans else None
        if made is None:
            results = self._execute(values, _FULL)
            return {name: _result(value, integers) for name, value in results.items()}
        return {name: _array(t) for name, t in zip(self.outputs, made, strict=True)}

    def _known(self, inputs: Any) -> tuple[tuple[Plan, Plan], list[Tensor]] | None:
        """Plan and tensors of float32 arrays in a shape that was accepted before: nothing is left to check."""
        given = inputs if type(inputs) is dict else {self.inputs[0]: inputs} if len(self._graph.inputs) == 1 else {}
        if not given or given.keys() != self._float_names:
            return None
        arrays = [given[port.name] for port in self._graph.inputs]
        if any(type(a) is not np.ndarray or a.dtype != np.float32 for a in arrays):
            return None
        plans = self._plans.get(tuple((a.shape, torch.float32) for a in arrays))
        if not plans or not all(a.flags.carray for a in arrays):
            return None
        return plans, [torch.from_numpy(a) for a in arrays]

    def run_once(self, inputs: Any) -> None:
        """Execute the nodes, one by one, for those who look at every value."""
        self._execute(self._bind(_by_name(inputs, self._graph.inputs)), _FULL)

    def _recorded(self, key: Any, values: dict[str, Value], given: list[Tensor]) -> dict[str, Value]:
        """The first run with inputs of this kind; the next ones replay it, where the file has a plan."""
        if len(self._plans) >= _MOST_PLANS:
            return self._execute(values, _FULL)
        attributes = [a for node in self._graph.nodes for a in node.attributes.values() if isinstance(a, Tensor)]
        with torch.no_grad(), Recorder(given, [*self._graph.constants.values(), *attributes]) as recorder:
            results = self._execute(values, _FULL)
        self._plans[key] = recorder.plans([(v.tensor, v.codes) for v in results.values()], len(given))
        return results

    def _bind(self, given: Mapping[str, object]) -> dict[str, Value]:
        unknown = [name for name in given if name not in self.inputs]
        missing = [name for name in self.inputs if name not in given]
        if unknown or missing:
            raise ValueError(
                f"run: the graph inputs are {list(self.inputs)}; missing {missing}, unknown {[str(n) for n in unknown]}"
            )
        sizes: dict[str, int] = {}
        types = self._code_types
        return {v.name: _input(v, given[v.name], sizes, types.get(v.name, torch.int8)) for v in self._graph.inputs}

    def _try_zeros(self) -> None:
        values: dict[str, Value] = {}
        lengths = lengths_of(self._graph)
        for value in self._graph.inputs:
            dims = value.shape and (value.shape[0] or 1, *value.shape[1:])  # an open first dimension is the batch
            if dims is None or any(d is None for d in dims):
                return
            shape, fill = tuple(d for d in dims if d is not None), int(value.name in lengths)
            values[value.name] = Value(torch.full(shape, fill, dtype=value.dtype))
        if all(value.tensor.numel() <= _TRIAL[0] for value in values.values()):
            try:
                self._execute(values, _TRIAL)
            except TooLarge:
                return

    def _made(self, name: str, value: Value) -> None:
        """Called with every value that a node has produced; for those who want to look at them."""

    def _execute(self, values: dict[str, Value], room: tuple[int, int]) -> dict[str, Value]:
        graph = self._graph
        values.update((name, Value(tensor, constant=True)) for name, tensor in graph.constants.items())
        with torch.no_grad():
            for at, definition in enumerate(graph.nodes):
                node = ReadNode(graph, definition, [values[n] if n else None for n in definition.inputs], room)
                _step(node)
                for name, made in zip(definition.outputs, node.outputs, strict=True):
                    if name and made is None:
                        raise node.error(f"output {name!r} is not produced by this operator")
                    if name and made is not None:
                        values[name] = made
                        self._made(name, made)
                for name in self._last_use[at]:
                    del values[name]
            return {out.name: _output(out, values[out.name], out.name in self._of_length) for out in graph.outputs}


def lengths_of(graph: Graph) -> set[str]:
    """Graph inputs that say how many steps a recurrent layer runs: at least one."""
    found = {n.inputs[1] for n in graph.nodes if n.op_type in _RECURRENT and len(n.inputs) > 5}
    return found | {n.inputs[0] for n in graph.nodes if n.op_type == "Cast" and found.intersection(n.outputs)}


def follows_length(graph: Graph) -> set[str]:
    """Values that may have other rows than declared: behind a recurrent layer whose length is no constant."""
    found: set[str] = set()
    for n in graph.nodes:
        length = n.inputs[1] if n.op_type in _RECURRENT and len(n.inputs) > 5 else ""
        if found.intersection(n.inputs) or (length and length not in graph.constants):
            found.update(n.outputs)
    return found


def _last_use(graph: Graph) -> list[list[str]]:
    """For each node the values that nothing behind it reads."""
    kept = {out.name for out in graph.outputs}
    last: dict[str, int] = {}
    for at, node in enumerate(graph.nodes):
        last.update((name, at) for name in (*node.inputs, *node.outputs) if name and name not in kept)
    dropped: list[list[str]] = [[] for _ in graph.nodes]
    for name, at in last.items():
        dropped[at].append(name)
    return dropped


def _reader(node: ReadNode) -> Reader | Island:
    """The reader for the kind of data that arrives: the engine's for codes, the float operator's for the rest."""
    if node.op_type in ANY_KIND:
        return ANY_KIND[node.op_type]
    quantized = reader_of(node.op_type)
    island = ISLANDS.get(node.op_type)
    first = node.value(0) if node.has_input(0) else None
    table = first is not None and node.op_type == "Gather" and first.tensor.dtype == torch.int8  # an embedding's
    if first is not None and first.is_codes and (table or not first.constant):
        if quantized is not None:
            return quantized
        node.floats(0)  # says that the Dequant is missing
    reader = island or quantized
    if reader is None:
        raise node.error(f"unknown operator {node.op_type!r}")
    return reader


def _step(node: ReadNode) -> None:
    try:
        _reader(node)(node)
    except (ModelError, InputError):
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError) as exc:
        raise node.error(f"cannot be executed: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}") from exc


def _by_name(inputs: Any, wanted: Sequence[ValueDef]) -> Mapping[str, object]:
    if isinstance(inputs, Mapping):
        return inputs
    arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(arrays) != len(wanted):
        names = [value.name for value in wanted]
        raise ValueError(f"run: the graph has {len(wanted)} inputs {names}, got {len(arrays)} arrays")
    return {value.name: array for value, array in zip(wanted, arrays, strict=True)}


def _tensor(name: str, array: object) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().cpu().contiguous()
    if type(array) is np.ndarray and array.dtype in _NATIVE and array.flags.carray:  # nobody writes into it
        return torch.from_numpy(array)
    if isinstance(array, (np.ndarray, np.generic)) and array.dtype.kind in "biuf":
        native = np.asarray(array, dtype=array.dtype.newbyteorder("="))
        return torch.from_numpy(np.ascontiguousarray(native).reshape(native.shape).copy())
    kind = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
    raise TypeError(f"run: input {name!r} must be a numpy array or a torch tensor of numbers, got {kind}")


def code_types_of(graph: Graph) -> dict[str, torch.dtype]:
    """Types of the codes that float graph inputs are quantized to, directly or behind a shape operator."""
    sources = {out: node.inputs[0] for node in graph.nodes for out in node.outputs if node.inputs}
    inputs, types = {value.name for value in graph.inputs}, {16: torch.int16, 32: torch.int32}
    found = {}
    for node in graph.nodes:
        if node.op_type == "Quant" and node.inputs:
            name = node.inputs[0]
            while name in sources:
                name = sources[name]
            if name in inputs:
                bits = node.attributes.get("data_bits", node.attributes.get("x_bits"))
                found[name] = types.get(bits, torch.int8) if isinstance(bits, int) else torch.int8
    return found


def _input(wanted: ValueDef, array: object, sizes: dict[str, int], codes: torch.dtype) -> Value:
    name, tensor = wanted.name, _tensor(wanted.name, array)
    _check_shape(wanted, tuple(tensor.shape), sizes)
    if wanted.dtype.is_floating_point:
        if tensor.is_floating_point():
            return Value(tensor.to(torch.float32))
        if tensor.dtype not in _INTEGERS:
            raise TypeError(f"run: input {name!r} must hold floats, or integers that are codes, got {tensor.dtype}")
        return Value(_codes(name, tensor, codes), given=name)
    if wanted.dtype == torch.bool:
        if tensor.dtype != torch.bool:
            raise TypeError(f"run: input {name!r} must hold bool, got {tensor.dtype}")
        return Value(tensor)
    if tensor.dtype not in _INTEGERS:
        raise TypeError(f"run: input {name!r} must hold integers ({wanted.dtype}), got {tensor.dtype}")
    return Value(_codes(name, tensor, wanted.dtype))


def _codes(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    info = torch.iinfo(dtype)
    if tensor.numel() and (int(tensor.min()) < info.min or int(tensor.max()) > info.max):
        raise ValueError(f"run: input {name!r} holds integers outside [{info.min}, {info.max}]")
    return tensor.to(dtype)


def _check_shape(wanted: ValueDef, got: tuple[int, ...], sizes: dict[str, int]) -> None:
    if wanted.shape is None:
        return
    symbols = wanted.symbols
    fits = len(got) == len(wanted.shape) and all(d is None or d == g for d, g in zip(wanted.shape, got, strict=True))
    if fits:
        fits = all(sizes.setdefault(s, g) == g for s, g in zip(symbols, got, strict=True) if s)
    if not fits:
        open_axes = len(got) == len(wanted.shape)
        hint = (
            f"; linger.onnx.export(..., dynamic_axes={{{wanted.name!r}: {{0: 'n'}}}}) leaves an axis open" * open_axes
        )
        raise ValueError(f"run: input {wanted.name!r} must have shape {_shown(wanted)}, got {got}{hint}")


def _shown(value: ValueDef) -> str:
    dims = zip(value.shape or (), value.symbols, strict=True)
    return f"({', '.join(s or ('?' if d is None else str(d)) for d, s in dims)})"


def _output(wanted: ValueDef, value: Value, of_length: bool) -> Value:
    """The value in the shape the file declares: the engine keeps two dimensions where a file may say one.

    Behind a length that is an input (`of_length`) the declared rows are those of one length.
    """
    if not wanted.shape or any(d is None for d in wanted.shape):
        return value  # not declared, or open
    declared, got = tuple(d for d in wanted.shape if d is not None), tuple(value.tensor.shape)
    if declared == got:
        return value
    if of_length and len(got) == len(declared) and sum(a != b for a, b in zip(got, declared, strict=True)) == 1:
        return value
    if [d for d in declared if d != 1] != [d for d in got if d != 1]:
        raise ModelError(
            f"graph output {wanted.name!r}: declared shape {declared}, computed {got}; dynamic_axes of export name what changes"
        )
    codes = None if value.codes is None else value.codes.reshape(declared)
    return Value(value.tensor.reshape(declared), value.exp2, codes=codes)


def _result(value: Value, integers: bool) -> np.ndarray[Any, Any]:
    return _array(value.codes if integers and value.codes is not None else value.tensor)


def _array(t: Tensor) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = t.contiguous().numpy().copy()
    return result


__all__ = ["OnnxRunner", "code_types_of", "follows_length", "lengths_of"]
