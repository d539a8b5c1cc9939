"""What convolution and linear share: checks of operands, the quantized weight, what backward needs of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks
from linger.ops.spec import GRAD, Coded, Output

_dequantize = torch.ops.linger.dequantize.default
_quantize_weight = torch.ops.linger.quantize_weight.default
_weight_key = torch.ops.linger.weight_key.default
_mask_grad_in_place = torch.ops.linger.mask_grad_.default
_conv_pack = torch.ops.linger.conv_pack.default


class Weight(NamedTuple):
    """A quantized weight: codes int8, scale, and for backward its flat mask and TQT slope (empty when absent)."""

    codes: Tensor
    scale: Tensor
    mask: Tensor
    slope: Tensor


class KeptWeight:
    """A layer's quantized and packed weight between evaluations: one place, filled by the operators.

    Every use compares what the codes depend on: the weight's version (any in-place write that torch sees), a sample of up to
    1024 of its elements (writes through ``.data`` or numpy; all elements of small weights), its quantizer's exponent and the
    bias's limit. Copies and pickles start empty. Threads may share it.
    """

    __slots__ = ("entry",)

    def __init__(self) -> None:
        self.entry: tuple[object, Tensor, Tensor, Tensor, Tensor] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (KeptWeight, ())


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


def evaluation_weight(
    kept: KeptWeight | None,
    weight: Tensor,
    bias: Tensor | None,
    x: Coded,
    out: Output,
    stride: Sequence[int] = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes, scale and packed form of a weight outside training; from ``kept`` while nothing has changed.

    Only parameters are kept, not weights that a forward computes. Compiled and traced code quantizes and packs in every call:
    what is packed belongs to one processor.
    """
    if kept is not None and out.observe:
        kept.entry = None
    lasting = isinstance(weight if weight._base is None else weight._base, torch.nn.Parameter)
    traced = torch.compiler.is_compiling() or type(x.codes) is not Tensor or torch._C._get_tracing_state() is not None
    if kept is None or not lasting or out.observe or traced:
        w = quantize_weight(weight, bias, x.scale, out, False)
        return w.codes, w.scale, None
    version = (None if weight.is_inference() else weight._version, out.bits)
    key = _weight_key(weight, *out.stats, out.threshold, bias, x.scale, out.bits)
    entry = kept.entry
    if entry is None or entry[0] != version or not torch.equal(entry[1], key):
        w = quantize_weight(weight, bias, x.scale, out, False)
        kept.entry = entry = (version, key, w.codes, w.scale, _conv_pack(w.codes, stride, groups))
    return entry[2:]


def dequantized(codes: Tensor, scale: Tensor) -> Tensor:
    """A saved operand for the float gradients. Behind a NaN its codes are 0 and its scale is NaN: it then counts as 0."""
    value: Tensor = _dequantize(codes, torch.where(scale.isnan(), 1.0, scale))
    return value


def weight_gradients(grad: Tensor, w: Weight, want_weight: bool, want_threshold: bool) -> tuple[Any, Any]:
    """Gradients of the float weight and of its threshold from that of the quantized weight, which is written over."""
    grad = checks.in_layout(grad, checks.layout_of(w.codes))
    threshold = checks.threshold_grad(grad, w.slope, w.scale) if want_threshold else None
    if want_weight and torch.compiler.is_compiling():
        grad = checks.mask_grad(grad, w.mask)
    elif want_weight:
        _mask_grad_in_place(grad, w.mask)
    return grad if want_weight else None, threshold


def fake_outputs(
    value: Tensor, pixels: Any, o: Any, bits: int, threshold: Tensor | None, flags: int
) -> tuple[Tensor, ...]:
    """Shapes of a training operator's results; ``value`` has the right shape and strides."""
    grad = bool(flags & GRAD)
    codes = torch.empty_like(value, dtype=checks.code_dtype(bits))
    mask = value.new_empty([pixels * ((o + 15) // 16 * 2) if grad else 0], dtype=torch.uint8)
    slope = torch.empty_like(value) if grad and threshold is not None else value.new_empty([0])
    return value, codes, value.new_empty([]), mask, slope


@checks.fake("linger::weight_key")
def _fake_weight_key(
    w: Tensor, running: Tensor, is_init: Tensor, scale: Tensor, n_batches: Tensor, n_skipped: Tensor,
    threshold: Tensor | None, bias: Tensor | None, x_scale: Tensor | None, bits: int,
) -> Tensor:  # fmt: skip
    return w.new_empty(4, dtype=torch.int64)


@checks.fake("linger::conv_pack")
def _fake_conv_pack(w: Tensor, stride: list[int], groups: int) -> Tensor:
    return w.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)  # what the processor needs
