"""Steps of a plan that follow each other, as one call of the native extension: ``csrc/ops/replay.cpp`` reads the program."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from linger.ops.replay import free_program, make_program, operator_number, run_program

from .steps import Slot, Step, slots_in, tensors_in

__all__ = ["NativeRun", "writable"]

_TENSOR, _OPTIONAL_TENSOR, _NONE, _INT, _BOOL, _INTS, _TENSORS, _CONTIGUOUS, _TYPE = range(9)
_VIEW, _PAD = -1, -2
_aten = torch.ops.aten
_TORCH = {
    _aten.relu.default: -3,
    _aten.clone.default: -4,
    _aten.cat.default: -5,
    _aten.index_select.default: -6,
    _aten._to_copy.default: -7,
    _aten.constant_pad_nd.default: _PAD,
}
_TYPES = (torch.int8, torch.int16, torch.int32)


@cache
def _number(function: Any) -> int:
    """The native operator's number; -1 for other functions."""
    schema = getattr(function, "_schema", None)
    if schema is None or not schema.name.startswith("linger::"):
        return -1
    return operator_number(schema.name.removeprefix("linger::"))


class NativeRun:
    """Steps as one native call, from the tensors they read to those that others want.

    Args:
        steps: In order; every one :func:`writable`.
        wanted: Slots that are read elsewhere.
    """

    def __init__(self, steps: Sequence[Step], wanted: set[int]) -> None:
        made = {slot for step in steps for slot in step.results}
        read = [slot for step in steps for slot in slots_in((step.args, step.kwargs))]
        self.inputs = tuple(dict.fromkeys(slot for slot in read if slot not in made))
        self.results = tuple(slot for step in steps for slot in step.results if slot in wanted)
        self._constants: list[Tensor] = []
        self._places: dict[int, int] = {slot: i for i, slot in enumerate(self.inputs)}
        for t in (t for step in steps for t in tensors_in(step.args)):
            if id(t) not in self._places:
                self._places[id(t)] = len(self._places)
                self._constants.append(t)
        words = self._words(steps)
        head = [len(self._places), len(self.results), *(self._places[slot] for slot in self.results)]
        self._id = make_program(self._constants, [*head, *words])
        weakref.finalize(self, free_program, self._id)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        return run_program(inputs, self._id)

    def _words(self, steps: Sequence[Step]) -> list[int]:
        last = {
            slot: i for i, step in enumerate(steps) for slot in (*step.results, *slots_in((step.args, step.kwargs)))
        }
        words: list[int] = []
        for i, step in enumerate(steps):
            arguments = self._arguments(step)
            for slot in step.results:
                self._places[slot] = len(self._places)
            dead = [self._places[s] for s, end in last.items() if end == i and s not in self.results]
            words += [_operator(step), len(step.results)]
            words += [*(self._places[slot] for slot in step.results), *arguments, len(dead), *dead]
        return words

    def _arguments(self, step: Step) -> list[int]:
        if step.function is Tensor.as_strided:
            base, size, stride, offset = step.args
            return [self._places[base.number], len(size), *size, len(stride), *stride, offset]
        if step.function is _aten.constant_pad_nd.default:
            return [self._place(step.args[0]), len(step.args[1]), *step.args[1]]
        if step.function is _aten.clone.default:
            return [2, _TENSOR, self._place(step.args[0]), _CONTIGUOUS]
        if step.function is _aten._to_copy.default:
            kind = _TYPES.index(step.kwargs["dtype"])
            return [7, _TENSOR, self._place(step.args[0]), _TYPE, kind, _NONE, _NONE, _NONE, _BOOL, 0, _NONE]
        if step.function is _aten.cat.default:
            parts, dim = step.args[0], step.args[1] if len(step.args) > 1 else 0
            return [2, _TENSORS, len(parts), *(self._place(t) for t in parts), _INT, dim]
        kinds, words = step.function._schema.arguments, [len(step.function._schema.arguments)]
        for i, kind in enumerate(kinds):
            value = step.args[i] if i < len(step.args) else kind.default_value
            words += self._argument(value, kind.type.kind())
        return words

    def _place(self, value: Any) -> int:
        return self._places[value.number if isinstance(value, Slot) else id(value)]

    def _argument(self, value: Any, kind: str) -> list[int]:
        if value is None:
            return [_NONE]
        if isinstance(value, (Tensor, Slot)):
            return [_OPTIONAL_TENSOR if kind == "OptionalType" else _TENSOR, self._place(value)]
        if kind == "ListType":
            return [_INTS, len(value), *value]
        return [_BOOL if kind == "BoolType" else _INT, int(value)]


def _operator(step: Step) -> int:
    """How the program says the operator."""
    return _VIEW if step.function is Tensor.as_strided else _TORCH.get(step.function) or _number(step.function)


def writable(step: Step) -> bool:
    """Whether a step can be part of a native run: an operator of ours on tensors and integers, or one of a few of torch."""
    if step.function is Tensor.as_strided:
        return True
    if step.function is _aten.clone.default:
        return step.kwargs == {"memory_format": torch.contiguous_format}
    if step.function is _aten._to_copy.default:
        return step.kwargs.keys() == {"dtype"} and step.kwargs["dtype"] in _TYPES
    if step.function is _aten.constant_pad_nd.default:
        return not step.kwargs and (len(step.args) < 3 or step.args[2] == 0)
    if step.function in _TORCH:
        return not step.kwargs
    if _number(step.function) < 0 or step.kwargs:
        return False
    kinds = {"TensorType", "IntType", "BoolType", "ListType", "OptionalType"}
    schema = step.function._schema
    lists = [v for v in step.args if isinstance(v, (list, tuple)) and not all(type(n) is int for n in v)]
    return {a.type.kind() for a in schema.arguments} <= kinds and not lists and len(step.results) == len(schema.returns)
