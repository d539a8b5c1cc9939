"""The function mode: every torch function that user code calls inside a converted model passes here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import islands
from .spellings import HANDLERS, SILENT
from .state import state
from .tag import info


def tensors(args: Iterable[Any]) -> Iterable[Tensor]:
    """Tensors among arguments, one level of lists and tuples deep."""
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, (list, tuple)):
            yield from (t for t in a if isinstance(t, Tensor))


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
        if state.float_depth:
            return func(*args, **kwargs)
        handler = HANDLERS.get(func)
        tape = state.tape
        if handler is not None:
            result = handler(func, args, kwargs)
            if result is not NotImplemented:
                return result
        if func in SILENT:
            return func(*args, **kwargs) if tape is None else tape.read(func, args, kwargs)
        if any(info(t) is not None for t in tensors([*args, *kwargs.values()])):
            islands.record(func, sys._getframe(1))
        if tape is not None:
            return tape.float_call(func, args, kwargs)
        return func(*args, **kwargs)
