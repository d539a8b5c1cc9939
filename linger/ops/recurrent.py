"""What LSTM and GRU share: where the rows of a step are, the scale of the hidden state, its statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks
from linger.ops.spec import Coded, Output
from linger.ops.weighted import Weight, quantize_weight, weight_gradients

_hidden_scale = checks.native("hidden_scale")
_hidden_observe = checks.native("hidden_observe")

_SAVED = {4: (15, 15, 11), 3: (12, 15, 8)}


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


def threshold_grad(slope: Tensor, scale: Tensor, threshold: Tensor, bits: int, cap: int) -> Tensor:
    """Gradient of a state's threshold; 0 where the exponent was clipped, or lowered to ``cap``."""
    raw = (bits - 1 - threshold).round()
    moves = (raw >= 0) & (raw <= min(23, cap))
    return torch.where(moves, slope * (math.log(2.0) / scale), 0.0)


def check_power_of_two(op: str, name: str, scale: Tensor) -> None:
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


def check_call(op: str, gates: int, x: Coded, w: Weights, h_scale: Tensor, states: tuple[Tensor | None, ...]) -> None:
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
        check_power_of_two(op, name, scale)
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


def checked_codes(op: str, gates: int, x: Tensor, w_ih: Tensor, w_hh: Tensor, biases: tuple[Tensor, Tensor]) -> None:
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


class Fixed(NamedTuple):
    """What a recurrent call takes besides its float tensors."""

    codes: Tensor
    scale: Tensor
    h_scale: Tensor
    ih_out: Output
    hh_out: Output
    walk: Walk
    bits: int


Floats = tuple[Tensor | None, ...]


def run(
    op: str,
    gates: int,
    function: type[torch.autograd.Function],
    forward: Callable[[Fixed, Floats, bool], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]],
    x: Coded,
    w: Weights,
    h_scale: Tensor,
    out: Output,
    walk: Walk,
    states: Floats,
) -> tuple[Tensor, ...]:
    """Checks the operands and runs ``function`` where a gradient is needed, else ``forward``; the first result in x's dtype.

    Raises:
        UnsupportedError, TypeError, ValueError: As :func:`check_call`.
    """
    check_call(op, gates, x, w, h_scale, states)
    floats = tuple(None if t is None else checks.as_float32(t) for t in (w.w_ih, w.w_hh, w.b_ih, w.b_hh, *states))
    value, thresholds = checks.as_float32(x.value), (w.ih_out.threshold, w.hh_out.threshold, out.threshold)
    fixed = Fixed(x.codes, x.scale, h_scale, w.ih_out, w.hh_out, walk, out.bits)
    if checks.needs_grad(value, *floats, *thresholds):
        y, *rest = function.apply(value, *floats, *thresholds, fixed)  # type: ignore[no-untyped-call]
    else:
        y, *rest = forward(fixed, floats, False)[0]
    return y if x.value.dtype == torch.float32 else y.to(x.value.dtype), *rest


def keep(ctx: Any, fixed: Fixed, saved: tuple[Tensor, ...], threshold: Tensor | None, codes: Sequence[Tensor]) -> None:
    """What backward needs; ``codes``: results without a gradient."""
    ctx.save_for_backward(*saved, threshold)
    ctx.walk, ctx.bits = fixed.walk, fixed.bits
    ctx.mark_non_differentiable(*codes)
    ctx.set_materialize_grads(False)


def quantized_weights(k: Fixed, floats: Floats, grad: bool) -> tuple[Weight, Weight]:
    """The two matrices, whose biases must fit the exponents of their sums."""
    w_ih, w_hh, b_ih, b_hh = floats[:4]
    assert w_ih is not None and w_hh is not None
    ih = quantize_weight(w_ih, b_ih, k.scale, k.ih_out, grad)
    return ih, quantize_weight(w_hh, b_hh, k.h_scale, k.hh_out, grad)


def both_gradients(
    ih: tuple[Tensor, Weight], hh: tuple[Tensor, Weight], wants: tuple[bool, bool, bool, bool]
) -> tuple[Any, ...]:
    """Gradients of each float matrix and of its threshold; ``wants`` in the same order."""
    first = weight_gradients(*ih, *wants[:2]) if any(wants[:2]) else (None, None)
    return *first, *(weight_gradients(*hh, *wants[2:]) if any(wants[2:]) else (None, None))


def saved_weights(saved: tuple[Tensor, ...]) -> tuple[Weight, Weight]:
    """The two quantized matrices among saved tensors."""
    return Weight(*saved[:4]), Weight(*saved[4:8])


def whole(x: Tensor, chip: Formulas, reverse: bool = False) -> Walk:
    """Every step of ``x (T, B, D)``."""
    steps, batch = int(x.shape[0]), int(x.shape[1])
    offsets = torch.arange(steps, dtype=torch.int64, device=x.device) * batch
    counts = torch.full((steps,), batch, dtype=torch.int32, device=x.device)
    return Walk(offsets, counts, batch, 1, chip, reverse)


def saved_bytes(gates: int, chip: int, rows: int, hidden: int) -> int:
    """Bytes that a forward pass keeps for backward: units in whole blocks of 16."""
    return rows * ((hidden + 15) // 16 * 16) * _SAVED[gates][chip]


@checks.fake("linger::hidden_scale")
def _fake_hidden_scale(
    running: Tensor, is_init: Tensor, scale: Tensor, threshold: Tensor | None, bits: int, cap: int
) -> Tensor:
    return scale.new_empty(())


@checks.fake("linger::hidden_observe")
def _fake_hidden_observe(*_: Any) -> None:
    return None


__all__ = ["Formulas", "Result", "States", "Walk", "Weights", "hidden_observe", "hidden_scale", "whole"]
