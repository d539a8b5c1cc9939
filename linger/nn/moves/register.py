"""Operators that move values without changing them: one way to run them on value and codes, tag the results, record them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.runtime import HANDLERS, Moved, Tape, current_tape, guarded, handles, info, resolve, state, tag

from .rows import row_of


class MoveCall(NamedTuple):
    """A call of a shape operator: the tensor it takes apart, the other arguments, what came out."""

    func: Callable[..., Any]
    x: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def bound(self, *names: str) -> dict[str, Any]:
        """The arguments behind the tensor by name, however the call gave them."""
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}


Writer = Callable[[Tape, MoveCall], None]
WRITERS: dict[Callable[..., Any], Writer] = {}


_NUMPY = {"axis": "dim", "keepdims": "keepdim"}


def torch_names(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Named arguments under torch's names: it takes numpy's, too."""
    return {_NUMPY.get(name, name): value for name, value in kwargs.items()}


def named_arguments(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a torch function by name."""
    return {**dict(zip(names, args, strict=False)), **torch_names(kwargs)}


def _always(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return True


def register_move(
    name: str,
    spellings: str,
    write: Writer,
    *,
    takes: Callable[[Tensor, tuple[Any, ...], dict[str, Any]], bool] = _always,
    runs: dict[Callable[..., Any], Callable[..., Any]] | None = None,
    codes: bool = True,
) -> None:
    """Register a shape operator: run it on value and codes, tag the results, let ``write`` record it.

    Args:
        name: Operator, as reports and tests name it.
        spellings: Its names in torch.
        write: Appends the nodes of one call; used for float tensors too where no table has another form.
        takes: Whether a call (tensor, further arguments, named ones) keeps the integers; the others stay in float.
        runs: What runs in the place of the user's spelling.
        codes: False where torch has no integer form of the operator; the codes are then recovered from the value.
    """
    instead = runs or {}

    @handles(name, spellings)
    def handler(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs:
            kwargs = torch_names(kwargs)
        x = args[0] if args else kwargs.get("input")
        fmt = info(x)
        if not isinstance(x, Tensor):
            return NotImplemented
        rest = args[1:] if args else args
        others = kwargs if args else {k: v for k, v in kwargs.items() if k != "input"}
        if fmt is None:
            row = row_of(name, func, x, rest, others)
            if row is not NotImplemented:
                return row
            if not takes(x, rest, others):
                return NotImplemented
            return record_float_move(
                func, args, kwargs, x, lambda t, a, b: write(t, MoveCall(func, a, rest, others, b))
            )
        if not takes(x, rest, others):
            return NotImplemented
        run = instead.get(func, func)
        result = run(x, *rest, **others)
        moved = None
        if fmt.codes is not None and codes:
            with torch.no_grad():
                moved = run(fmt.codes, *rest, **others)
        if isinstance(result, Tensor):
            result = (
                x if result is x else tag(result, fmt.moved(result, moved, x))
            )  # dynamo: x is what carries the format
        else:
            every = [None] * len(result) if moved is None else moved
            parts = (tag(p, fmt.moved(p, c, x)) for p, c in zip(result, every, strict=True))
            result = type(result)(parts)
        tape = current_tape()
        if tape is not None:
            write(tape, MoveCall(func, x, rest, others, result))
        if fmt.guard is not None and result is not x and isinstance(result, Tensor):
            guard = fmt.guard
            source = HANDLERS[func](func, (guard.x, *rest), others)
            if source is not NotImplemented:
                guarded(result, guard.func, source, *guard.args)
        return result

    for spelling in spellings.split():
        func = resolve(spelling)
        if func is not None:
            WRITERS[func] = write


def record_float_move(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor | Sequence[Tensor],
    write: Callable[..., None],
) -> Any:
    """Record an operator that moves the elements of float tensors, so that a layer behind it can quantize in front of it.

    Without a tape the call runs as it is, and reports do not list it: no file has it in float.

    Args:
        func, args, kwargs: The call.
        x: The tensor, or several.
        write: Appends the nodes for codes: (tape, quantized tensors ..., quantized result).
    """
    tape, sources = current_tape(), (x,) if isinstance(x, Tensor) else tuple(x)
    if tape is None and not torch.compiler.is_compiling():
        state.only_moves = True
    if tape is None or not all(t.is_floating_point() and tape.has(t) and info(t) is None for t in sources):
        return NotImplemented
    before = len(tape.nodes)
    result = tape.float_call(func, args, kwargs)
    for node in tape.nodes[before:]:
        node.call = None if node.call is None else replace(node.call, moves=True)
    if isinstance(result, Tensor) and all(result is not t for t in sources) and tape.has(result):
        recording = tape
        tape.note(result, Moved(sources, lambda inner, y: write(recording, *inner, y)), *sources)
    return result


__all__ = ["WRITERS", "MoveCall", "Writer", "named_arguments", "record_float_move", "register_move", "torch_names"]
