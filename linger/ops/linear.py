"""Integer matrix product with its output quantizer: checked entries, float gradients, shapes for tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks
from linger.ops.gradients import dequantized
from linger.ops.output import Tensors, fake, settings
from linger.ops.spec import Coded, Output
from linger.ops.weighted import KeptWeight, Weight, Weighted, check_codes, check_operands, native_gradients, weighted

_linear = checks.native("linear")
_linear_codes = checks.native("linear_codes")
_POINTWISE = ([1, 1], [0, 0, 0, 0], [1, 1], 1)  # rows are pixels of a 1x1 convolution


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

    def check() -> None:
        check_operands("linear", x, weight, bias, weight_out, out)
        _check_shapes("linear", x.codes, weight)

    return weighted(_PRODUCT, check, x, weight, bias, weight_out, out, kept)


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


class _Product(Weighted):
    """``x @ weight.T``."""

    def engine(
        self, x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, out: Output, flags: int,
        packed: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        result: tuple[Tensor, ...] = _linear(x, x_scale, w, w_scale, bias, *settings(out, flags), packed)
        return result

    def row(self, grad: Tensor) -> int:
        return grad.shape[-1]

    def gradients_behind(
        self, grad: Tensor, mask: Tensor, layout: tuple[int, ...] | None, kept: Tensors, want: Sequence[bool]
    ) -> tuple[Any, ...]:
        codes, scale, *weight = kept
        if not codes.is_cpu:
            return super().gradients_behind(grad, mask, layout, kept, want)
        w = Weight(*weight)
        o, k = w.codes.shape
        gx, *others = native_gradients(_POINTWISE, grad.reshape(-1, o), mask, codes.reshape(-1, k), scale, w, want)
        return None if gx is None else gx.view(codes.shape), *others

    def float_gradients(
        self, grad: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        o, k = w.codes.shape
        rows = grad.view(-1, o)
        with checks.no_autocast(rows):
            gx = (rows @ dequantized(w.codes, w.scale)).view(x.shape) if want[0] else None
            gw = rows.t() @ dequantized(x, x_scale).reshape(-1, k) if want[1] else None
        return gx, gw, rows.sum(0) if want[2] else None

    def real(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, w, bias)


_PRODUCT = _Product()


@fake("linger::linear")
def _fake_linear(x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None) -> tuple[Tensor, int]:
    return x.new_empty((*x.shape[:-1], w.shape[0]), dtype=torch.float32), w.shape[0]


@checks.fake("linger::linear_codes")
def _fake_linear_codes(
    x: Tensor, w: Tensor, bias: Tensor | None, shift: int, bits: int, relu: bool, packed: Tensor | None = None
) -> Tensor:
    return x.new_empty((*x.shape[:-1], w.shape[0]), dtype=checks.integer_form_dtype(bits))


__all__ = ["linear", "linear_codes"]
