"""The function mode: every torch function that user code calls inside a converted model passes here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from linger import ops

from . import islands
from .ahead import Ahead, settled, unchanged
from .guards import unrounded
from .non_finite import watch
from .spellings import HANDLERS, IN_PLACE, OPERATOR_OF, SILENT
from .state import FLOAT_OPERATORS, StaysFloat, forget, state
from .tag import info, tensors


def written(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a call without a handler overwrites: in-place methods, ``out=`` and ``inplace=True``."""
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    in_place = func in IN_PLACE
    if not torch.compiler.is_compiling():  # it knows no names; functional forms with a positional flag are rare
        in_place |= getattr(func, "__module__", "") == "torch.nn.functional" and any(a is True for a in args)
    target = args[0] if args else kwargs.get("input")
    return target if isinstance(target, Tensor) and (in_place or kwargs.get("inplace") is True) else None


_KEPT_CLEAR: dict[Any, Any] = {
    torch.conv2d: ops.float_conv2d
}  # the same function, without a fault of torch in its gradients


def _reciprocal_times(y: Tensor, x: Any) -> Any:
    return y.reciprocal() * x


# Methods written in Python, which dynamo does not find among the keys of a dictionary, and the functions that do the same.
_PYTHON_METHODS: tuple[tuple[Any, Any], ...] = (
    (Tensor.unflatten, torch.unflatten),
    (Tensor.__rsub__, torch.rsub),
    (Tensor.__pow__, torch.pow),
    (Tensor.__ipow__, Tensor.pow_),
    (Tensor.__rdiv__, _reciprocal_times),
    (Tensor.__rtruediv__, _reciprocal_times),
)


def _switched_off(func: Callable[..., Any]) -> bool:
    """Whether the settings of the running model keep this operator in float."""
    frames = state.frames
    off = frames[-1].owner.__dict__.get(FLOAT_OPERATORS) if frames else None
    return off is not None and OPERATOR_OF[func] in off


class Interception(TorchFunctionMode):
    """Dispatches torch functions to the handlers of quantized operators; the rest runs in float and is recorded."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            for method, same in _PYTHON_METHODS:
                if func is method:
                    func = same
            if func is Tensor.__rmatmul__:
                func, args = torch.matmul, args[::-1]
        elif types and Ahead in types:
            same = unchanged(func, args)
            if same is not None:
                return same
            args, kwargs = settled(func, args, kwargs)
        if state.float_depth:
            return _KEPT_CLEAR.get(func, func)(*args, **kwargs)
        handler = HANDLERS.get(func)
        tape = state.tape
        if handler is not None and not _switched_off(func):
            try:
                result = handler(func, args, kwargs)
            except StaysFloat:
                result = NotImplemented
            if result is not NotImplemented:
                if state.only_moves:  # of a call inside the handler
                    state.only_moves = False
                return result
        if func in SILENT:
            return func(*args, **kwargs) if tape is None else tape.read(func, args, kwargs)
        traced = torch.compiler.is_compiling()
        formats = [fmt for fmt in map(info, tensors([*args, *kwargs.values()])) if fmt is not None]
        flowing = False
        if not traced:
            flowing = bool(formats) or any(map(islands.flows, tensors([*args, *kwargs.values()])))
            if formats:
                islands.note_island(func, sys._getframe(1))
            elif flowing and not state.only_moves:
                islands.record_float(func, sys._getframe(1))
            state.only_moves = False
        target = written(func, args, kwargs)
        if target is None and any(fmt.guard is not None for fmt in formats):
            args, kwargs = unrounded(args), {k: unrounded(v) for k, v in kwargs.items()}
        run = _KEPT_CLEAR.get(func, func)
        result = run(*args, **kwargs) if tape is None else tape.float_call(func, args, kwargs)
        if not traced and tape is None and target is None:
            watch(func, args, kwargs, result, sys._getframe(1))
        if flowing:
            islands.let_flow(result)
        if target is not None:
            forget(target)
        elif torch.compiler.is_compiling():
            for t in args:  # what is handed back as it came is, to dynamo, another tensor without a format
                if result is t:
                    return t
        return result
