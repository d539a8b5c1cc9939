"""What travels between operators: the state of a quantizer, its settings for one call, and a coded tensor."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

OBSERVE, RELU, GRAD = 1, 2, 4
"""Bits of the ``flags`` argument of the quantizing native operators (``csrc/include/lgr/observe.h``)."""
HALF_EVEN = 2
"""The rounding of weights."""


class Stats(NamedTuple):
    """The five state tensors of one quantizer, mutated by the native operators.

    Attributes:
        running: float32 ``[]``, moving maximum of the tensor before rounding, in real units.
        is_init: uint8 (or bool) ``[]``, whether a batch or a calibration has been seen.
        scale: float32 ``[]``, power of two of the last update; live, never handed out. In an average of models (EMA of the
            buffers) it is no power of two; ``running`` then says the exponent.
        n_batches: int64 ``[1]``, batches that moved the statistics.
        n_skipped: int64 ``[1]``, batches that did not, because of NaN or infinity.
    """

    running: Tensor
    is_init: Tensor
    scale: Tensor
    n_batches: Tensor
    n_skipped: Tensor


class Output(NamedTuple):
    """How one call quantizes its result.

    Attributes:
        stats: State of the quantizer.
        threshold: TQT parameter, float32 ``[1]``, log2 of the threshold; None for MOM.
        bits: Width of the codes, 2..32; int8 codes up to 8, int32 above.
        rounding: ``QuantMode`` value: floor 0, floor(v + 0.5) 1, half to even 2, ceil 3.
        clamp: Training clamp in real units; 0.0 for none.
        observe: Whether this call moves the statistics.
        relu: Whether a ReLU is fused: statistics use max(x), the lowest code is 0.
    """

    stats: Stats
    threshold: Tensor | None
    bits: int
    rounding: int
    clamp: float
    observe: bool
    relu: bool


class Coded(NamedTuple):
    """A quantized tensor.

    Attributes:
        value: float, ``codes / scale``; carries the autograd graph.
        codes: int8 or int32, same shape and strides; a constant.
        scale: float32 ``[]`` snapshot, a power of two, or NaN when an operand held a NaN.
    """

    value: Tensor
    codes: Tensor
    scale: Tensor


def flags_of(out: Output, grad: bool) -> int:
    """The ``flags`` argument for one call.

    Args:
        out: Settings of the call.
        grad: Whether a gradient mask is needed.
    """
    return OBSERVE * out.observe + RELU * out.relu + GRAD * grad


def settings_of(bits: int, rounding: int, flags: int) -> int:
    """The ``settings`` argument of ``linger::quantize``, unpacked in ``csrc/ops/state.h``: a call pays for every argument."""
    return bits | rounding << 8 | flags << 16
