"""Integer matrix product with its output quantizer: checked entries, float gradients, shapes for tracing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from linger.ops import checks
from linger.ops.bilinear import (
    KeptWeight,
    Weight,
    check_codes,
    check_operands,
    codes_dtype,
    dequantized,
    evaluation_weight,
    fake_outputs,
    quantize_weight,
    weight_gradients,
)
from linger.ops.spec import Coded, Output, flags_of

_linear = torch.ops.linger.linear.default
_linear_codes = torch.ops.linger.linear_codes.default


def linear(
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    weight_out: Output,
    out: Output,
    kept: KeptWeight | None = None,
) -> Coded:
    """``x @ weight.T + bias`` on codes, exactly as the chip computes it; gradients are those of the float product.

    The sum is exact in 64 bits and, unlike a convolution's, does not saturate to 32; it is clamped, then shifted to the output
    scale, which is at most the sum's. Gradients pass where nothing saturated and no clamp or ReLU cut.

    Args:
        x: Input of at most 8 bits.
        weight: Floating point; quantized half to even.
        bias: Floating point, quantized to 32 bits at the sum's scale, or None.
        weight_out: Quantizer of the weight, at most 8 bits.
        out: Quantizer of the result.
        kept: Where the layer keeps its quantized weight between evaluations.

    Shape:
        x ``(..., K)``, weight ``(O, K)``, bias ``(O,)`` -> value and codes ``(..., O)``, contiguous.

    Raises:
        UnsupportedError: Operands above 8 bits, or a device without a kernel.
        TypeError, ValueError: Types or shapes that do not fit together.

    Source: docs/numerics.md, "Linear".
    """
    check_operands("linear", x, weight, bias, weight_out, out)
    _check_shapes("linear", x.codes, weight)
    weight = checks.as_float32(weight)
    bias = None if bias is None else checks.as_float32(bias)
    value = checks.as_float32(x.value)
    if checks.needs_grad(value, weight, bias, weight_out.threshold, out.threshold):
        call = (value, weight, bias, weight_out.threshold, out.threshold, x.codes, x.scale, weight_out, out)
        y, codes, scale = _Linear.apply(*call)  # type: ignore[no-untyped-call]
    else:
        w, w_scale, packed = evaluation_weight(kept, weight, bias, x, weight_out)
        y, codes, scale, _, _ = _forward(x.codes, x.scale, w, w_scale, bias, out, False, packed)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), codes, scale)


def linear_codes(x: Tensor, w: Tensor, bias: Tensor | None, shift: int, bits: int, relu: bool) -> Tensor:
    """``sat_bits(round_half_up((x @ w.T + bias) / 2^shift))``, the integer product of runner and chip.

    Args:
        x: int8 codes.
        w: int8 codes.
        bias: int32, or None.
        shift: Right shift, 0..63; -31..-1 with 32 bits only: ``sat_32(sum) * 2^-shift``, saturated.
        bits: Width of the result: int8 up to 8, int16 up to 16, else int32.
        relu: Whether negative results become 0.

    Shape:
        x ``(..., K)``, w ``(O, K)``, bias ``(O,)`` -> ``(..., O)``.

    Raises:
        TypeError, ValueError: Types or shapes that do not fit together.
    """
    check_codes("linear_codes", x, w, bias, shift, bits)
    _check_shapes("linear_codes", x, w)
    result: Tensor = _linear_codes(x, w, bias, shift, bits, relu)
    return result


def _check_shapes(op: str, x: Tensor, w: Tensor) -> None:
    if x.dim() < 1 or w.dim() != 2 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"{op}: x must be (..., K) and weight (O, K), got {tuple(x.shape)} and {tuple(w.shape)}")
    if min(w.shape) < 1:
        raise ValueError(f"{op}: weight must not be empty, got {tuple(w.shape)}")


def _forward(
    x: Tensor,
    x_scale: Tensor,
    w: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    out: Output,
    grad: bool,
    packed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    state = (*out.stats, out.threshold)
    flags = flags_of(out, grad)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _linear(
        x, x_scale, w, w_scale, bias, *state, out.bits, float(out.clamp), int(out.rounding), flags, packed
    )
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_threshold: Tensor | None,
        out_threshold: Tensor | None,
        codes: Tensor,
        scale: Tensor,
        weight_out: Output,
        out: Output,
    ) -> tuple[Tensor, Tensor, Tensor]:
        w = quantize_weight(weight, bias, scale, weight_out, ctx.needs_input_grad[1] or ctx.needs_input_grad[3])
        y, y_codes, y_scale, mask, slope = _forward(codes, scale, w.codes, w.scale, bias, out, True)
        ctx.save_for_backward(codes, scale, *w, mask, slope, y_scale)
        ctx.mark_non_differentiable(y_codes, y_scale)
        ctx.set_materialize_grads(False)
        return y, y_codes, y_scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 9
        codes, scale, *weight, mask, slope, y_scale = ctx.saved_tensors
        w = Weight(*weight)
        o, k = w.codes.shape
        want_x, want_w, want_b, want_wt, want_ot, *_rest = ctx.needs_input_grad
        grad = grad.contiguous()
        grad_t = checks.threshold_grad(grad, slope, y_scale) if want_ot else None
        gx = gw = gb = gwt = None
        rows = checks.mask_grad(grad, mask, o).view(-1, o)
        with checks.no_autocast(rows):
            if want_x:
                gx = (rows @ dequantized(w.codes, w.scale)).view(codes.shape)
            if want_w or want_wt:
                gw = rows.t() @ dequantized(codes, scale).reshape(-1, k)
        if gw is not None:
            gw, gwt = weight_gradients(gw, w, want_w, want_wt)
        if want_b:
            gb = rows.sum(0)
        return gx, gw, gb, gwt, grad_t, None, None, None, None


@checks.fake("linger::linear")
def _fake_linear(
    x: Tensor,
    x_scale: Tensor,
    w: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    running: Tensor,
    is_init: Tensor,
    scale: Tensor,
    n_batches: Tensor,
    n_skipped: Tensor,
    threshold: Tensor | None,
    bits: int,
    clamp: float,
    rounding: int,
    flags: int,
    packed: Tensor | None = None,
) -> tuple[Tensor, ...]:
    value = x.new_empty((*x.shape[:-1], w.shape[0]), dtype=torch.float32)
    return fake_outputs(value, x.numel() // w.shape[1], w.shape[0], bits, threshold, flags)


@checks.fake("linger::linear_codes")
def _fake_linear_codes(x: Tensor, w: Tensor, bias: Tensor | None, shift: int, bits: int, relu: bool) -> Tensor:
    return x.new_empty((*x.shape[:-1], w.shape[0]), dtype=codes_dtype(bits))


__all__ = ["linear", "linear_codes"]
