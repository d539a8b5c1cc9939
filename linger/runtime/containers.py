"""Operators that a container holds are its state, not its layers: what iterates over the layers does not meet them."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

from torch import nn

from .state import state

PREFIX: Final = "_linger_qtensor_"  # names of the children that hold the state of functional operators

_CHANGES = ("append", "insert", "extend", "pop", "__setitem__", "__delitem__", "__iadd__", "__imul__")


def layers(owner: nn.Module) -> OrderedDict[str, Any]:
    """The children that the user gave a module, by name."""
    return OrderedDict((name, child) for name, child in owner._modules.items() if not name.startswith(PREFIX))


def methods(base: type[nn.Module]) -> dict[str, Any]:
    """Methods of the owner class of ``base`` with which its layers are found, counted and changed."""
    body: dict[str, Any] = {"named_children": _named_children(base)}
    if issubclass(base, (nn.Sequential, nn.ModuleList)):
        body |= {"__iter__": _iter, "__len__": _len, "__getitem__": _get_item(base)}
        body |= {name: _change(getattr(base, name)) for name in _CHANGES if hasattr(base, name)}
    elif issubclass(base, nn.ModuleDict):
        body |= {"__iter__": _names, "__len__": _len, "keys": _names, "items": _items, "values": _iter}
    # what a class of the user's defines itself stays
    return {name: method for name, method in body.items() if name == "named_children" or _is_torchs(base, name)}


def _is_torchs(base: type[nn.Module], name: str) -> bool:
    return next(c for c in base.__mro__ if name in vars(c)).__module__.startswith("torch.nn.")


def _iter(self: nn.Module) -> Iterator[nn.Module]:
    return iter([child for name, child in self._modules.items() if not name.startswith(PREFIX)])  # type: ignore[misc]


def _names(self: nn.Module) -> Iterator[str]:
    return iter(list(layers(self)))


def _items(self: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return iter(list(layers(self).items()))


def _len(self: nn.Module) -> int:
    return len(layers(self))


def _get_item(base: Any) -> Callable[..., Any]:
    def get_item(self: Any, index: Any) -> Any:
        if len(layers(self)) == len(self._modules):
            item = base.__getitem__(self, index)
        else:
            named = layers(self)
            if not isinstance(index, slice):
                return list(named.values())[index]
            chosen = list(named.items())[index]
            item = self.__class__(OrderedDict(chosen) if isinstance(self, nn.Sequential) else [m for _, m in chosen])
        if (
            isinstance(index, slice) and "_linger_name" in self.__dict__
        ):  # a part of an owner is one for as long as it lives
            item.__dict__.update({k: self.__dict__[k] for k in ("_linger_name", "_linger_settings")}, _linger_sites={})
        return item

    return functools.wraps(base.__getitem__)(get_item)


def _change(method: Any) -> Callable[..., Any]:
    """A method that numbers the children anew: the operators stand aside meanwhile."""

    @functools.wraps(method)
    def change(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        held = {name: child for name, child in self._modules.items() if name.startswith(PREFIX)}
        for name in held:
            del self._modules[name]
        try:
            return method(self, *args, **kwargs)
        finally:
            self._modules.update(held)

    return change


def _named_children(base: Any) -> Callable[..., Any]:
    def named_children(self: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """The code of a module goes through its layers; everything else (``train``, ``to``) through the operators too."""
        found = base.named_children(self)
        if state.frames and state.frames[-1].owner is self:
            return iter([(name, child) for name, child in found if not name.startswith(PREFIX)])
        return found  # type: ignore[no-any-return]

    return functools.wraps(base.named_children)(named_children)
