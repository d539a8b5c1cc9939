"""One direction of one GRU layer: checked entries, gradients through time, shapes for tracing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.gradients import once
from linger.ops.recurrent import (
    Fixed,
    Result,
    States,
    Walk,
    Weights,
    both_gradients,
    checked_codes,
    keep,
    quantized_weights,
    run,
    saved_bytes,
    saved_weights,
    threshold_grad,
)
from linger.ops.spec import Coded, Output

_gru = checks.native("gru")
_backward = checks.native("gru_backward")


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
    results = run("gru", 3, _GRU, _forward, x, w, h_scale, out, walk, (h0,))
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
    checked_codes("gru_codes", 3, x, w_ih, w_hh, (b_ih, b_hh))
    ex, ei, eh, e = (torch.tensor(2.0**k) for k in exp2)
    results = _gru(x, ex, w_ih, ei, w_hh, eh, b_ih, b_hh, e, h0, *walk.arguments, False)
    return results[1], results[4]


def _forward(k: Fixed, floats: tuple[Tensor | None, ...], grad: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Results, and what backward needs."""
    _, _, b_ih, b_hh, h0 = floats
    ih, hh = quantized_weights(k, floats, grad)
    call = (k.codes, k.scale, ih.codes, ih.scale, hh.codes, hh.scale, b_ih, b_hh, k.h_scale, h0)
    *results, kept, h_given = _gru(*call, *k.walk.arguments, grad)
    saved = (*ih, *hh, k.codes, k.scale, results[1], results[2], kept, h_given)
    return tuple(results), saved


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        fixed: Fixed = inputs[-1]
        results, saved = _forward(fixed, inputs[:5], True)
        keep(ctx, fixed, saved, inputs[-2], [results[i] for i in (1, 2, 4, 5)])
        return results

    @staticmethod
    @once("GRU", "a gradient penalty must leave recurrent layers out")
    def backward(ctx: Any, dy: Any, _c: Any, _s: Any, dh: Any, *_: Any) -> tuple[Any, ...]:
        if dy is None and dh is None:
            return (None,) * 10
        saved = ctx.saved_tensors
        ih, hh = saved_weights(saved)
        x, x_scale, codes, scale, kept, h0, threshold = saved[8:]
        want_x, want_ih, want_hh, want_bi, want_bh, want_h, want_it, want_ht, want_t, _fixed = ctx.needs_input_grad
        weights = (x, x_scale, ih.codes, ih.scale, hh.codes, hh.scale)
        dx, dw_ih, dw_hh, db_ih, db_hh, dh0, slope = _backward(
            dy, dh, *weights, scale, h0, codes, kept, *ctx.walk.arguments, want_x, want_t
        )
        wants = want_ih, want_it, want_hh, want_ht
        g_ih, g_it, g_hh, g_ht = both_gradients((dw_ih, ih), (dw_hh, hh), wants)
        g_t = threshold_grad(slope, scale, threshold, ctx.bits, ctx.walk.chip.state_exp2) if want_t else None
        biases = db_ih if want_bi else None, db_hh if want_bh else None
        given = dh0.view(ctx.walk.batch, -1) if want_h else None
        return dx if want_x else None, g_ih, g_hh, *biases, given, g_it, g_ht, g_t, None


@checks.fake("linger::gru")
def _fake_gru(
    x: Tensor, x_scale: Tensor, w_ih: Tensor, ih_scale: Tensor, w_hh: Tensor, hh_scale: Tensor,
    b_ih: Tensor | None, b_hh: Tensor | None, h_scale: Tensor, h0: Tensor | None,
    offsets: Tensor, counts: Tensor, chip: int, reverse: bool, batch: int, stride: int, save: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    hidden, rows = w_hh.shape[1], x.numel() // x.shape[-1]

    def fresh(shape: Any, dtype: torch.dtype) -> Tensor:
        return x.new_empty(shape, dtype=dtype)

    y, states = (*x.shape[:-1], hidden), (1, batch, hidden)
    return (
        fresh(y, torch.float32),
        fresh(y, torch.int8),
        fresh((), torch.float32),
        fresh(states, torch.float32),
        fresh(states, torch.int8),
        fresh((), torch.float32),
        fresh(saved_bytes(3, chip, rows, hidden) if save else 0, torch.uint8),
        fresh(0 if h0 is None else h0.shape, torch.int8),
    )


@checks.fake("linger::gru_backward")
def _fake_gru_backward(
    dy: Tensor | None, dhn: Tensor | None, x: Tensor, x_scale: Tensor, w_ih: Tensor, ih_scale: Tensor, w_hh: Tensor,
    hh_scale: Tensor, h_scale: Tensor, h0: Tensor, codes: Tensor, saved: Tensor, offsets: Tensor, counts: Tensor,
    chip: int, reverse: bool, batch: int, stride: int, want_x: bool, want_slope: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    def fresh(*shape: Any) -> Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    hidden = w_hh.shape[1]
    dx = fresh(*x.shape) if want_x else fresh(0)
    biases = fresh(3 * hidden), fresh(3 * hidden)
    return dx, fresh(*w_ih.shape), fresh(*w_hh.shape), *biases, fresh(1, batch, hidden), fresh()


__all__ = ["gru", "gru_codes"]
