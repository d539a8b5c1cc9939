"""One direction of one GRU layer: its two entries."""

from __future__ import annotations

import torch
from torch import Tensor

from linger.ops.recurrent import Result, States, Walk, Weights
from linger.ops.recurrent_cell import Cell
from linger.ops.spec import Coded, Output

_CELL = Cell("gru", 3, (torch.int8,), (12, 15, 8))


def gru(x: Coded, w: Weights, h_scale: Tensor, out: Output, walk: Walk, h0: Tensor | None = None) -> Result:
    """One direction of a GRU layer on codes, exactly as the chip computes it.

    The chips differ: venusA has PyTorch's formula; arcs (and mars) applies the reset gate to the state before the product;
    venus gives the update gate to the candidate. Gradients follow the chip's formula as those of :func:`linger.ops.lstm.lstm`.

    Args:
        x: Input of at most 8 bits, in the rows that ``walk`` names.
        w: Parameters, gate order r, z, n.
        h_scale: Scale of the state and of the output, from :func:`hidden_scale`; the same for the whole pass.
        out: Quantizer of the state; its threshold, where it has one, gets its gradient here.
        walk: Steps.
        h0: Float state of B * H elements, or None: zeros. Quantized at ``h_scale``.

    Shape:
        x ``(..., D)`` -> out ``(..., H)``, state ``(1, B, H)``.

    Raises:
        UnsupportedError: Operands above 8 bits, or a device without a kernel.
        TypeError, ValueError: Types or shapes that do not fit together.

    Source: docs/numerics.md, "GRU".
    """
    results = _CELL.run(x, w, h_scale, out, walk, (h0,))
    y, codes, scale, h_n, h_codes, peak = results
    return Result(Coded(y, codes, scale), States(h_n, h_codes, scale), None, peak, None)


def gru_codes(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    exp2: tuple[int, int, int, int],
    walk: Walk,
    h0: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The integer GRU of runner and chip.

    Args:
        x: int8 codes.
        w_ih, w_hh: int8 codes.
        b_ih, b_hh: int32 codes at the exponents of their sums.
        exp2: Exponents of x, w_ih, w_hh and of the state.
        walk: Steps.
        h0: int8 codes of B * H elements, or None.

    Shape:
        x ``(..., D)`` -> y int8 ``(..., H)``, h int8 ``(1, B, H)``.

    Raises:
        TypeError, ValueError: Types or shapes that do not fit together.
    """
    y, h = _CELL.codes(x, (w_ih, w_hh), (b_ih, b_hh), exp2, walk, (h0,))
    return y, h


__all__ = ["gru", "gru_codes"]
