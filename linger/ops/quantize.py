"""Float tensors to codes, and back."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.output import fake_results, places
from linger.ops.spec import GRAD, OBSERVE, RELU, Coded, Output, Stats, settings_of

_quantize = checks.native("quantize")
_quantize_mask = checks.native("quantize_mask")
_quantize_slope = checks.native("quantize_slope")
_quantize_weight = checks.native("quantize_weight")
_quantize_bias = checks.native("quantize_bias")
_dequantize = checks.native("dequantize")
_codes_of = checks.native("codes_of")
_quantize_codes = checks.native("quantize_codes")


class _Quantize(torch.autograd.Function):
    """``aside`` receives codes and scale, so that autograd sees one result: compiled code passes None and takes three."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        t: Tensor | None,
        stats: Stats,
        settings: int,
        clamp: float,
        aside: list[Tensor] | None,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        if t is None:
            value, codes, scale, mask = _quantize_mask(x, *stats, settings, clamp)
            ctx.save_for_backward(mask)
        else:
            value, codes, scale, *saved = _quantize_slope(x, *stats, settings, t, clamp)
            ctx.save_for_backward(*saved, scale)
            ctx.threshold = None if aside is None else t
        ctx.layout, ctx.learned = checks.layout_of(value), t is not None
        if aside is None:
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(codes, scale)
            return value, codes, scale
        aside += (codes, scale)
        return cast(Tensor, value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if ctx.learned:  # saved tensors are read once: torch's checkpoint gives them away
            for_x, for_t, *_rest = ctx.needs_input_grad
            return *checks.output_grads(ctx, grad, for_x, for_t), None, None, None, None
        if grad is None:
            return None, None, None, None, None, None
        return checks.mask_grad(checks.in_layout(grad, ctx.layout), ctx.saved_tensors[0]), None, None, None, None, None


_apply = super(
    torch.autograd.Function, _Quantize
).apply  # what Function.apply ends in where no torch.func transform runs


def quantize(x: Tensor, out: Output) -> Coded:
    """Quantizes a float tensor: one pass that also finds the maximum, moves the statistics and saves the mask.

    ``code = clamp(round(clamp(x, ±out.clamp) * scale))``, ``value = code / scale``. The gradient passes where the rounded
    number was inside the range; with a threshold, ``d value / d t`` follows the TQT rule.

    Args:
        x: Any shape and dense strides (kept). float32; other float types are widened, ``value`` has the type of ``x``.
        out: State and settings. With ``observe`` the state moves, in place.

    Returns:
        value, codes and a scale snapshot. A NaN in ``x`` makes the scale and all values NaN, the codes 0.

    Raises:
        TypeError: ``x`` is no float tensor, ``out`` no Output.
        ValueError: A setting out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Quantizing one tensor".
    """
    if type(x) is not Tensor or x.dtype is not torch.float32:
        checks.check_float("quantize", "x", x)
    checks.check_output("quantize", out)
    if not x.is_cpu:
        checks.check_device("quantize", x)
    stats, t, bits, rounding, clamp, observe, relu = out
    settings = settings_of(bits, rounding, OBSERVE * observe + RELU * relu)
    real = x if x.dtype is torch.float32 else x.to(torch.float32)
    if torch.is_grad_enabled() and (x.requires_grad or (t is not None and t.requires_grad)):
        if torch.compiler.is_compiling():
            value, codes, scale = _Quantize.apply(real, t, stats, settings, clamp, None)  # type: ignore[no-untyped-call]
        else:
            aside: list[Tensor] = []
            value = _apply(real, t, stats, settings, clamp, aside)  # type: ignore[no-untyped-call]
            codes, scale = aside
    elif t is None and not clamp:  # arguments left out are free
        value, codes, scale = _quantize(real, *stats, settings)
    else:
        value, codes, scale = _quantize(real, *stats, settings, t, clamp)
    return Coded(value if real is x else value.to(x.dtype), codes, scale)


def quantize_weight(
    w: Tensor, out: Output, bias: Tensor | None = None, x_scale: Tensor | None = None, *, grad: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantizes a weight, half to even. Not differentiable: the operators that use it apply mask and slope themselves.

    Args:
        w: float32 weight, dense strides are kept.
        out: State and settings; ``rounding``, ``clamp`` and ``relu`` do not apply.
        bias: float32 bias that must fit 32 bits at ``x_scale * scale``: the exponent is lowered where needed. A NaN in it
            makes the returned scale NaN.
        x_scale: float32 ``[]``, scale of the layer's input.
        grad: Whether mask and slope are wanted.

    Returns:
        codes, scale snapshot, mask (flat bits), slope (float32 with a threshold, else empty).

    Raises:
        TypeError: ``w`` or ``bias`` is not float32, ``out`` no Output.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Layers".
    """
    for name, t in (("w", w), ("bias", bias)):
        if t is not None and (not isinstance(t, Tensor) or t.dtype != torch.float32):
            raise TypeError(
                f"quantize_weight: {name} must be a float32 Tensor, got {getattr(t, 'dtype', type(t).__name__)}"
            )
    checks.check_output("quantize_weight", out)
    if not w.is_cpu:
        checks.check_device("quantize_weight", w)
    flags = int(out.observe) + GRAD * grad
    result: tuple[Tensor, Tensor, Tensor, Tensor]
    result = _quantize_weight(w, *out.stats, out.threshold, bias, x_scale, out.bits, flags)
    return result


def quantize_bias(bias: Tensor, x_scale: Tensor, w_scale: Tensor) -> Tensor:
    """``sat_32(rint(bias * x_scale * w_scale))`` in float64.

    Args:
        bias: float32.
        x_scale, w_scale: float32 ``[]``; NaN in either gives 0.

    Returns:
        int32, shape of ``bias``.

    Raises:
        TypeError: ``bias`` or a scale is not float32.
        ValueError: A scale has more than one element.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Layers".
    """
    if not isinstance(bias, Tensor) or bias.dtype != torch.float32:
        raise TypeError(
            f"quantize_bias: bias must be a float32 Tensor, got {getattr(bias, 'dtype', type(bias).__name__)}"
        )
    checks.check_scale("quantize_bias", "x_scale", x_scale)
    checks.check_scale("quantize_bias", "w_scale", w_scale)
    checks.check_device("quantize_bias", bias)
    codes: Tensor = _quantize_bias(bias, x_scale, w_scale)
    return codes


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """``codes / scale`` as float32, NaN for a NaN scale.

    Args:
        codes: int8, int16 or int32, any shape.
        scale: float32 ``[]``, a power of two.

    Raises:
        TypeError: ``codes`` or ``scale`` of another dtype.
        ValueError: ``scale`` has more than one element.
        UnsupportedError: A device without kernel.
    """
    checks.check_codes("dequantize", "codes", codes)
    checks.check_scale("dequantize", "scale", scale)
    checks.check_device("dequantize", codes)
    value: Tensor = _dequantize(checks.widened(codes), scale)
    return value


def codes_of(value: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The codes of a float tensor that holds ``codes / scale``, by one exact multiplication. Not differentiable.

    Args:
        value: float tensor; NaN gives 0.
        scale: float32 ``[]``, a power of two.
        bits: Width, 2..24: wider codes do not survive in float32.

    Returns:
        int8 up to 8 bits, int32 above; strides of a dense ``value``.

    Raises:
        TypeError: ``value`` or ``scale`` of another dtype.
        ValueError: ``bits`` out of range, ``scale`` not one element.
        UnsupportedError: A device without kernel.
    """
    checks.check_float("codes_of", "value", value)
    checks.check_scale("codes_of", "scale", scale)
    checks.check_range("codes_of", "bits", bits, 2, 24)
    checks.check_device("codes_of", value)
    codes: Tensor = _codes_of(checks.as_float32(value.detach()), scale, bits)
    return codes


def quantize_codes(x: Tensor, exp2: int, bits: int) -> Tensor:
    """The chip's Quant node: ``sat(floor(x * 2**exp2 + 0.5))``, the addition rounded to float32.

    Args:
        x: float tensor; NaN gives 0, infinities saturate.
        exp2: log2 of the scale, -126..126.
        bits: Width, 2..32; above 16 in float64.

    Returns:
        int8 up to 8 bits, int16 up to 16, int32 above.

    Raises:
        TypeError: ``x`` is no float tensor, or an argument no int.
        ValueError: ``exp2`` or ``bits`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Quant".
    """
    checks.check_float("quantize_codes", "x", x)
    checks.check_range("quantize_codes", "exp2", exp2, -126, 126)
    checks.check_range("quantize_codes", "bits", bits, 2, 32)
    checks.check_device("quantize_codes", x)
    return checks.narrowed(_quantize_codes(checks.as_float32(x.detach()), exp2, bits), bits)


@checks.fake("linger::quantize")
def _fake_quantize(x: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, ...]:
    return _fake_results("quantize", x, rest, 0)[:3]


@checks.fake("linger::quantize_mask")
def _fake_quantize_mask(x: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, ...]:
    return _fake_results("quantize_mask", x, rest, GRAD)[:4]


@checks.fake("linger::quantize_slope")
def _fake_quantize_slope(x: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, ...]:
    return _fake_results("quantize_slope", x, rest, GRAD)


def _fake_results(op: str, x: Tensor, rest: tuple[Any, ...], flags: int) -> tuple[Tensor, ...]:
    bits, threshold = rest[places(f"linger::{op}")["settings"] - 1] & 255, x if op == "quantize_slope" else None
    return fake_results(checks.empty_dense(x, torch.float32), 0, bits, threshold, flags)


@checks.fake("linger::quantize_bias")
def _fake_quantize_bias(bias: Tensor, x_scale: Tensor, w_scale: Tensor) -> Tensor:
    return checks.empty_dense(bias, torch.int32)


@checks.fake("linger::dequantize")
def _fake_dequantize(codes: Tensor, scale: Tensor, saved: bool = False) -> Tensor:
    return checks.empty_dense(codes, torch.float32)


@checks.fake("linger::codes_of")
def _fake_codes_of(value: Tensor, scale: Tensor, bits: int) -> Tensor:
    return checks.empty_dense(value, checks.quantized_dtype(bits))


@checks.fake("linger::quantize_codes")
def _fake_quantize_codes(x: Tensor, exp2: int, bits: int) -> Tensor:
    return checks.empty_dense(x, checks.quantized_dtype(bits))
