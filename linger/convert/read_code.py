"""Reads the code of one owner with symbolic values, on a shadow of its module tree.

``torch.fx.Tracer.trace`` replaces ``nn.Module.__call__`` for the whole process while it runs, so that models in other
threads fail. Here the user's modules stand in for themselves as shallow copies: leaves record their call, owners run their
code. Hooks do not run: they may compute, log or store, and take no symbolic values.
"""

from __future__ import annotations

import builtins
import copyreg
import functools
import inspect
import math
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.fx import Proxy
from torch.nn.utils import rnn

from linger.runtime import derive

from .convertible import is_leaf, own_layer
from .neighbours_from_forward import Stand

__all__ = ["graph_of"]

_WAYS_TO_RNN = (rnn, nn.utils, nn, torch)  # modules from which a forward may name the functions of packed sequences


def _takes_no_proxies(value: Any) -> bool:
    """Whether a function looks into its arguments, which symbolic values do not bear."""
    return getattr(value, "__module__", "") == "math" or (
        isinstance(value, types.FunctionType) and value.__module__ == rnn.__name__ and value.__name__ in rnn.__all__
    )


class _Reader(torch.fx.Tracer):
    """Makes the nodes; nothing in torch is replaced."""

    record_stack_traces = True

    def __init__(self, owner: nn.Module, opaque: set[int]) -> None:
        super().__init__()
        self.opaque = opaque
        self.shadows: dict[int, nn.Module] = {}
        self.graph = torch.fx.Graph(tracer_cls=type(self))
        self.tensor_attrs = {}
        names = {id(m): name for name, m in reversed(list(owner.named_modules(remove_duplicate=False)))}
        for m in owner.modules():
            self.shadows[id(m)] = self._stand_in(m, names[id(m)], m is owner)
        for m in owner.modules():
            self._connect(m, self.shadows[id(m)])
        self.root = self.shadows[id(owner)]
        self.root_module_name = type(owner).__name__

    def read(self, concrete: dict[str, Any] | None) -> tuple[torch.fx.Graph, set[torch.fx.Node]]:
        """The graph, and the nodes whose values stay behind on a module."""
        own = self.root.__dict__.get("forward")
        forward = type(self.root).forward if own is None else own.__func__
        function, args = self.create_args_for_root(forward, True, concrete)
        self.create_node("output", "output", (self.create_arg(function(*args)),), {})
        kept: set[torch.fx.Node] = set()
        torchs_own = set(nn.Module().__dict__)
        for shadow in self.shadows.values():
            _find_nodes([v for k, v in shadow.__dict__.items() if k not in torchs_own], kept, 3)
        return self.graph, kept

    # -- shadows

    def _stand_in(self, m: nn.Module, name: str, root: bool) -> nn.Module:
        leaf = not root and (is_leaf(m) or id(m) in self.opaque)
        if leaf and isinstance(m, torch.jit.ScriptModule):
            shadow: nn.Module = _ScriptedLeaf(m)
        else:
            cls = _leaf_class(type(m)) if leaf else type(m)
            shadow = nn.Module.__new__(cls)
            shadow.__dict__.update(m.__dict__)
            for slot in copyreg._slotnames(type(m)):  # type: ignore[attr-defined]
                if hasattr(m, slot):
                    setattr(shadow, slot, getattr(m, slot))
        if leaf:
            shadow.__dict__["_linger_call"] = functools.partial(self._call, name)
        return shadow

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proxy:
        return self.create_proxy("call_module", name, args, kwargs)

    def _connect(self, m: nn.Module, shadow: nn.Module) -> None:
        """Let everything that a shadow refers to be shadows too."""
        if isinstance(shadow, _ScriptedLeaf):
            return
        own = shadow.__dict__
        for table in ("_parameters", "_buffers"):
            own[table] = dict(own[table])
        own["_modules"] = {k: None if c is None else self.shadows[id(c)] for k, c in m._modules.items()}
        torchs_own = set(nn.Module().__dict__)
        for key in [k for k in own if k not in torchs_own]:
            own[key] = self._mapped(own[key], 3)
        if "_linger_call" in own:
            return
        if own_layer(m):
            own["_check_input_dim"] = _no_check  # BatchNorm compares sizes, which symbolic values do not bear
        for key, function in _functions(type(m)).items():
            readable = self._readable(function)
            if readable is not function and key not in own:
                own[key] = types.MethodType(readable, shadow)
        if "_orig_mod" in m._modules and hasattr(m, "_torchdynamo_orig_callable"):  # torch.compile(module)
            own["forward"] = own["_modules"]["_orig_mod"]
        own["_compiled_call_impl"] = functools.partial(
            self._run, shadow
        )  # in front of hooks, and of what m.compile() made

    def _run(self, owner: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """An owner's code; its own hooks, which may replace values, stand in the graph as steps that nothing is known of."""
        if owner._forward_pre_hooks:
            args, kwargs = self._hooked(args), self._hooked(kwargs)
        result = owner.forward(*args, **kwargs)
        return self._hooked(result) if owner._forward_hooks else result

    def _hooked(self, value: Any) -> Any:
        return torch.fx.node.map_aggregate(
            value, lambda v: self.create_proxy("call_function", _hook, (v,), {}) if isinstance(v, Proxy) else v
        )

    def _mapped(self, value: Any, depth: int) -> Any:
        if isinstance(value, nn.Module):
            return self.shadows.get(id(value), value)
        if isinstance(value, types.MethodType) and id(value.__self__) in self.shadows:
            return types.MethodType(value.__func__, self.shadows[id(value.__self__)])
        if depth and type(value) in (list, tuple):
            return type(value)(self._mapped(v, depth - 1) for v in value)
        return {k: self._mapped(v, depth - 1) for k, v in value.items()} if depth and type(value) is dict else value

    # -- functions that take no symbolic values: `math`, packed sequences, and those marked with torch.fx.wrap

    def _readable(self, function: types.FunctionType) -> types.FunctionType:
        marked = getattr(torch.fx._symbolic_trace, "_wrapped_fns_to_patch", {})
        names = function.__code__.co_names
        packs = any(name in names for name in rnn.__all__)
        known, replaced = function.__globals__, {}
        for name in names:
            value = known.get(name, getattr(builtins, name, None))
            if isinstance(value, types.ModuleType) and (value is math or (packs and value in _WAYS_TO_RNN)):
                replaced[name] = _View(value, self._recorded)
            elif callable(value) and (_takes_no_proxies(value) or (id(known), name) in marked):
                replaced[name] = self._recorded(value)
        if not replaced:
            return function
        code, defaults, closure = function.__code__, function.__defaults__, function.__closure__
        made = types.FunctionType(code, {**known, **replaced}, function.__name__, defaults, closure)
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    def _recorded(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if any(isinstance(v, Proxy) for v in (*args, *kwargs.values())):
                return self.create_proxy("call_function", function, args, kwargs)
            return function(*args, **kwargs)

        return call


class _View:
    """A module whose functions that take no symbolic values are recorded instead of run."""

    def __init__(self, module: types.ModuleType, recorded: Callable[[Any], Any]) -> None:
        self._module, self._recorded = module, recorded

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, types.ModuleType) and value in _WAYS_TO_RNN:
            return _View(value, self._recorded)
        return self._recorded(value) if callable(value) and _takes_no_proxies(value) else value


def _no_check(value: Any) -> None:
    """Stands for a check of sizes."""


def _hook(value: Any) -> Any:
    """Stands for the hooks of an owner."""
    return value


def _call_leaf(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return self.__dict__["_linger_call"](args, kwargs)


_leaf_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _leaf_class(cls: type[nn.Module]) -> type[nn.Module]:
    if cls not in _leaf_classes:
        _leaf_classes[cls] = derive(cls.__name__, (cls,), {"__call__": _call_leaf, "__module__": cls.__module__})
    return _leaf_classes[cls]


class _ScriptedLeaf(Stand):
    __call__ = _call_leaf


def _functions(cls: type) -> dict[str, types.FunctionType]:
    """Methods written by the user, as an instance sees them."""
    found: dict[str, types.FunctionType] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("torch."):
            found.update({k: v for k, v in vars(base).items() if inspect.isfunction(v) and not k.startswith("__")})
    return found


def _find_nodes(value: Any, into: set[torch.fx.Node], depth: int) -> None:
    if isinstance(value, Proxy):
        into.add(value.node)
    elif depth and isinstance(value, (list, tuple, set)):
        for v in value:
            _find_nodes(v, into, depth - 1)
    elif depth and isinstance(value, dict):
        for v in value.values():
            _find_nodes(v, into, depth - 1)


def graph_of(
    owner: nn.Module, opaque: set[int], concrete: dict[str, Any] | None
) -> tuple[torch.fx.Graph, set[torch.fx.Node]]:
    """The calls in an owner's forward, leaf modules and opaque owners as single nodes; and the nodes it keeps on a module.

    Args:
        owner: Left as it is, except that code which writes into a tensor of it does so.
        opaque: ids of owners whose code cannot be read.
        concrete: Values of arguments that are no tensors.

    Raises:
        Exception: Whatever the user's code does when it meets a symbolic value.
    """
    if "forward" in owner.__dict__:
        raise TypeError("it is replaced on the instance")
    return _Reader(owner, opaque).read(concrete)
