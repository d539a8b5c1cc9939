"""Pairs that other ways through the model may break: a BatchNorm that never ran may read the same layer's result."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from linger.runtime import base_class

from .convertible import is_leaf
from .flow import Adjacency
from .patterns import names_of

__all__ = ["drop_doubtful"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_DYNAMIC = {
    "getattr", "_modules", "children", "named_children", "modules", "named_modules", "get_submodule", "__getattr__", "__dict__",
}  # fmt: skip


def drop_doubtful(model: nn.Module, found: Adjacency) -> None:
    """Take out of ``found`` every pair whose layer may feed another normalisation where other arguments or attributes say so.

    Domains, switchable widths, clean and adversarial statistics: the code chooses among several normalisations behind one
    layer, and the ways that were seen met one of them. A normalisation that never ran, over as many channels, which the code
    around the pair names, is taken for such a choice.
    """
    names = names_of(model)
    first_names = {id(m): n for n, m in reversed(names.items())}
    idle = [(n, m) for n, m in names.items() if isinstance(m, _NORMS) and id(m) not in found.visited]
    idle = [(n, m) for n, m in idle if _runner(names, n.split(".")[:-1]) not in found.blind]  # unread, not idle
    for pair in list(found.pairs):
        layer, norm, _ = pair
        if not isinstance(norm, _NORMS) or not idle:
            continue
        own = (first_names[id(layer)], first_names[id(norm)])
        rivals = [n for n, m in idle if _channels(m) == _channels(norm) and any(_rival(names, n, o) for o in own)]
        if rivals:
            found.pairs.remove(pair)
            found.doubts.append(
                f"{own[1]}: stays a layer of its own behind {own[0]}, because {', '.join(rivals)} did not run and may take the "
                "same result on another way through the model"
            )


def _channels(norm: Any) -> int:
    return int(norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features)


def _rival(names: dict[str, nn.Module], idle: str, own: str) -> bool:
    """Whether the code of the nearest common owner may run ``idle`` in the place of ``own``: it comes first in what is called."""
    a, b = idle.split("."), own.split(".")
    depth = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    shared = _runner(names, a[:depth])
    owner, depth = names[shared], shared.count(".") + 1 if shared else 0
    if (
        is_leaf(owner)
        or depth == len(a)
        or isinstance(owner, nn.Sequential)
        and type(owner).forward is nn.Sequential.forward
    ):
        return False
    return _comes_first(names, a, depth + 1) and not {a[depth], *_DYNAMIC}.isdisjoint(_words(base_class(owner)))


def _runner(names: dict[str, nn.Module], path: list[str]) -> str:
    """Name of the nearest module from ``path`` upwards that runs what it holds: lists do not."""
    while path and isinstance(names[".".join(path)], (nn.ModuleList, nn.ModuleDict)):
        path = path[:-1]
    return ".".join(path)


def _comes_first(names: dict[str, nn.Module], path: list[str], depth: int) -> bool:
    """Whether nothing with values stands in front of the module at ``path`` inside the child that its owner calls."""
    for i in range(depth, len(path)):
        holder = names[".".join(path[:i])]
        if isinstance(holder, (nn.ModuleList, nn.ModuleDict)):
            continue
        if next(iter(holder._modules), "") != path[i]:
            return False
    return True


def _words(cls: type) -> Iterator[str]:
    """Names that the methods of a user's class mention; ``__init__`` mentions everything and runs nothing."""
    for base in cls.__mro__:
        if base.__module__.startswith("torch."):
            continue
        for name, value in vars(base).items():
            function = getattr(value, "__func__", value)
            if isinstance(function, FunctionType) and name != "__init__":
                yield from _mentioned(function.__code__)


def _mentioned(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _mentioned(const)
        elif isinstance(const, str):
            yield const
