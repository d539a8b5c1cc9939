"""One recorded eval forward on example inputs, after which the model and all random states are as before."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from linger.quantizers import eagerly
from linger.runtime import LAYER_FUNCTIONS, own_arithmetic, resolve, sites
from linger.runtime.layer_calls import bound

from .convertible import is_leaf, own_layer
from .flow import METADATA, Adjacency, Flow, FlowStep, is_alias

__all__ = ["Stand", "bind_inputs", "neighbours_from_forward", "undisturbed"]

_RELU = {torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_}
_QUIET = {f for f in (resolve(f"Tensor.{name}") for name in METADATA) if f is not None}


def bind_inputs(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call from a tensor, a tuple or list, or a dict of keyword arguments; tensors go to the model's device."""
    device = next((p.device for p in model.parameters()), None)

    def place(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if device is None else value.to(device)
        if type(value) in (tuple, list):
            return type(value)(place(v) for v in value)
        return {k: place(v) for k, v in value.items()} if type(value) is dict else value

    if isinstance(example_inputs, Mapping):
        return (), {str(k): place(v) for k, v in example_inputs.items()}
    if isinstance(example_inputs, (tuple, list)):
        return tuple(place(v) for v in example_inputs), {}
    return (place(example_inputs),), {}


@contextlib.contextmanager
def undisturbed(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Run forwards in eval (or all training) mode without a trace: attributes, buffers, flags and random states come back.

    Compiled parts run as they are written.
    """
    saved = []
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]  # those keep their state in C++
    for m in modules:
        tables = {k: dict(m.__dict__[k]) for k in ("_parameters", "_buffers", "_modules")}
        boxes = {k: v.copy() for k, v in m.__dict__.items() if type(v) in (list, dict, set)}
        saved.append((m, dict(m.__dict__), tables, boxes))
    buffers = [(b, b.detach().clone(), b._version) for b in model.buffers() if not b.is_inference()]
    states = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices), eagerly():
            for m in modules:
                m.__dict__["training"] = training
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        with torch.no_grad():
            for buffer, value, version in buffers:
                unseen = not buffer.is_meta and not torch.equal(buffer, value)  # BatchNorm counts no version
                if buffer._version != version or unseen:
                    buffer.copy_(value)
        for m, attributes, tables, boxes in saved:
            for name, box in boxes.items():
                _refill(attributes[name], box)
            for name, table in tables.items():
                _refill(attributes[name], table)
            m.__dict__.clear()
            m.__dict__.update(attributes)


def _refill(box: Any, content: Any) -> None:
    box.clear()
    if isinstance(box, list):
        box.extend(content)
    else:
        box.update(content)


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """Tensors anywhere in a result or attribute."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors(v, depth - 1)
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for v in value:
            yield from _tensors(v, depth - 1)
    elif depth and not isinstance(value, (nn.Module, type)) and hasattr(value, "__dict__"):
        for v in list(vars(value).values()):
            yield from _tensors(v, depth - 1)


class _Recorder(TorchFunctionMode):
    """Notes every operator of user code and, through hooks, every leaf module."""

    def __init__(self, layers: dict[int, nn.Module]) -> None:
        super().__init__()
        self.layers = layers  # by the id of the weight: modules with code of their own around the layer's function
        self.flow = Flow()
        self.where: dict[int, str] = {}
        self.known: dict[
            int, tuple[int, int, Tensor]
        ] = {}  # id -> value, version, the tensor itself (keeps the id taken)
        self.count = 0
        self.inside: list[list[int]] = []

    def fresh(self, t: Tensor) -> int:
        self.count += 1
        self.known[id(t)] = (self.count, t._version, t)
        return self.count

    def value(self, t: Tensor) -> int:
        entry = self.known.get(id(t))
        return entry[0] if entry is not None and entry[1] == t._version else self.fresh(t)

    def values(self, *groups: Any) -> list[int]:
        return [self.value(t) for t in _tensors(groups)]

    def add(self, module: nn.Module | None, relu: bool, inputs: list[int], result: Any) -> None:
        outs = list(_tensors(result))
        dims = outs[0].dim() if outs else None
        self.flow.calls.append(FlowStep(module, relu, inputs, [self.fresh(t) for t in outs], dims))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.inside or func in _QUIET:
            return func(*args, **kwargs)
        layer = self.layers.get(id(bound(func, args, kwargs).get("weight"))) if func in LAYER_FUNCTIONS else None
        if layer is not None and own_arithmetic(layer, func, bound(func, args, kwargs)):
            self.flow.own.add(id(layer))
            self.where.setdefault(id(layer), "{}:{}".format(*sites.where(sys._getframe(1))))
            inputs = [self.value(bound(func, args, kwargs)["input"])]
            result = func(*args, **kwargs)
            self.add(layer, False, inputs, result)
            return result
        inputs = self.values(args, kwargs)
        result = func(*args, **kwargs)
        if not (func is Tensor.contiguous and result is args[0]):
            self.add(None, func in _RELU, inputs, result)
        return result

    def enter(self, m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.inside and id(m) not in self.where:
            file, line = sites.where(sys._getframe(1))
            self.where[id(m)] = f"{file}:{line}"
        self.inside.append(self.values(args, kwargs))

    def leave(self, m: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        inputs = self.inside.pop()
        if self.inside:
            return
        if is_alias(m) and isinstance(result, Tensor) and len(inputs) == 1:
            self.known[id(result)] = (inputs[0], result._version, result)
        else:
            self.add(m, isinstance(m, nn.ReLU), inputs, result)


class Stand(nn.Module):
    """Stands for a scripted child, which takes no hooks and no symbolic values, while its parent is looked at."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.__dict__["scripted"] = scripted

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["scripted"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["scripted"], name)


def neighbours_from_forward(model: nn.Module, example_inputs: Any) -> Adjacency:
    """Neighbours from one eval forward, and from one in training where the model runs on the inputs there, too.

    Raises:
        ValueError: The model does not run on the inputs.
    """
    args, kwargs = bind_inputs(model, example_inputs)
    try:
        found = _recorded(model, args, kwargs, training=False)
    except Exception as exc:
        raise ValueError(f"example_inputs: the model does not run on them: {type(exc).__name__}: {exc}") from exc
    try:
        return found.agree(_recorded(model, args, kwargs, training=True))
    except Exception:  # it may want targets, or more than one sample
        return found


def _recorded(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> Adjacency:
    recorder = _Recorder({id(m.weight): m for m in model.modules() if own_layer(m)})
    with undisturbed(model, training), torch.no_grad():
        for m in list(model.modules()):
            if not isinstance(m, torch.jit.ScriptModule):
                for name, child in m._modules.items():
                    if isinstance(child, torch.jit.ScriptModule):
                        m._modules[name] = Stand(child)  # comes back with the old tables, like the hooks
        for m in model.modules():
            if isinstance(m, Stand) or is_leaf(m) and not isinstance(m, torch.jit.ScriptModule):
                for table in ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
                    m.__dict__[table] = type(
                        m.__dict__[table]
                    )()  # ours alone, as where code is read; the old ones come back
                m.register_forward_pre_hook(recorder.enter, with_kwargs=True)
                m.register_forward_hook(recorder.leave, prepend=True)
        with recorder:
            result = model(*args, **kwargs)
        torchs_own = set(nn.Module().__dict__)
        kept = [v for m in model.modules() for k, v in m.__dict__.items() if k not in torchs_own]
        for t in (*_tensors(result, depth=6), *_tensors(kept, depth=3)):
            recorder.flow.leaving.add(recorder.value(t))
    found = recorder.flow.adjacency()
    found.where = recorder.where
    return found
