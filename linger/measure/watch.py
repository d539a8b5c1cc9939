"""One forward looked at: every quantized layer and operator is shown to a function, and who reads whose result is found."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from linger.convert.neighbours_from_forward import bind_inputs
from linger.quantizers import switched_off
from linger.runtime import Leaf, float_tensors, info, sites, tag

__all__ = [
    "Call",
    "Errors",
    "Sources",
    "arguments_of",
    "batches_of",
    "first_tensor",
    "injected",
    "run",
    "watched",
]


class Call(NamedTuple):
    """One call of a layer or operator.

    Attributes:
        name: Qualified name.
        visit: Earlier calls in this forward.
        module: The layer, or the state of the operator.
        args: What it read, tensors in the order of the call.
        output: What it returned.
        place: ``file:line`` of the user's code that called it.
    """

    name: str
    visit: int
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    place: str

    def float_form(self) -> Any:
        """What the layer's float form returns for what it read."""
        with switched_off():
            return type(self.module).forward(self.module, *self.args, **self.kwargs)


@contextmanager
def watched(model: nn.Module, see: Callable[[Call], None]) -> Iterator[None]:
    """Inside, every call of a quantized layer or operator of ``model`` is shown to ``see``, in the order of their results."""
    names: dict[nn.Module, str] = {m: name for name, m in model.named_modules() if isinstance(m, Leaf)}
    visits: dict[str, int] = {}
    busy = False

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal busy
        if busy:  # inside `see`: a float form that calls operators of its own
            return
        busy = True
        name = names[module]
        visit = visits.get(name, 0)
        visits[name] = visit + 1
        file, line = sites.where(sys._getframe(1), run.__code__)
        try:
            see(Call(name, visit, module, args, kwargs, output, f"{file}:{line}" if line else ""))
        finally:
            busy = False

    handles = [m.register_forward_hook(hook, with_kwargs=True) for m in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Errors = dict[tuple[str, int], Tensor]  # name and visit -> integers minus float form, in real units


@contextmanager
def injected(model: nn.Module, errors: Mapping[tuple[str, int], tuple[Tensor, bool]]) -> Iterator[None]:
    """Inside, layers of a model in float make these errors; a ReLU that was part of a layer is applied in front of its own."""
    names = {m: name for name, m in model.named_modules() if any(name == key[0] for key in errors)}
    visits: dict[str, int] = {}

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        name = names[module]
        visit = visits.get(name, 0)
        visits[name] = visit + 1
        return _with_error(output, *errors[name, visit]) if (name, visit) in errors else output

    handles = [m.register_forward_hook(hook) for m in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_error(output: Any, error: Tensor, relu: bool) -> Any:
    """A result whose first tensor is off by ``error``; its marks stay."""
    if isinstance(output, Tensor):
        fmt = info(output)
        with torch._C.DisableTorchFunction():
            value = (output.relu() if relu else output) + error
        return value if fmt is None else tag(value, fmt.like(None))
    first = _with_error(output[0], error, relu)
    return output._replace(data=first) if isinstance(output, PackedSequence) else type(output)((first, *output[1:]))


def run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One forward with fixed random numbers; places of calls are looked for inside it."""
    torch.manual_seed(0)
    return model(*args, **kwargs)


def first_tensor(value: Any) -> Tensor | None:
    """The result of a layer: of a recurrent one the sequence, without its states."""
    return next(float_tensors(value), None)


class Sources:
    """Who made what a layer reads, from torch's graph of gradients of one float forward."""

    def __init__(self) -> None:
        self._makers: dict[Any, str] = {}
        self._inputs: set[Tensor] = set()

    def tracked(self, value: Any) -> Any:
        """A copy of the network's arguments whose float tensors are in a graph of gradients."""
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                return value
            leaf = value.detach().requires_grad_()
            self._inputs.add(leaf)
            return leaf.clone()  # one that may be written in place
        if isinstance(value, Mapping):
            return {k: self.tracked(v) for k, v in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.tracked(v) for v in value)
        return value

    def made(self, name: str, output: Any) -> None:
        """``output`` is the result of ``name``."""
        for t in float_tensors(output):
            if t.grad_fn is not None:
                self._makers.setdefault(t.grad_fn, name)

    def of(self, value: Any) -> list[str]:
        """Those whose results a value is computed from, without what lies behind them, and ``input`` for the network's."""
        found: dict[str, None] = {}
        seen: set[Any] = set()
        waiting = [t.grad_fn for t in float_tensors(value) if t.grad_fn is not None]
        while waiting:
            node = waiting.pop(0)
            if node in seen:
                continue
            seen.add(node)
            if node in self._makers:
                found[self._makers[node]] = None
            elif getattr(node, "variable", None) in self._inputs:
                found["input"] = None
            else:
                waiting += [n for n, _ in node.next_functions if n is not None]
        return list(found)


def batches_of(batches: Any) -> Iterable[Any]:
    """What was given as an iterable of batches: one tensor or dict of keyword arguments is one batch.

    Raises:
        TypeError: It can not be iterated over.
    """
    if isinstance(batches, (Tensor, Mapping)):
        return [batches]
    if not isinstance(batches, Iterable):
        raise TypeError(
            f"batches must be a tensor, a dict of keyword arguments or an iterable of batches (a DataLoader), got "
            f"{type(batches).__name__}"
        )
    return batches


def arguments_of(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call from a batch: a tensor, a dict of keyword arguments, or a list whose last entries may be targets."""
    args, kwargs = bind_inputs(model, batch)
    if len(args) > 1:
        parameters = inspect.signature(model.forward).parameters.values()
        if all(p.kind is not p.VAR_POSITIONAL for p in parameters):
            takes = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            args = args[: len(takes)]
    return args, kwargs
