"""What LSTM and GRU share: where the rows of a step are, the scale of the hidden state, its statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.spec import Coded, Output

_hidden_scale, _hidden_observe = checks.native("hidden_scale"), checks.native("hidden_observe")


class Formulas(NamedTuple):
    """How a chip computes a recurrent layer.

    Attributes:
        row: Of the native formulas, ``enum lgr_chip``.
        state_exp2: Largest exponent of the hidden state: what feeds it is shifted right only.
        cell_exp2: Exponent of an LSTM's cell state.
    """

    row: int
    state_exp2: int
    cell_exp2: int


class Walk(NamedTuple):
    """Where the rows of each step stand in ``x`` and in the result: entry ``r`` of step ``t`` is row ``offsets[t] + r * stride``.

    Attributes:
        offsets: int64 ``[T]``.
        counts: int32 ``[T]``, how many entries have this step; never rising.
        batch: Number of entries.
        stride: 1 for time-major and packed rows, T for batch-first.
        chip: The chip's formulas.
        reverse: From the last step to the first.
    """

    offsets: Tensor
    counts: Tensor
    batch: int
    stride: int
    chip: Formulas
    reverse: bool

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As the native operators take it."""
        return self.offsets, self.counts, self.chip.row, self.reverse, self.batch, self.stride


class Weights(NamedTuple):
    """Float parameters of one direction of one layer, and the quantizers of its two matrices.

    Attributes:
        w_ih: ``(G * H, D)``, G = 4 (LSTM) or 3 (GRU) gates.
        w_hh: ``(G * H, H)``.
        b_ih, b_hh: ``(G * H,)`` or None.
        ih_out, hh_out: Quantizers of the matrices, at most 8 bits.
    """

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    ih_out: Output
    hh_out: Output


class States(NamedTuple):
    """A hidden or cell state behind the last step: value ``(1, B, H)``, codes (int8 or int32) and scale."""

    value: Tensor
    codes: Tensor
    scale: Tensor


class Result(NamedTuple):
    """What one direction of one layer returns.

    Attributes:
        out: ``(..., H)``; its scale is the state's.
        h: State behind the last step.
        c: Cell state, None for GRU.
        peak: float32 ``[]``, largest state before rounding, for :func:`hidden_observe`.
        saturated: int64 ``[1]``, LSTM: cells of this pass whose ``c * f`` left 32 bits.
    """

    out: Coded
    h: States
    c: States | None
    peak: Tensor
    saturated: Tensor | None


def hidden_scale(out: Output, cap: int = 126) -> Tensor:
    """The scale of a state for one whole pass: it feeds back, so it is fixed before the pass and moved after it.

    Args:
        out: Quantizer of the state. Before any data its scale is ``2**(bits - 1)`` (TQT: the threshold's).
        cap: Largest exponent that the chip takes.

    Returns:
        float32 ``[]``, a snapshot.

    Raises:
        TypeError, ValueError: Settings that no kernel understands.

    Source: docs/numerics.md, "Recurrent layers".
    """
    checks.check_output("hidden_scale", out)
    checks.check_device("hidden_scale", out.stats.scale)
    running, is_init, stored = out.stats[:3]
    scale: Tensor = _hidden_scale(running, is_init, stored, out.threshold, out.bits, cap)
    return scale


def hidden_observe(peak: Tensor, out: Output, cap: int = 126) -> None:
    """Moves the statistics of a state after a pass, where ``out.observe`` is set.

    Args:
        peak: float32 ``[]``, the largest state of the pass; NaN and infinity are counted as skipped.
        out: Quantizer of the state.
        cap: As in :func:`hidden_scale`.
    """
    if out.observe:
        _hidden_observe(peak, *out.stats, out.threshold, out.bits, cap)


def whole(x: Tensor, chip: Formulas, reverse: bool = False) -> Walk:
    """Every step of ``x (T, B, D)``."""
    steps, batch = int(x.shape[0]), int(x.shape[1])
    offsets = torch.arange(steps, dtype=torch.int64, device=x.device) * batch
    counts = torch.full((steps,), batch, dtype=torch.int32, device=x.device)
    return Walk(offsets, counts, batch, 1, chip, reverse)


@checks.fake("linger::hidden_scale")
def _fake_hidden_scale(
    running: Tensor, is_init: Tensor, scale: Tensor, threshold: Tensor | None, bits: int, cap: int
) -> Tensor:
    return scale.new_empty(())


@checks.fake("linger::hidden_observe")
def _fake_hidden_observe(*_: Any) -> None:
    return None


__all__ = ["Formulas", "Result", "States", "Walk", "Weights", "hidden_observe", "hidden_scale", "whole"]
