"""LSTM layers: the module (written by ``write.py``, read back in ``lstm_nodes.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from linger import ops
from linger.ops.lstm import lstm
from linger.ops.recurrent import Result, Walk, Weights

from .layer import RecurrentInt

if TYPE_CHECKING:
    pass


class LSTMInt(RecurrentInt, nn.LSTM):
    """LSTM that computes the chip's integers in forward and float gradients through time in backward.

    Takes what ``torch.nn.LSTM`` takes: padded input of either layout, packed sequences, one sequence without a batch, given
    states. The cell state has the chip's fixed format.

    Args:
        *args: As ``torch.nn.LSTM``, ``proj_size`` excepted.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        As ``torch.nn.LSTM``; output and states are float32 on power-of-two grids, tagged with their formats.

    Source: docs/numerics.md, "LSTM".
    """

    gates = 4
    op_type = "LSTMInt"

    def step(
        self, x: ops.Coded, w: Weights, scale: Tensor, out: ops.Output, walk: Walk, given: tuple[Tensor | None, ...]
    ) -> Result:
        """One direction of one layer."""
        return lstm(x, w, scale, out, walk, *given)


__all__ = ["LSTMInt"]
