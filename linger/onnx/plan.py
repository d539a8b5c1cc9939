"""A run of a file, recorded: the operators that its nodes called, replayed without reading and checking the nodes again.

A plan holds for the shapes and types of inputs that it was recorded with. What depends on constants alone is computed once;
what no output needs is left out; weights are packed, and a ReLU behind a layer goes into it. Files whose shapes depend on
values (the length of a recurrent layer, say) have no plan: their nodes run one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .native_plan import NativeRun, writable
from .steps import Slot, Step, slots_in, tensors_in

__all__ = ["Plan", "Recorder"]

_linger = torch.ops.linger
_aten = torch.ops.aten
_READS_VALUES = (
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.nonzero.default,
    _aten.is_nonzero.default,
)
_VIEWS = frozenset(
    {
        _aten.view.default, _aten._unsafe_view.default, _aten.permute.default, _aten.transpose.int, _aten.slice.Tensor,
        _aten.expand.default, _aten.unsqueeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.detach.default,
        _aten.alias.default, _aten.select.int, _aten.as_strided.default, _aten.t.default,
    }
)  # fmt: skip
# the same functions, called without the dispatch of an OpOverload: 2 us less
_DIRECT = {
    _aten.cat.default: torch.cat,
    _aten.relu.default: torch.relu,
    _aten.clone.default: torch.clone,
    _aten.mul.Tensor: torch.mul,
    _aten.index_select.default: torch.index_select,
    _aten.constant_pad_nd.default: torch.constant_pad_nd,
}
_BORN_CONSTANT = (_aten.lift_fresh.default, _aten.lift_fresh_copy.default, _aten.lift.default)
# layer -> places of relu and of the packed weight among its arguments
_LAYERS = {_linger.conv_codes.default: (9, 10), _linger.linear_codes.default: (5, 6)}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators of a run on these inputs.

    Args:
        inputs: Tensors that differ from run to run.
        constants: Those that do not.
    """

    def __init__(self, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.fails = ""
        self._slots = {id(t): i for i, t in enumerate(inputs)}
        self._count = len(inputs)
        self._bases: dict[int, Tensor] = {}
        self._fixed = {id(t) for t in constants}
        self._kept: list[Any] = [*inputs, *constants]  # an id is a tensor's while it lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._kept.append((args, kwargs, result))
        moving = [t for t in tensors_in((args, kwargs)) if id(t) in self._slots]
        if func in _READS_VALUES and moving or func._schema.is_mutable:
            self.fails = str(func)
        unknown = [t for t in tensors_in((args, kwargs)) if id(t) not in self._slots and id(t) not in self._fixed]
        if unknown and func not in _BORN_CONSTANT:
            self.fails = f"{func} reads what no recorded operator has made"
        made = tensors_in(result)
        if moving and len(made) != len(_listed(result)) or any(isinstance(r, list) for r in _listed(result)):
            self.fails = f"{func} returns something else than tensors"
        if not moving or self.fails:
            self._fixed.update(map(id, made))
            return result
        if func in _VIEWS and isinstance(result, Tensor):
            self._note_view(moving[0], result)
            return result
        first = self._count
        self._count += len(made)
        numbers = tuple(range(first, self._count))
        self.steps.append(Step(func, self._placed(args), self._placed(kwargs), numbers))
        self._slots.update((id(t), number) for t, number in zip(made, numbers, strict=True))
        return result

    def _note_view(self, of: Tensor, view: Tensor) -> None:
        """A view, straight from the tensor that owns the memory; one that changes nothing is that tensor."""
        base = self._bases.get(id(of), of)
        self._bases[id(view)] = base
        if (view.shape, view.stride(), view.storage_offset()) == (base.shape, base.stride(), base.storage_offset()):
            self._slots[id(view)] = self._slots[id(base)]
            return
        layout = (list(view.shape), list(view.stride()), view.storage_offset() - base.storage_offset())
        self.steps.append(Step(Tensor.as_strided, (Slot(self._slots[id(base)]), *layout), {}, (self._count,)))
        self._slots[id(view)] = self._count
        self._count += 1

    def _placed(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return Slot(self._slots[id(value)]) if id(value) in self._slots else value
        if isinstance(value, (list, tuple)):
            return type(value)(self._placed(v) for v in value)
        if isinstance(value, dict):
            return {k: self._placed(v) for k, v in value.items()}
        return value

    def plans(self, results: Sequence[tuple[Tensor, Tensor | None]], n_inputs: int) -> tuple[Plan, Plan] | tuple[()]:
        """The ways to the floats, and to the codes in front of them; empty where a run cannot be replayed."""
        codes = [value if code is None else code for value, code in results]
        values = [value for value, _ in results]
        if self.fails or any(id(t) not in self._slots and id(t) not in self._fixed for t in (*codes, *values)):
            return ()
        return Plan(self.steps, n_inputs, self._placed(values)), Plan(self.steps, n_inputs, self._placed(codes))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


class Plan:
    """The steps to some results, for inputs of one shape and type.

    Args:
        steps: All that were recorded, in order.
        n_inputs: Number of inputs.
        results: Slots, or tensors that are always the same.
    """

    def __init__(self, steps: Sequence[Step], n_inputs: int, results: Sequence[Any]) -> None:
        wanted = _natively(_with_relu(_needed(steps, results), results), results)
        self._results = list(results)
        last: dict[int, int] = {}
        for at, step in enumerate(wanted):
            last.update(dict.fromkeys(slots_in((step.args, step.kwargs)), at))
        kept = {r.number for r in results if isinstance(r, Slot)}
        self._steps = []
        for at, step in enumerate(wanted):
            plain = [(i, a.number) for i, a in enumerate(step.args) if isinstance(a, Slot)]
            nested = any(slots_in(a) for a in (*step.args, step.kwargs) if not isinstance(a, Slot))
            args = step.args if nested else tuple(None if isinstance(a, Slot) else a for a in step.args)
            dead = [s for s, end in last.items() if end == at and s not in kept and s >= n_inputs]
            function = _DIRECT.get(step.function, step.function)
            self._steps.append((function, args, plain, step.kwargs, nested, step.results, tuple(dead)))
        self._size = 1 + max((n for s in wanted for n in s.results), default=n_inputs)

    def __len__(self) -> int:
        return len(self._steps)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The results for these inputs."""
        values: list[Any] = [*inputs, *[None] * (self._size - len(inputs))]
        for function, template, plain, kwargs, nested, results, dead in self._steps:
            if nested:
                made = function(*_filled(template, values), **_filled(kwargs, values))
            else:
                args = list(template)
                for i, slot in plain:
                    args[i] = values[slot]
                made = function(*args, **kwargs)
            if len(results) == 1:
                values[results[0]] = made[0] if type(made) in (list, tuple) else made
            else:
                for slot, value in zip(results, made, strict=True):
                    values[slot] = value
            for slot in dead:
                values[slot] = None
        return [values[r.number] if isinstance(r, Slot) else r for r in self._results]


def _filled(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Slot):
        return values[value.number]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(v, values) for v in value)
    if isinstance(value, dict):
        return {k: _filled(v, values) for k, v in value.items()}
    return value


def _needed(steps: Sequence[Step], results: Sequence[Any]) -> list[Step]:
    """The steps that the results depend on."""
    wanted, kept = set(slots_in(list(results))), []
    for step in reversed(steps):
        if wanted.intersection(step.results):
            wanted.update(slots_in((step.args, step.kwargs)))
            kept.append(step)
    return kept[::-1]


def _with_relu(steps: Sequence[Step], results: Sequence[Any]) -> list[Step]:
    """Layers with packed weights; a ReLU that alone reads a layer is part of it."""
    readers = Counter(s for step in steps for s in slots_in((step.args, step.kwargs)))
    readers.update(slots_in(list(results)))
    maker = {slot: i for i, step in enumerate(steps) for slot in step.results}
    made: list[Step | None] = list(steps)
    for at, step in enumerate(steps):
        if step.function in _LAYERS and not slots_in(step.args[1]):
            made[at] = step._replace(args=_packed(step))
        if step.function is _aten.relu.default:
            source = slots_in(step.args)[0]
            layer = made[maker[source]] if source in maker else None
            if layer is not None and layer.function in _LAYERS and readers[source] == 1:
                place = _LAYERS[layer.function][0]
                args = (*layer.args[:place], True, *layer.args[place + 1 :])
                made[maker[source]], made[at] = None, layer._replace(args=args, results=step.results)
    return [step for step in made if step is not None]


def _natively(steps: Sequence[Step], results: Sequence[Any]) -> list[Step]:
    """Steps of our operators that follow each other, as one."""
    made: list[Step] = []
    ends = [i for i in range(len(steps) + 1) if i == len(steps) or not writable(steps[i])]
    start = 0
    for end in ends:
        if end > start:
            part = steps[start:end]
            outside = {s for step in (*steps[:start], *steps[end:]) for s in slots_in((step.args, step.kwargs))}
            run = NativeRun(part, outside.union(slots_in(list(results))))
            made.append(Step(run, tuple(Slot(s) for s in run.inputs), {}, run.results))
        made += steps[end : end + 1]
        start = end + 1
    return made


def _packed(step: Step) -> tuple[Any, ...]:
    """The arguments of a layer with its weight packed for this processor."""
    convolution = step.function is _linger.conv_codes.default
    weight, stride, groups = (
        step.args[1],
        list(step.args[3]) if convolution else [1, 1],
        step.args[6] if convolution else 1,
    )
    place = _LAYERS[step.function][1]
    return (*step.args[:place], _linger.conv_pack.default(weight, stride, groups))
