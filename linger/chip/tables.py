"""The numbers inside the chips' functions, as the kernels have them: for files that compute them in standard operators."""

from __future__ import annotations

from typing import NamedTuple

import torch

from linger import _C, ops

from .functions import curve_of
from .platforms import limits_of


class Segments(NamedTuple):
    """One chip function: ``sat(((slope[s] * max(x, least) + half) >> shift[s]) + icpt[s])``.

    Attributes:
        limits: Largest |x| of the segments 0..14.
        slope, icpt, shift: 32 each, first those of x >= 0.
        half: Added before the shift.
        least: Smallest operand.
        bits: Width of the result.
    """

    limits: tuple[int, ...]
    slope: tuple[int, ...]
    icpt: tuple[int, ...]
    shift: tuple[int, ...]
    half: int
    least: int
    bits: int


class Exponential(NamedTuple):
    """Constants of the softmax.

    Attributes:
        log2e: log2(e) in Q29.
        powers: Polynomial of 2^f on (-1, 0] in Q23, highest power first.
        logarithms: ln(1 + i / 512) in Q16.
        ln2: ln(2) in Q16.
    """

    log2e: int
    powers: tuple[int, ...]
    logarithms: tuple[int, ...]
    ln2: int


def segments_of(function: str, platform: str) -> Segments:
    """The straight pieces of a function on a chip.

    Raises:
        ValueError: Unknown platform.
        UnsupportedError: The chip has no such function.

    Source: docs/numerics.md, "Chip functions".
    """
    limits, slope, icpt, shift, half, least, bits = _C.segments(curve_of(function, platform).table)
    return Segments(limits, slope, icpt, shift * 2, half, least, bits)


def curve_table(function: str, platform: str, x_bits: int, exp2: int, bits: int) -> tuple[int, ...]:
    """The function of every code of ``x_bits`` (8 or 16) bits at scale ``2**exp2``, from the lowest; ``bits`` wide.

    Source: docs/numerics.md, "Chip functions".
    """
    half = 1 << (x_bits - 1)
    codes = torch.arange(-half, half, dtype=torch.int8 if x_bits == 8 else torch.int16)
    found: list[int] = ops.activation_codes(codes, exp2, curve_of(function, platform).table, bits).tolist()
    return tuple(found)


def exponential_terms(platform: str, exp2: int, log: bool) -> tuple[int, ...]:
    """Softmax terms in Q23 of 0, -1 .. -255 steps of ``2**-exp2``, exp2 <= 25.

    Source: docs/numerics.md, "Softmax".
    """
    once = rounds_once(platform, log)
    return tuple(_C.exponential(once, max(-step << 25 - exp2, -(1 << 31))) for step in range(256))


def rounds_once(platform: str, log: bool) -> bool:
    """Whether the last step of the exponential's polynomial is rounded once; else to Q23 and then down."""
    return log or limits_of(platform).formulas == 1


def exponential_numbers() -> Exponential:
    """Constants of softmax and log-softmax."""
    return Exponential(*_C.exponential_numbers())


def divider(d: int) -> tuple[int, int]:
    """(R, s): the engine divides by ``d`` as ``floor(x * R / 2**s + 1/2)``.

    Raises:
        ValueError: ``d`` outside 1..2^20.

    Source: docs/numerics.md, "AvgPool2dInt".
    """
    return _C.divider(d)


def layer_norm_eps(exp2: int, n: int) -> int:
    """What is added to n^2 times the variance of rows of ``n`` codes at scale ``2**exp2``.

    Source: docs/numerics.md, "LayerNormInt".
    """
    return _C.layer_norm_eps(exp2, n)


__all__ = [
    "Exponential",
    "Segments",
    "curve_table",
    "divider",
    "exponential_numbers",
    "exponential_terms",
    "layer_norm_eps",
    "rounds_once",
    "segments_of",
]
