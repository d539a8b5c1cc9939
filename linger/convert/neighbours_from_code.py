"""Neighbours without example inputs: the code of the model, or of every owner that can be read, with symbolic values."""

from __future__ import annotations

import functools
import inspect
import os
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger.runtime import LAYER_FUNCTIONS, own_arithmetic
from linger.runtime.layer_calls import bound

from .convertible import is_leaf, own_layer
from .flow import METADATA, Adjacency, Flow, FlowStep, is_alias
from .neighbours_from_forward import undisturbed

__all__ = ["neighbours_from_code"]

_RELU_FUNCTIONS = {torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_}
_LIBRARIES = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def _graph(owner: nn.Module, opaque: set[int]) -> Any:
    """Graph of one owner's forward, leaf modules and opaque owners as single nodes; and the nodes kept on a module.

    Raises:
        Exception: Whatever the user's code does when it meets a symbolic value.
    """
    from .read_code import graph_of

    signature = inspect.signature(type(owner).forward)
    plain = (type(None), bool, int, float, str)
    concrete = {
        name: p.default
        for name, p in signature.parameters.items()
        if p.default is not p.empty and isinstance(p.default, plain)
    }
    return graph_of(owner, opaque, concrete or None)


def _read(owner: nn.Module, read: Any, flow: Flow, where: dict[int, str], offset: int) -> int:
    """Append the calls of one graph; returns the first free value number."""
    number: dict[Any, int] = {}
    graph, kept = read
    for node in graph.nodes:
        inputs = [number[n] for n in node.all_input_nodes]
        module = owner.get_submodule(node.target) if node.op == "call_module" else None
        if module is not None and is_alias(module) and len(inputs) == 1:
            number[node] = inputs[0]
            continue
        number[node] = offset = offset + 1
        if node.op == "placeholder":
            flow.given.add(offset)
        if node.op == "output":
            flow.leaving.update(inputs)
            continue
        reads = (
            node.target
            if node.op == "call_method"
            else node.args[1]
            if node.target is getattr and len(node.args) > 1
            else ""
        )
        if reads in METADATA:
            continue
        relu = (
            isinstance(module, nn.ReLU)
            or (node.op == "call_function" and node.target in _RELU_FUNCTIONS)
            or (node.op == "call_method" and node.target in ("relu", "relu_"))
        )
        layer = _own_call(owner, node) if node.op == "call_function" and node.target in LAYER_FUNCTIONS else None
        if layer is not None:
            flow.own.add(id(layer))
            module, inputs = layer, [number[bound(node.target, node.args, node.kwargs)["input"]]]
        flow.calls.append(FlowStep(module, relu, inputs, [number[node]]))
        if module is not None and id(module) not in where:
            frames = [f for f in _FRAME.findall(node.stack_trace or "") if not f[0].startswith(_LIBRARIES)]
            if frames:
                where[id(module)] = ":".join(frames[-1])
    flow.leaving.update(number[node] for node in kept)
    return offset


def _own_call(owner: nn.Module, node: Any) -> nn.Module | None:
    """The module whose parameters a call of a layer's function uses, where it is that layer."""

    def tensor(value: Any) -> Any:
        if getattr(value, "op", "") != "get_attr":
            return value
        return functools.reduce(getattr, value.target.split("."), owner)

    named = bound(node.target, node.args, node.kwargs)
    weight = named.get("weight")
    if weight is None or getattr(weight, "op", "") != "get_attr":
        return None
    layer = owner.get_submodule(weight.target.rpartition(".")[0])
    own = own_layer(layer) and own_arithmetic(layer, node.target, named, lambda a, b: tensor(a) is b)
    return layer if own else None


def _trace(model: nn.Module) -> Adjacency:
    flow, where, blind = Flow(), {}, {}  # type: tuple[Flow, dict[int, str], dict[str, str]]
    graphs: list[tuple[nn.Module, Any]] = []
    try:
        graphs.append((model, _graph(model, set())))
    except Exception:
        opaque: set[int] = set()
        traced: dict[int, tuple[nn.Module, Any]] = {}
        for name, owner in reversed(list(model.named_modules())):  # children before parents
            if is_leaf(owner) or type(owner) in (nn.ModuleList, nn.ModuleDict):
                continue
            try:
                graph = _graph(owner, opaque)
            except Exception as exc:
                opaque.add(id(owner))
                blind[name] = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0] if str(exc).strip() else ''}"
                flow.tainted.update(id(m) for m in _direct(owner))
                continue
            for inner in owner.modules():
                if id(inner) not in opaque and not _under_opaque(owner, inner, opaque):
                    traced.pop(id(inner), None)
            traced[id(owner)] = (owner, graph)
        graphs.extend(traced.values())
    offset = 0
    for owner, graph in graphs:
        offset = _read(owner, graph, flow, where, offset)
    found = flow.adjacency()
    found.where, found.blind = where, blind
    return found


def _direct(owner: nn.Module) -> list[nn.Module]:
    """Leaf modules that the owner's own code may call: its children, and those in its plain containers."""
    found = []
    for child in owner.children():
        if type(child) in (nn.ModuleList, nn.ModuleDict):
            found += _direct(child)
        elif is_leaf(child):
            found.append(child)
    return found


def _under_opaque(owner: nn.Module, inner: nn.Module, opaque: set[int]) -> bool:
    """Whether every way from `owner` down to `inner` passes an opaque owner (its graph then does not contain `inner`)."""
    if owner is inner:
        return False
    ways = [c for c in owner.children() if any(inner is m for m in c.modules())]
    return all(id(c) in opaque or _under_opaque(c, inner, opaque) for c in ways)


def neighbours_from_code(model: nn.Module) -> Adjacency:
    """Neighbours that hold in training and in evaluation, as far as ``torch.fx`` can read the code."""
    with undisturbed(model, training=False):
        found = _trace(model)
    with undisturbed(model, training=True):
        other = _trace(model)
    return found.agree(other)
