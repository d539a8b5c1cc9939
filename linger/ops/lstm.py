"""One direction of one LSTM layer: its two entries."""

from __future__ import annotations

import torch
from torch import Tensor

from linger.ops.recurrent import Result, States, Walk, Weights
from linger.ops.recurrent_cell import Cell
from linger.ops.spec import Coded, Output

_CELL = Cell("lstm", 4, (torch.int8, torch.int32), (15, 15, 11))


def lstm(
    x: Coded, w: Weights, h_scale: Tensor, out: Output, walk: Walk, h0: Tensor | None = None, c0: Tensor | None = None
) -> Result:
    """One direction of an LSTM layer on codes, exactly as the chip computes it.

    Gradients are those of the chip's formula in real numbers, through time: identity through roundings and saturations, true
    derivatives of sigmoid and tanh at the pre-activations, the chip's own values as factors.

    Args:
        x: Input of at most 8 bits, in the rows that ``walk`` names.
        w: Parameters, gate order i, f, g, o.
        h_scale: Scale of the state and of the output, from :func:`hidden_scale`; the same for the whole pass.
        out: Quantizer of the state; its threshold, where it has one, gets its gradient here.
        walk: Steps.
        h0: Float state of B * H elements, or None: zeros. Quantized at ``h_scale``.
        c0: Float cell state, or None.

    Shape:
        x ``(..., D)`` -> out ``(..., H)``, states ``(1, B, H)``.

    Raises:
        UnsupportedError: Operands above 8 bits, or a device without a kernel.
        TypeError, ValueError: Types or shapes that do not fit together.

    Source: docs/numerics.md, "LSTM".
    """
    results = _CELL.run(x, w, h_scale, out, walk, (h0, c0))
    y, codes, scale, h_n, h_codes, c_n, c_codes, peak, saturated = results
    cell_scale = torch.full((), 2.0**walk.chip.cell_exp2)
    states = States(h_n, h_codes, scale), States(c_n, c_codes, cell_scale)
    return Result(Coded(y, codes, scale), *states, peak, saturated)


def lstm_codes(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    exp2: tuple[int, int, int, int],
    walk: Walk,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The integer LSTM of runner and chip.

    Args:
        x: int8 codes.
        w_ih, w_hh: int8 codes.
        b_ih, b_hh: int32 codes at the exponents of their sums.
        exp2: Exponents of x, w_ih, w_hh and of the state.
        walk: Steps.
        h0: int8 codes of B * H elements, or None.
        c0: int32 codes, or None.

    Shape:
        x ``(..., D)`` -> y int8 ``(..., H)``, h int8 ``(1, B, H)``, c int32 ``(1, B, H)``.

    Raises:
        TypeError, ValueError: Types or shapes that do not fit together.
    """
    y, h, c = _CELL.codes(x, (w_ih, w_hh), (b_ih, b_hh), exp2, walk, (h0, c0))
    return y, h, c


__all__ = ["lstm", "lstm_codes"]
