"""Clamps of quantized tensors in every spelling: no chip clips, but sums saturate at the wanted limit when shifted there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.nn.functional import is_number, store
from linger.nn.nodes.broadcast import write_channels
from linger.runtime import (
    NAMES,
    Format,
    Tape,
    Value,
    coded,
    current_tape,
    guarded,
    handles,
    info,
    is_small,
    scale_value,
    tag,
)

_LOWEST, _HIGHEST = -128, 127


def _limit(bound: float | None, fmt: Format, otherwise: int) -> Tensor:
    """Code of a limit: rounded half up to the tensor's grid, inside int8; a guard keeps one code step at least."""
    if bound is None:
        return torch.full_like(fmt.scale, otherwise)
    code = torch.floor(bound * fmt.scale + 0.5).clamp(_LOWEST, _HIGHEST)
    if not is_small(bound):
        return code
    return code.clamp_min(1) if bound > 0 else code.clamp_max(-1)


def clamped(x: Tensor, fmt: Format, low: float | None, high: float | None, *, open_ends: bool = False) -> Tensor:
    """``min(max(x, low), high)`` in the format of ``x``, the limits rounded to its grid.

    Args:
        x, fmt: An 8-bit tensor and its format.
        low, high: Limits in real units, ``low <= high``; None for none.
        open_ends: No gradient at the limits themselves (hardtanh), rather than one there (clamp).

    Source: docs/numerics.md, "Clamp".
    """
    if not fmt.exact:
        return tag(torch.clamp(x, low, high), fmt.like(None))
    limits = _limit(low, fmt, _LOWEST), _limit(high, fmt, _HIGHEST)
    codes: Tensor | None
    if open_ends and low == 0 and high is not None and float(high).is_integer():  # ReLU6: one pass, one bit per element
        y, codes = ops.relu(coded(x, fmt), float(high))[:2]
    else:
        y, codes = _cut(x, fmt, limits, open_ends and low is not None, open_ends and high is not None)
    y = tag(y, fmt.like(codes))
    tape = current_tape()
    if tape is not None:
        _write(tape, x, y, int(limits[0]), int(limits[1]), scale_value(fmt))
    return y


def _cut(
    x: Tensor, fmt: Format, limits: tuple[Tensor, Tensor], open_low: bool, open_high: bool
) -> tuple[Tensor, Tensor | None]:
    """Value and codes between two codes."""
    lo, hi = ((limit / fmt.scale).to(x.dtype) for limit in limits)
    below = x <= lo if open_low else x < lo
    above = x >= hi if open_high else x > hi
    y = torch.where(below, lo, torch.where(above, hi, x))  # keeps no x for backward: it may be overwritten in place
    codes = None if fmt.codes is None else torch.clamp(fmt.codes, *(limit.to(fmt.codes.dtype) for limit in limits))
    return y, codes


def _write(tape: Tape, x: Tensor, y: Tensor, low: int, high: int, scale: float) -> None:
    """Record a clamp to codes: ``min(x, c)`` is ``saturate(x + (127 - c)) - (127 - c)``, a maximum goes to -128; 0 is a Relu."""
    shifts = []
    if high < _HIGHEST:
        shifts += [_HIGHEST - high, high - _HIGHEST]
    if low > _LOWEST and low != 0:
        down = _LOWEST - low
        shifts = [*shifts[:-1], (shifts[-1] if shifts else 0) + down, -down]
    value: Tensor | Value = x
    if low == 0:
        value = tape.value("relu") if shifts else y
        tape.node("Relu", [x], [value])
    elif not shifts:
        tape.alias(y, x)
    one = np.ones(1, np.int8)
    for i, shift in enumerate(shifts):
        target: Tensor | Value = y if i == len(shifts) - 1 else tape.value("clip")
        write_channels(tape, value, y.shape, one, np.array(shift, np.int32), (scale, 1.0, scale), target, "clip")
        value = target


def _bounds(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Lower limit, upper limit and in-place flag of a clamp-like call; None for an open side."""
    rest = list(args[1:])
    if name == "relu6":
        return 0, 6, bool(rest[0] if rest else kwargs.get("inplace", False))
    if name.startswith("clamp_min"):
        return (rest[0] if rest else kwargs.get("min")), None, name.endswith("_")
    if name.startswith("clamp_max"):
        return None, (rest[0] if rest else kwargs.get("max")), name.endswith("_")
    hard = "hardtanh" in name
    low = rest[0] if rest else kwargs.get("min_val", kwargs.get("min", -1 if hard else None))
    high = rest[1] if len(rest) > 1 else kwargs.get("max_val", kwargs.get("max", 1 if hard else None))
    in_place = bool(rest[2] if len(rest) > 2 else kwargs.get("inplace", False))
    return low, high, in_place or name.endswith("_")


_CLAMPS = """F.relu6 F.hardtanh F.hardtanh_ torch.clamp Tensor.clamp torch.clip Tensor.clip torch.clamp_ Tensor.clamp_
    torch.clip_ Tensor.clip_ torch.clamp_min Tensor.clamp_min torch.clamp_min_ Tensor.clamp_min_ torch.clamp_max
    Tensor.clamp_max torch.clamp_max_ Tensor.clamp_max_"""


@handles("clamp", _CLAMPS)
def _clamp_call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0] if args else kwargs.get("input")
    fmt, name = info(x), NAMES[func]
    if fmt is None or not isinstance(x, Tensor) or fmt.bits > 8 or kwargs.get("out") is not None:
        return NotImplemented
    low, high, in_place = _bounds(name, args, kwargs)
    given = [v for v in (low, high) if v is not None]
    if not given or not all(is_number(v) for v in given) or len(given) == 2 and low > high:
        return NotImplemented
    y = clamped(x, fmt, low, high, open_ends=name in ("relu6", "hardtanh", "hardtanh_"))
    if is_small(low) or is_small(high):
        y = guarded(y, torch.clamp, x, low, high)
    return store(x, y) if in_place else y


__all__ = ["clamped"]
