"""What convolution and linear share: checks of operands, the quantized weight, what backward needs of both."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks
from linger.ops.spec import GRAD, Coded, Output

_dequantize = torch.ops.linger.dequantize.default
_quantize_weight = torch.ops.linger.quantize_weight.default


class Weight(NamedTuple):
    """A quantized weight: codes int8, scale, and for backward its flat mask and TQT slope (empty when absent)."""

    codes: Tensor
    scale: Tensor
    mask: Tensor
    slope: Tensor


def check_operands(op: str, x: Coded, weight: Tensor, bias: Tensor | None, weight_out: Output, out: Output) -> None:
    """Refuses what no kernel computes.

    Raises:
        UnsupportedError: Codes wider than 8 bits, or a device without a kernel.
        TypeError: An operand of another kind or dtype.
        ValueError: A setting out of range, or a bias of another size than the weight's outputs.
    """
    checks.check_coded(op, "x", x)
    checks.check_float(op, "weight", weight)
    checks.check_output(op, weight_out)
    checks.check_output(op, out)
    checks.check_device(op, x.codes)
    if x.codes.dtype != torch.int8:
        raise UnsupportedError(f"{op}: the input must have at most 8 bits, got codes of type {x.codes.dtype}")
    if weight_out.bits > 8:
        raise UnsupportedError(f"{op}: the weight must have at most 8 bits, got {weight_out.bits}")
    if bias is None:
        return
    checks.check_float(op, "bias", bias)
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"{op}: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")


def check_codes(op: str, x: Tensor, w: Tensor, bias: Tensor | None, shift: int, bits: int) -> None:
    """Refuses what the integer forms do not compute.

    Raises:
        TypeError: Operands that are not int8 codes, or a bias that is not int32.
        ValueError: A shift or width out of range, or a bias of another size than the weight's outputs.
        UnsupportedError: A device without a kernel.
    """
    for name, t, dtype in (("x", x, torch.int8), ("w", w, torch.int8), ("bias", bias, torch.int32)):
        if t is None and name == "bias":
            continue
        if not isinstance(t, Tensor) or t.dtype != dtype:
            raise TypeError(f"{op}: {name} must be {dtype}, got {getattr(t, 'dtype', type(t).__name__)}")
    if bias is not None and bias.shape != w.shape[:1]:
        raise ValueError(f"{op}: bias must have shape ({w.shape[0]},), got {tuple(bias.shape)}")
    checks.check_range(op, "bits", bits, 2, 32)
    checks.check_range(op, "shift", shift, -31 if bits == 32 else 0, 63)
    checks.check_device(op, x)


def codes_dtype(bits: int) -> torch.dtype:
    """Type of the integer forms' results: int8, int16 or int32."""
    return torch.int8 if bits <= 8 else torch.int16 if bits <= 16 else torch.int32


def quantize_weight(weight: Tensor, bias: Tensor | None, x_scale: Tensor, out: Output, grad: bool) -> Weight:
    """Codes of a weight, its exponent lowered where the bias would not fit 32 bits."""
    flags = int(out.observe) + GRAD * grad
    return Weight(*_quantize_weight(weight, *out.stats, out.threshold, bias, x_scale, out.bits, flags))


def dequantized(codes: Tensor, scale: Tensor) -> Tensor:
    """A saved operand for the float gradients. Behind a NaN its codes are 0 and its scale is NaN: it then counts as 0."""
    value: Tensor = _dequantize(codes, torch.where(scale.isnan(), 1.0, scale))
    return value


def weight_gradients(grad: Tensor, w: Weight, want_weight: bool, want_threshold: bool) -> tuple[Any, Any]:
    """Gradients of the float weight and of its threshold from that of the quantized weight."""
    grad = checks.in_layout(grad, checks.layout_of(w.codes))
    threshold = checks.threshold_grad(grad, w.slope, w.scale) if want_threshold else None
    return checks.mask_grad(grad, w.mask) if want_weight else None, threshold


def fake_outputs(
    value: Tensor, pixels: Any, o: Any, bits: int, threshold: Tensor | None, flags: int
) -> tuple[Tensor, ...]:
    """Shapes of a training operator's results; ``value`` has the right shape and strides."""
    grad = bool(flags & GRAD)
    codes = torch.empty_like(value, dtype=checks.code_dtype(bits))
    mask = value.new_empty([pixels * ((o + 15) // 16 * 2) if grad else 0], dtype=torch.uint8)
    slope = torch.empty_like(value) if grad and threshold is not None else value.new_empty([0])
    return value, codes, value.new_empty([]), mask, slope
