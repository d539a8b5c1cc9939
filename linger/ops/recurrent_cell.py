"""LSTM and GRU as operators of one kind: checks, gradients through time, shapes for tracing."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks, gradients
from linger.ops.recurrent import Walk, Weights
from linger.ops.spec import Coded, Output
from linger.ops.weighted import Weight, quantize_weight, weight_gradients

Floats = tuple[Tensor | None, ...]
_UNITS = 16  # of a block of what forward keeps for backward


class Settings(NamedTuple):
    """What a call takes besides its float tensors."""

    codes: Tensor
    scale: Tensor
    h_scale: Tensor
    ih_out: Output
    hh_out: Output
    walk: Walk
    bits: int


class Cell:
    """One kind of layer: its native operators, and what tells them from those of the other kind.

    Args:
        name: Of the operator; that of its gradient ends in ``_backward``.
        gates: Their number.
        states: Types of its states' codes: of h, or of h and c.
        kept: Bytes that backward needs of one unit of one row, by :attr:`Formulas.row`.
    """

    def __init__(self, name: str, gates: int, states: tuple[torch.dtype, ...], kept: tuple[int, ...]) -> None:
        self.name, self.gates, self.states, self.kept = name, gates, states, kept
        self.native, self.native_backward = checks.native(name), checks.native(f"{name}_backward")
        self.real = (0, 3, 5)[: 1 + len(states)]  # results with a gradient: value, h, c
        checks.fake(f"linger::{name}")(self._fake)
        checks.fake(f"linger::{name}_backward")(self._fake_backward)

    def run(self, x: Coded, w: Weights, h_scale: Tensor, out: Output, walk: Walk, states: Floats) -> tuple[Tensor, ...]:
        """Value, codes, scale, each state and its codes, and statistics, as the native operator; the value in x's dtype.

        Raises:
            UnsupportedError, TypeError, ValueError: Operands that no kernel computes.
        """
        _check_call(self.name, self.gates, x, w, h_scale, states)
        floats = tuple(None if t is None else checks.as_float32(t) for t in (w.w_ih, w.w_hh, w.b_ih, w.b_hh, *states))
        value, thresholds = checks.as_float32(x.value), (w.ih_out.threshold, w.hh_out.threshold, out.threshold)
        settings = Settings(x.codes, x.scale, h_scale, w.ih_out, w.hh_out, walk, out.bits)
        if checks.needs_grad(value, *floats, *thresholds):
            y, *rest = _Direction.apply(self, settings, value, *thresholds, *floats)  # type: ignore[no-untyped-call]
        else:
            y, *rest = self.forward(settings, floats, False)[0]
        return y if x.value.dtype == torch.float32 else y.to(x.value.dtype), *rest

    def codes(
        self, x: Tensor, w: tuple[Tensor, Tensor], biases: tuple[Tensor, Tensor], exp2: tuple[int, int, int, int],
        walk: Walk, states: Floats,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The integer form: the codes of the result and of each state.

        Raises:
            TypeError, ValueError: Types or shapes that do not fit together.
        """
        _check_codes(f"{self.name}_codes", self.gates, x, *w, biases)
        ex, ei, eh, e = (torch.tensor(2.0**k) for k in exp2)
        results = self.native(x, ex, w[0], ei, w[1], eh, *biases, e, *states, *walk.arguments, False)
        return tuple(results[1 + i] for i in self.real)

    def forward(self, k: Settings, floats: Floats, grad: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Results, and what backward needs: both weights, then x, the result, what was kept, and the given states."""
        w_ih, w_hh, *rest = floats
        assert w_ih is not None and w_hh is not None
        b_ih, b_hh, *states = rest
        ih = quantize_weight(w_ih, b_ih, k.scale, k.ih_out, grad)  # their biases must fit the sums
        hh = quantize_weight(w_hh, b_hh, k.h_scale, k.hh_out, grad)
        call = (k.codes, k.scale, ih.codes, ih.scale, hh.codes, hh.scale, b_ih, b_hh, k.h_scale, *states)
        all_results = self.native(*call, *k.walk.arguments, grad)
        n = len(all_results) - 1 - len(states)
        results, kept = all_results[:n], all_results[n:]
        return results, (*ih, *hh, k.codes, k.scale, results[1], results[2], *kept)

    def backward(self, ctx: Any, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gradients of value, the three thresholds, both weights, both biases and the given states."""
        want_x, want_it, want_ht, want_t, want_ih, want_hh, *want_rest = ctx.needs_input_grad[2:]
        given = [grads[i] for i in self.real]
        if all(g is None for g in given):
            return (None,) * (6 + len(want_rest))
        *saved, threshold = ctx.saved_tensors
        ih, hh = Weight(*saved[:4]), Weight(*saved[4:8])
        x, x_scale, codes, scale, kept, *states = saved[8:]
        call = (*given, x, x_scale, ih.codes, ih.scale, hh.codes, hh.scale, scale, *states, codes, kept)
        dx, dw_ih, dw_hh, *rest, slope = self.native_backward(*call, *ctx.walk.arguments, want_x, want_t)
        g_ih, g_it = weight_gradients(dw_ih, ih, want_ih, want_it) if want_ih or want_it else (None, None)
        g_hh, g_ht = weight_gradients(dw_hh, hh, want_hh, want_ht) if want_hh or want_ht else (None, None)
        g_t = _threshold_gradient(slope, scale, threshold, ctx.bits, ctx.walk.chip.state_exp2) if want_t else None
        biases, states = rest[: -len(states)], rest[-len(states) :]
        if len(biases) == 1:  # one for both
            biases = [*biases, biases[0].clone()]
        found = *biases, *(s.view(ctx.walk.batch, -1) for s in states)
        wanted = (g if want else None for g, want in zip(found, want_rest, strict=True))
        return dx if want_x else None, g_it, g_ht, g_t, g_ih, g_hh, *wanted

    def _fake(
        self, x: Tensor, _x: Tensor, w_ih: Tensor, _i: Tensor, w_hh: Tensor, _h: Tensor, _bi: Any, _bh: Any, _s: Tensor,
        *rest: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        given, (_offsets, _counts, chip, _reverse, batch, _stride, save) = rest[: len(self.states)], rest[-7:]
        hidden, rows = w_hh.shape[1], x.numel() // x.shape[-1]

        def fresh(shape: Any, dtype: torch.dtype) -> Tensor:
            return x.new_empty(shape, dtype=dtype)

        kept = rows * ((hidden + _UNITS - 1) // _UNITS * _UNITS) * self.kept[chip] if save else 0
        y = (*x.shape[:-1], hidden)
        results = [fresh(y, torch.float32), fresh(y, torch.int8), fresh((), torch.float32)]
        for dtype in self.states:
            results += [fresh((1, batch, hidden), torch.float32), fresh((1, batch, hidden), dtype)]
        results += [fresh((), torch.float32), *([fresh(1, torch.int64)] if len(self.states) == 2 else [])]
        states = [fresh(0 if t is None else t.shape, d) for t, d in zip(given, self.states, strict=True)]
        return *results, fresh(kept, torch.uint8), *states

    def _fake_backward(self, *arguments: Any) -> tuple[Tensor, ...]:
        x, _x, w_ih, _i, w_hh, *rest = arguments[1 + len(self.states) :]
        batch, _stride, want_x, _want_slope = rest[-4:]

        def fresh(*shape: Any) -> Tensor:
            t: Tensor = x.new_empty(shape, dtype=torch.float32)
            return t

        hidden = w_hh.shape[1]
        dx = fresh(*x.shape) if want_x else fresh(0)
        biases = [fresh(self.gates * hidden) for _ in range(3 - len(self.states))]
        states = [fresh(1, batch, hidden) for _ in self.states]
        return dx, fresh(*w_ih.shape), fresh(*w_hh.shape), *biases, *states, fresh()


class _Direction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: Cell, k: Settings, value: Tensor, it: Tensor | None, ht: Tensor | None, t: Tensor | None,
        *floats: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        results, saved = cell.forward(k, floats, True)
        ctx.save_for_backward(*saved, t)
        ctx.cell, ctx.walk, ctx.bits = cell, k.walk, k.bits
        ctx.mark_non_differentiable(*(r for i, r in enumerate(results) if i not in cell.real))
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        with torch.no_grad():
            found = ctx.cell.backward(ctx, grads)
        message = (
            f"{ctx.cell.name.upper()} has no second derivative (create_graph=True reached it); "
            "a gradient penalty must leave recurrent layers out"
        )
        return None, None, *gradients.refuse_second_derivative(found, message)


def _threshold_gradient(slope: Tensor, scale: Tensor, threshold: Tensor, bits: int, cap: int) -> Tensor:
    """Gradient of a state's threshold; 0 where the exponent was clipped, or lowered to ``cap``."""
    raw = (bits - 1 - threshold).round()
    moves = (raw >= 0) & (raw <= min(23, cap))
    return torch.where(moves, slope * (math.log(2.0) / scale), 0.0)


def _check_power_of_two(op: str, name: str, scale: Tensor) -> None:
    """Refuses a scale whose exponent alone would not say it; NaN stands for no scale.

    Traced code cannot look at it, and on a GPU nobody waits for it.

    Raises:
        ValueError: Another number than a power of two.
    """
    if (
        type(scale) is not Tensor
        or not scale.is_cpu
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
    ):
        return
    value = float(scale.detach())
    if not math.isnan(value) and math.frexp(abs(value))[0] * math.copysign(1.0, value) != 0.5:
        raise ValueError(f"{op}: {name} must be a power of two, got {value:g}")


def _check_call(op: str, gates: int, x: Coded, w: Weights, h_scale: Tensor, states: tuple[Tensor | None, ...]) -> None:
    """Refuses what no kernel computes.

    Raises:
        UnsupportedError: Codes wider than 8 bits, or a device without a kernel.
        TypeError: An operand of another kind or dtype.
        ValueError: Shapes that do not fit together.
    """
    checks.check_coded(op, "x", x)
    checks.check_device(op, x.codes)
    checks.check_scale(op, "h_scale", h_scale)
    for name, scale in (("the scale of x", x.scale), ("h_scale", h_scale)):
        _check_power_of_two(op, name, scale)
    if x.codes.dtype != torch.int8:
        raise UnsupportedError(f"{op}: the input must have at most 8 bits, got codes of type {x.codes.dtype}")
    for name, matrix, out in (("w_ih", w.w_ih, w.ih_out), ("w_hh", w.w_hh, w.hh_out)):
        checks.check_float(op, name, matrix)
        checks.check_output(op, out)
        if out.bits > 8:
            raise UnsupportedError(f"{op}: the weights must have at most 8 bits, got {out.bits}")
    hidden = w.w_hh.shape[-1]
    if w.w_ih.dim() != 2 or tuple(w.w_hh.shape) != (gates * hidden, hidden) or len(w.w_ih) != gates * hidden:
        shapes = f"{tuple(w.w_ih.shape)} and {tuple(w.w_hh.shape)}"
        raise ValueError(f"{op}: w_ih must be ({gates} * H, D) and w_hh ({gates} * H, H), got {shapes}")
    if x.codes.dim() < 2 or x.codes.shape[-1] != w.w_ih.shape[1]:
        raise ValueError(f"{op}: x must be (..., {w.w_ih.shape[1]}), got {tuple(x.codes.shape)}")
    for name, bias in (("b_ih", w.b_ih), ("b_hh", w.b_hh)):
        if bias is not None and tuple(bias.shape) != (gates * hidden,):
            raise ValueError(f"{op}: {name} must have shape ({gates * hidden},), got {tuple(bias.shape)}")
    for state in states:
        if state is not None:
            checks.check_float(op, "a given state", state)


def _check_codes(op: str, gates: int, x: Tensor, w_ih: Tensor, w_hh: Tensor, biases: tuple[Tensor, Tensor]) -> None:
    """Refuses operands of the integer forms that do not fit together.

    Raises:
        TypeError: Codes of another dtype.
        ValueError: Shapes that do not fit together.
    """
    dtypes = (torch.int8, torch.int8, torch.int8, torch.int32, torch.int32)
    named = zip(("x", "w_ih", "w_hh", "b_ih", "b_hh"), (x, w_ih, w_hh, *biases), dtypes, strict=True)
    for name, t, dtype in named:
        if not isinstance(t, Tensor) or t.dtype != dtype:
            raise TypeError(f"{op}: {name} must be {dtype}, got {getattr(t, 'dtype', type(t).__name__)}")
    hidden = w_hh.shape[-1] if w_hh.dim() == 2 else 0
    fits = w_ih.dim() == 2 and tuple(w_hh.shape) == (gates * hidden, hidden) and len(w_ih) == gates * hidden
    fits = fits and x.dim() >= 2 and x.shape[-1] == w_ih.shape[1] and min(w_ih.shape) > 0
    if not fits or any(tuple(b.shape) != (gates * hidden,) for b in biases):
        shapes = ", ".join(str(tuple(t.shape)) for t in (x, w_ih, w_hh, *biases))
        raise ValueError(
            f"{op}: x (..., D), w_ih ({gates} * H, D), w_hh ({gates} * H, H) and biases must fit, got {shapes}"
        )


__all__ = ["Cell"]
