"""What a float operator becomes in the file: standard ONNX nodes behind a Dequant, from a closed list of spellings.

The list is the union of the tables in ``write_math``, ``write_activation``, ``write_shape``, ``write_layers`` and
``write_recurrent``; plain shape operators share their writers with the quantized ones in ``linger.nn``.
``islands*.py`` holds the inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger.errors import ExportError
from linger.nn.moves.register import WRITERS, MoveCall
from linger.runtime import Tape, info, tensors

from . import write_activation, write_layers, write_math, write_recurrent, write_shape  # noqa: F401  each fills its part of the table
from .write_call import CODES, TABLE, Call, Value, in_file


def write_float(
    tape: Tape, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> bool:
    """Append what a float call is in the file and bind its results.

    Args:
        tape: The recording.
        func: Torch function that has just run, under any of its spellings.
        args: Its positional arguments; at least one tensor among all arguments flows in the graph.
        kwargs: Its named arguments.
        result: What it returned.

    Returns:
        Whether the call is on the list. Where it is not, nothing is bound.

    Raises:
        ExportError: The operator is on the list, but not in this form; says what is in the way.

    Source: docs/numerics.md, "Files".
    """
    outputs = list(tensors([result]))
    given = list(tensors([*args, *kwargs.values()]))
    if any(t is g for t in outputs for g in given):
        if not _in_place(func, kwargs):
            return True  # nothing happened: ``contiguous``, ``to`` and their like
        if any(t.is_inference() for t in outputs):
            _refuse_overwriting(tape, func, outputs)
            return True
    if func in TABLE:
        return _from_table(tape, func, args, kwargs, result)
    return _from_shapes(tape, func, args, kwargs, result)


def _in_place(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", str(func))
    own = name.endswith("_") and not name.endswith("__") or name.startswith("__i") and name != "__invert__"
    return own or bool(kwargs.get("inplace")) or kwargs.get("out") is not None


def _refuse_overwriting(tape: Tape, func: Callable[..., Any], outputs: list[Tensor]) -> None:
    """Inference tensors count no versions: nobody knows which other tensors saw the write."""
    for t in outputs:
        name = getattr(func, "__name__", str(func))
        tape.poison(t, f"in-place `{name}` on a float tensor has no form in the file in inference mode: {tape.where()}")


def _from_table(
    tape: Tape, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> bool:
    writer, signatures = TABLE[func]
    named = next((n for n in (s.bind(args, kwargs) for s in signatures) if n is not None), None)
    if named is None:
        return False
    call = Call(tape, func, named, result)
    wrong = next((t.dtype for t in tensors([result]) if in_file(t.dtype) not in CODES), None)
    if wrong is not None:
        call.refuse(f"its result is {wrong}; islands hold float32, int32, int64 and bool")
    written = writer(call)
    if written is None:
        return False
    values = [written] if isinstance(written, (Value, np.ndarray)) else written
    results = [result] if isinstance(result, Tensor) else [t for t in result if t is not None]
    for t, value in zip(results, values, strict=True):
        tape.bind(t, tape.constant(value, "constant") if isinstance(value, np.ndarray) else value.name)
    return True


def _from_shapes(
    tape: Tape, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> bool:
    """Reshaping and moving axes: the writer that quantized tensors use."""
    writer = WRITERS.get(func)
    x = args[0] if args else kwargs.get("input")
    if writer is None or not isinstance(x, Tensor) or info(x) is not None:
        return False
    rest = args[1:] if args else args
    others = kwargs if args else {k: v for k, v in kwargs.items() if k != "input"}
    if any(isinstance(v, torch.dtype) for v in [*rest, *others.values()]):
        raise ExportError(f"a view of the bits as another type has no form in the file: {tape.where()}")
    writer(tape, MoveCall(func, x, rest, others, result))
    return True
