"""Float recurrent layers with other parameters than their own: for ``calibration()`` and the constrained stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .layers import CONSTRAINED, Constrained


class FloatRows(NamedTuple):
    """Layout of the rows: a packed sequence, or a padded tensor (``unbatched``: ``(T, D)``)."""

    packed: PackedSequence | None
    batch_first: bool
    unbatched: bool


def run_float(
    gates: int,
    x: Tensor,
    rows: FloatRows,
    given: list[Tensor] | None,
    parameters: Sequence[Tensor | None],
    biased: bool,
    bidirectional: bool,
    num_layers: int = 1,
    dropout: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """What torch's layer of these parameters computes.

    Args:
        gates: 4 for LSTM, 3 for GRU.
        x: Rows: packed data, or the padded tensor.
        rows: Their layout.
        given: States ``(layers * directions, B, H)`` in the order of the rows, or None.
        parameters: As torch lists them: w_ih, w_hh (b_ih, b_hh) per layer and direction.
        biased: Whether there are biases.
        bidirectional, num_layers: As in torch.
        dropout: Probability between layers, 0 outside training.

    Returns:
        Output rows and the last states.
    """
    run: Any = torch._VF.lstm if gates == 4 else torch._VF.gru
    weights = [p for p in parameters if p is not None]
    x = x if x.dtype == weights[0].dtype else x.to(weights[0].dtype)
    x = x.unsqueeze(1) if rows.unbatched else x
    if given is None:
        batch = x.shape[0 if rows.batch_first else 1] if rows.packed is None else int(rows.packed.batch_sizes[0])
        zeros = x.new_zeros(num_layers * (2 if bidirectional else 1), batch, weights[1].shape[1])
        given = [zeros] * (gates - 2)
    states: Any = [s.to(x.dtype) for s in given]
    states = states if gates == 4 else states[0]
    train = dropout > 0.0
    with torch.autocast(x.device.type, enabled=False):
        if rows.packed is not None:
            sizes = rows.packed.batch_sizes
            y, *last = run(x, sizes, states, weights, biased, num_layers, dropout, train, bidirectional)
        else:
            tail = (biased, num_layers, dropout, train, bidirectional, rows.batch_first)
            y, *last = run(x, states, weights, *tail)
    return (y.squeeze(1) if rows.unbatched else y), last


class _Recurrent(Constrained):
    """Shared by the constrained recurrent layers: matrices and output are clamped, biases where a limit is set."""

    def weights(self) -> list[Tensor]:
        """All matrices."""
        return [p for name, p in self.named_parameters(recurse=False) if name.startswith("weight")]

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  torch's name
        """As torch's layer, with clamped parameters and output."""
        m: Any = self
        gates = 4 if isinstance(self, nn.LSTM) else 3
        parameters = [
            self.limited_weight(w) if "weight" in name else self.limited_bias(w)
            for name, w in zip(m._flat_weights_names, m._flat_weights, strict=True)
        ]
        packed = input if isinstance(input, PackedSequence) else None
        x = input.data if packed is not None else input
        flat = packed is None and x.dim() == 2
        given = None if hx is None else [hx] if gates == 3 else list(hx)
        if given is not None and flat:
            given = [s.unsqueeze(1) for s in given]
        if given is not None and packed is not None and packed.sorted_indices is not None:
            given = [s.index_select(1, packed.sorted_indices) for s in given]
        dropout = float(m.dropout) if self.training else 0.0
        rows = FloatRows(packed, m.batch_first and not flat, flat)
        y, last = run_float(gates, x, rows, given, parameters, m.bias, m.bidirectional, m.num_layers, dropout)
        y = self.limited_output(y)
        if packed is not None and packed.unsorted_indices is not None:
            last = [s.index_select(1, packed.unsorted_indices) for s in last]
        last = [s.squeeze(1) for s in last] if flat else last
        out: Any = y
        if packed is not None:
            out = PackedSequence(y, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return out, last[0] if gates == 3 else tuple(last)


class NormalizeLSTM(_Recurrent, nn.LSTM):
    """``nn.LSTM`` with clamps; the limits hold for each matrix on its own.

    Shape:
        As ``nn.LSTM``.
    """

    float_class = nn.LSTM


class NormalizeGRU(_Recurrent, nn.GRU):
    """``nn.GRU`` with clamps; the limits hold for each matrix on its own.

    Shape:
        As ``nn.GRU``.
    """

    float_class = nn.GRU


CONSTRAINED |= {nn.LSTM: NormalizeLSTM, nn.GRU: NormalizeGRU}

__all__ = ["FloatRows", "NormalizeGRU", "NormalizeLSTM", "run_float"]
