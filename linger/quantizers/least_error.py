"""The exponent of least squared error: the calibration method ``mse``, and the strategy ``LEAST_ERROR``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import ops

if TYPE_CHECKING:
    from .quantizer import Quantizer

_HALF_EVEN = 2
_WIDEST = (
    16  # wider codes hold every float32 in their range: the coarsest exponent that holds the maximum loses nothing
)


def peak_and_errors(x: Tensor, quantizer: Quantizer) -> Tensor:
    """What one batch says: its largest magnitude, and what each exponent 0..23 costs; float64 ``[25]``."""
    peak = x.abs().max().double().reshape(1)
    if quantizer.bits > _WIDEST:
        return torch.cat([peak, peak.new_zeros(ops.N_EXPONENTS)])
    rounding = _HALF_EVEN if quantizer.role == "weight" else int(quantizer.rounding)
    return torch.cat([peak, ops.squared_errors(x, quantizer.bits, rounding)])


def merge_errors(a: Tensor, b: Tensor) -> Tensor:
    """Two batches together."""
    return torch.cat([torch.maximum(a[:1], b[:1]), a[1:] + b[1:]])


def _coarsest(peak: float, bits: int) -> int:
    """The coarsest exponent of a chip that holds this maximum: no other loses less at the ends."""
    e = 0
    while e < ops.N_EXPONENTS - 1 and peak < 2.0 ** (bits - 2 - e):
        e += 1
    return e


def _range(total: Tensor, exponent: int, bits: int) -> Tensor:
    """The range that stands for an exponent; of zeros the smallest, which is none."""
    return torch.where(total[0] > 1e-6, 2.0 ** (bits - 1 - exponent), 0.0)


def least_error(total: Tensor, n: int, quantizer: Quantizer) -> Tensor:
    """``mse``: of all exponents the one of least error, the coarsest of equal ones."""
    bits = quantizer.bits
    wide = bits > _WIDEST
    return _range(total, _coarsest(float(total[0]), bits) if wide else int(total[1:].argmin()), bits)


def least_error_of_two(total: Tensor, n: int, quantizer: Quantizer) -> Tensor:
    """``LEAST_ERROR``: of the coarsest exponent that holds the maximum and the next finer one that of less error."""
    bits = quantizer.bits
    e = _coarsest(float(total[0]), bits)
    finer = bits <= _WIDEST and e < ops.N_EXPONENTS - 1 and bool(total[e + 2] < total[e + 1])
    return _range(total, e + finer, bits)
