"""What passes between layers and directions of recurrent layers, and the format of the states that leave them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from linger import ops
from linger.chip import limits_of
from linger.ops.recurrent import Formulas, Walk
from linger.runtime import CellFormat, Format, fixed_output, info, tag


class InputRows(NamedTuple):
    """The rows of a layer's input and the steps they belong to.

    Attributes:
        offsets, counts, batch, stride: As in :class:`linger.ops.recurrent.Walk`.
        packed: The caller's packed sequence, or None.
        unbatched: The caller gave ``(T, D)``.
    """

    offsets: Tensor
    counts: Tensor
    batch: int
    stride: int
    packed: PackedSequence | None
    unbatched: bool

    def walk(self, chip: Formulas, reverse: bool) -> Walk:
        """For one direction."""
        return Walk(self.offsets, self.counts, self.batch, self.stride, chip, reverse)


def formulas_of(platform: str, gates: int) -> Formulas:
    """How a chip computes an LSTM (4 gates) or a GRU (3)."""
    chip = limits_of(platform)
    return Formulas(chip.formulas, chip.lstm_state_exp2 if gates == 4 else chip.gru_state_exp2, chip.cell_exp2)


def tag_state(value: Tensor, scale: Tensor, bits: int, codes: Tensor | None) -> Tensor:
    """One state with its format; without codes inside ``calibration()``."""
    kind = Format if bits <= 8 else CellFormat
    return tag(value, kind(scale, bits, codes, exact=codes is not None))


def both_directions(outs: list[ops.Coded]) -> ops.Coded:
    """Both directions side by side; they share their scale, NaN in one is NaN in both."""
    if len(outs) == 1:
        return outs[0]
    value, codes = (torch.cat([o[i] for o in outs], -1) for i in (0, 1))
    return ops.Coded(value, codes, outs[0].scale + (outs[1].scale - outs[1].scale))


def drop_between_layers(x: ops.Coded, y: Tensor, p: float) -> ops.Coded:
    """Dropout between layers: the scaled survivors are rounded back to the same grid."""
    fmt = info(y)
    assert fmt is not None
    return ops.quantize(F.dropout(x.value, p), fixed_output(fmt.scale, fmt.bits))


__all__ = ["InputRows", "both_directions", "drop_between_layers", "formulas_of", "tag_state"]
