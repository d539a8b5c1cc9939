"""What goes into a model and comes out of it: the arguments of one call, and tensors in whatever holds them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["arguments", "copied", "tensors_in"]

_HOLDERS = "tuples, lists, dicts and dataclasses"


def arguments(model: nn.Module, args: Any, kwargs: dict[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one call.

    A dict at the end of a tuple is keywords, as torch's exporter has it, when all its keys are parameters that are still
    free; otherwise, and where ``kwargs`` says the keywords, it is a positional argument.

    Raises:
        TypeError: ``kwargs`` is no dict, or stands next to keywords in ``args``.
    """
    if kwargs is not None:
        if not isinstance(kwargs, dict) or isinstance(args, dict):
            got = type(kwargs if not isinstance(kwargs, dict) else args).__name__
            raise TypeError(f"export: kwargs must be a dict, and args next to it positional, got {got}")
        return args if isinstance(args, tuple) else () if args is None else (args,), dict(kwargs)
    if isinstance(args, dict):
        return (), dict(args)
    if not isinstance(args, tuple):
        return (args,), {}
    if not args or type(args[-1]) is not dict:
        return args, {}
    signature, last = inspect.signature(model.forward), args[-1]
    named = all(key in signature.parameters for key in last) and _binds(signature, args[:-1], last)
    return (args[:-1], last) if named and (last or not _binds(signature, args, {})) else (args, {})


def _binds(signature: inspect.Signature, positional: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    try:
        signature.bind(*positional, **keywords)
    except TypeError:
        return False
    return True


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a result, in order, in any nesting of tuples, lists, dicts and dataclasses; the rest is passed over.

    Raises:
        TypeError: Something else holds tensors.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from tensors_in(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from tensors_in(v)
    elif _is_record(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    else:
        _refuse_hidden(value, "the model returned")


def copied(value: Any, bind: Callable[[Tensor], Tensor]) -> Any:
    """An argument in the same nesting with fresh tensors, each announced to ``bind``.

    Raises:
        TypeError: A numpy array, or something that holds tensors out of sight: they would not become inputs of the file.
    """
    if isinstance(value, Tensor):
        return bind(value.detach().clone())
    if type(value) is dict:
        return {k: copied(v, bind) for k, v in value.items()}
    if isinstance(value, MutableMapping):
        twin = copy.copy(value)
        twin.update((k, copied(v, bind)) for k, v in list(value.items()))
        return twin
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(copied(v, bind) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(copied(v, bind) for v in value)
    if _is_record(value):
        twin = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(twin, field.name, copied(getattr(value, field.name), bind))
        return twin
    if isinstance(value, np.ndarray):
        raise TypeError("export: an argument is a numpy array, and models take tensors: torch.from_numpy makes one")
    _refuse_hidden(value, "an argument is")
    return value


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _refuse_hidden(value: Any, what: str) -> None:
    inside = value if isinstance(value, (set, frozenset)) else getattr(value, "__dict__", {}).values()
    if isinstance(value, Iterator) or any(isinstance(v, Tensor) for v in inside):
        raise TypeError(
            f"export: {what} a {type(value).__name__}, whose tensors have no order: use {_HOLDERS} of tensors"
        )
