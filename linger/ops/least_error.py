"""What exponents cost a tensor, and the state of a weight's quantizer that takes the cheaper of two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops import least_error_any as other
from linger.ops.spec import Output

_squared_errors = checks.native("squared_errors")
_least_error_step = checks.native("least_error_step")
N_EXPONENTS = 24
"""Exponents that a chip's scales have: 0..23."""


def squared_errors(x: Tensor, bits: int, rounding: int) -> Tensor:
    """``sum((x - value)**2)`` for every exponent 0..23 of a chip, value being ``x`` quantized with it.

    Args:
        x: float, any shape; NaN and infinity make every sum NaN or infinite.
        bits: Width, 2..16.
        rounding: ``QuantMode`` value.

    Returns:
        float64 ``[24]``; the order of the sums is fixed.

    Raises:
        TypeError: ``x`` is no float tensor.
        ValueError: ``bits`` or ``rounding`` out of range.

    Source: docs/numerics.md, "Least error".
    """
    checks.check_float("squared_errors", "x", x)
    checks.check_range("squared_errors", "bits", bits, 2, 16)
    checks.check_range("squared_errors", "rounding", rounding, 0, 3)
    real = checks.as_float32(x.detach())
    run = _squared_errors if x.is_cpu or x.is_meta else other.squared_errors
    sums: Tensor = run(real, 0, N_EXPONENTS, bits, rounding)
    return sums


def least_error_step(w: Tensor, out: Output) -> None:
    """Moves a weight's state to the exponent of least error: the coarsest that holds ``max|w|``, or the next finer one.

    NaN and infinity move nothing and are counted.

    Args:
        w: float weight, any shape and dense strides.
        out: Its state and width (at most 16 bits); no threshold.

    Raises:
        TypeError: ``w`` is no float tensor, ``out`` no Output.

    Source: docs/numerics.md, "Least error".
    """
    checks.check_float("least_error_step", "w", w)
    checks.check_output("least_error_step", out)
    real = checks.as_float32(w.detach())
    if w.is_cpu or w.is_meta:
        _least_error_step(real, *out.stats, out.bits)
    else:
        with torch.no_grad():
            other.least_error_step(real, tuple(out.stats), out.bits)


@checks.fake("linger::squared_errors")
def _fake_squared_errors(x: Tensor, exp2: int, count: int, bits: int, rounding: int) -> Tensor:
    return x.new_empty((count,), dtype=torch.float64)


@checks.fake("linger::least_error_step")
def _fake_least_error_step(w: Tensor, *state: Any) -> None:
    return None
