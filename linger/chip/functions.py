"""The chips' functions on their own fixed-point formats: integers in, the chip's integers out, for torch and numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.errors import UnsupportedError

from .platforms import LIMITS, limits_of

_T = TypeVar("_T", Tensor, np.ndarray[Any, np.dtype[Any]])

CHIPS = {platform: row.formulas for platform, row in LIMITS.items()}
"""Platform -> arithmetic, the argument ``chip`` of ``linger.ops``; mars computes as arcs."""


class Curve(NamedTuple):
    """One function of one chip.

    Attributes:
        table: Row of the native tables (``csrc/include/lgr/chip_functions.h``).
        bits: Widths of the result that the chip has.
        dtype: Type of the operand.
        exp2: Exponent of the operand: Q27, venus Q11.
    """

    table: int
    bits: tuple[int, ...]
    dtype: torch.dtype = torch.int32
    exp2: int = 27


def _curves(arcs: int | None, venus_a: int, venus: int | None) -> dict[str, Curve]:
    rows = {"venusA": Curve(venus_a, (8, 16, 32))}
    if arcs is not None:
        rows["arcs"] = rows["mars"] = Curve(arcs, (8, 32))
    if venus is not None:
        rows["venus"] = Curve(venus, (8, 16), torch.int16, 11)
    return rows


CURVES: dict[str, dict[str, Curve]] = {
    "sigmoid": _curves(0, 2, 4),
    "tanh": _curves(1, 3, 5),
    "gelu": _curves(None, 6, None),
    "swish": _curves(None, 7, None),
}
"""Function -> platform -> what the chip has."""


def find_curve(function: str, platform: str) -> Curve | None:
    """What a chip, or else its family, has of a function; None: nothing."""
    rows = CURVES[function]
    return rows.get(platform) or rows.get(limits_of(platform).family)


def curve_of(function: str, platform: str) -> Curve:
    """What a chip has of a function.

    Raises:
        ValueError: Unknown platform.
        UnsupportedError: The chip has no such function.
    """
    limits_of(platform)
    row = find_curve(function, platform)
    if row is None:
        raise UnsupportedError(f"{function}: {platform} has no such function; {', '.join(CURVES[function])} has it")
    return row


def _applied(name: str, x: Any, dtype: torch.dtype, run: Callable[[Tensor], Tensor]) -> Any:
    """``run`` on a tensor or an array of the right type; the result is of the same kind."""
    plain = str(dtype).removeprefix("torch.")
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: x must be a Tensor or a numpy array, got {type(x).__name__}")
    if (x.dtype != dtype) if isinstance(x, Tensor) else (x.dtype != np.dtype(plain)):
        raise TypeError(f"{name}: x must be {plain}, got {str(x.dtype).removeprefix('torch.')}")
    if isinstance(x, Tensor):
        return run(x)
    return run(torch.from_numpy(np.array(x, order="C"))).numpy()


def _curve(function: str, x: Any, platform: str, out_bits: int) -> Any:
    row = curve_of(function, platform)
    if out_bits not in row.bits:
        raise ValueError(f"{function}: out_bits must be one of {row.bits} on {platform}, got {out_bits!r}")
    return _applied(function, x, row.dtype, lambda t: ops.chip_function(t.to(torch.int32), row.table, out_bits))


def sigmoid(x: _T, *, platform: str, out_bits: int) -> _T:
    """The chip's sigmoid.

    Args:
        x: Q27 int32; on venus Q11 int16. Tensor or array, any shape.
        platform: ``arcs``, ``mars``, ``venusA`` or ``venus``.
        out_bits: arcs, mars: 8, 32; venusA: 8, 16, 32; venus: 8, 16.

    Returns:
        Q7 int8, Q15 int16 or Q31 int32, of the kind of ``x``.

    Raises:
        TypeError: ``x`` of another kind or dtype.
        ValueError: Unknown platform, or a width it lacks.

    Source: docs/numerics.md, "Chip functions".
    """
    result: _T = _curve("sigmoid", x, platform, out_bits)
    return result


def tanh(x: _T, *, platform: str, out_bits: int) -> _T:
    """The chip's tanh; arguments, result and errors as :func:`sigmoid`.

    Source: docs/numerics.md, "Chip functions".
    """
    result: _T = _curve("tanh", x, platform, out_bits)
    return result


def gelu(x: _T, *, platform: str, out_bits: int) -> _T:
    """The chip's GELU (erf form).

    Args:
        x: Q27 int32. Tensor or array, any shape.
        platform: ``venusA``.
        out_bits: 8, 16 or 32.

    Returns:
        Q3 int8, Q11 int16 or Q27 int32, of the kind of ``x``.

    Raises:
        TypeError: ``x`` of another kind or dtype.
        ValueError: Unknown platform, or a width it lacks.
        UnsupportedError: A platform without it.

    Source: docs/numerics.md, "Chip functions".
    """
    result: _T = _curve("gelu", x, platform, out_bits)
    return result


def swish(x: _T, *, platform: str, out_bits: int) -> _T:
    """The chip's swish, ``x * sigmoid(x)`` (torch: SiLU); arguments, result and errors as :func:`gelu`.

    Source: docs/numerics.md, "Chip functions".
    """
    result: _T = _curve("swish", x, platform, out_bits)
    return result


def _rows(name: str, x: Any, platform: str, axis: int, log: bool) -> Any:
    chip = limits_of(platform)
    if chip.family == "venus":
        raise UnsupportedError(
            f"{name}: venus calls a vendor library that no simulator has; arcs, mars, venusA have it"
        )
    if not isinstance(axis, int):
        raise TypeError(f"{name}: axis must be an int, got {type(axis).__name__}")

    def run(t: Tensor) -> Tensor:
        if not -t.dim() <= axis < t.dim():
            raise ValueError(f"{name}: axis must be in [{-t.dim()}, {t.dim() - 1}], got {axis}")
        return ops.chip_softmax(t, chip.formulas, log, axis)

    return _applied(name, x, torch.int32, run)


def softmax(x: _T, *, platform: str, axis: int = -1) -> _T:
    """The chip's softmax along one axis.

    Args:
        x: Q25 int32, tensor or array.
        platform: ``arcs``, ``mars`` or ``venusA``.
        axis: Any axis.

    Returns:
        Q15 int32, shape and kind of ``x``. Rows of more than about 256 elements close to their maximum saturate the sum: all
        results are then too large, as on the chip.

    Raises:
        TypeError: ``x`` of another kind or dtype.
        ValueError: Unknown platform, ``axis`` out of range.
        UnsupportedError: venus.

    Source: docs/numerics.md, "Softmax".
    """
    result: _T = _rows("softmax", x, platform, axis, False)
    return result


def log_softmax(x: _T, *, platform: str, axis: int = -1) -> _T:
    """The chip's log-softmax along one axis; arguments, result and errors as :func:`softmax`.

    Source: docs/numerics.md, "Softmax".
    """
    result: _T = _rows("log_softmax", x, platform, axis, True)
    return result


__all__ = [
    "CHIPS",
    "CURVES",
    "Curve",
    "curve_of",
    "find_curve",
    "gelu",
    "log_softmax",
    "sigmoid",
    "softmax",
    "swish",
    "tanh",
]
