"""Integer convolution with its output quantizer: checked entries, float gradients, shapes for tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks
from linger.ops.float_conv import conv2d
from linger.ops.gradients import dequantized
from linger.ops.output import Floats, Operands, Tensors, fake, fake_results, settings
from linger.ops.spec import HALF_EVEN, Coded, Output, settings_of
from linger.ops.weighted import (
    KeptWeight,
    Weight,
    Weighted,
    check_codes,
    check_operands,
    native_gradients,
    traced,
    weighted,
)

_conv = checks.native("conv")
_conv_codes = checks.native("conv_codes")
_step = checks.native("conv_step")
_step_backward = checks.native("conv_step_backward")
_step_weight = checks.native("conv_step_weight")
_float_backward = torch.ops.aten.convolution_backward.default


class Geometry(NamedTuple):
    """Shape parameters of a 2-D convolution.

    Attributes:
        stride: Rows, columns; at least 1.
        padding: Zeros at top, left, bottom, right.
        dilation: Rows, columns; at least 1.
        groups: Divides input and output channels.
    """

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0, 0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1


class Convolution(Weighted):
    """What runs and differentiates a convolution of one geometry."""

    __slots__ = ("geometry", "numbers")

    def __init__(self, geometry: Geometry) -> None:
        stride, padding, dilation, groups = geometry
        self.geometry = geometry
        self.numbers = [*stride, *padding, *dilation, groups]  # as the operators of a step take them

    def packing(self) -> tuple[Sequence[int], int]:
        """Stride and groups."""
        return self.geometry.stride, self.geometry.groups

    def engine(
        self, x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, out: Output, flags: int,
        packed: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The integer convolution with its output quantizer."""
        result: tuple[Tensor, ...] = _conv(x, x_scale, w, w_scale, bias, *self.geometry, *settings(out, flags), packed)
        return result

    def checks_first(self, x: Tensor, weight_out: Output, out: Output) -> bool:
        """The operator of a step does; TQT, other devices and tracers take the two operators that it joins."""
        return weight_out.threshold is None and out.threshold is None and not traced(x)

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[tuple[Any, ...], Tensors]:
        """One native operator for the whole step; what it keeps of the weight is one tensor."""
        codes, scale, weight_out = operands
        if not self.checks_first(codes, weight_out, out):
            return super().run(floats, operands, out, flags, want)
        _value, weight, bias, _t = floats
        of_weight = settings_of(weight_out.bits, HALF_EVEN, int(weight_out.observe))
        result = settings_of(out.bits, out.rounding, flags)
        states = [*weight_out.stats, *out.stats]
        *results, kept = _step(codes, scale, weight, bias, states, self.numbers, of_weight, result, float(out.clamp))
        return (*results, None), (codes, kept)

    def ordered(self, grad: Tensor, layout: tuple[int, ...] | None) -> Tensor:
        """Channels last."""
        if grad.dim() == 3:
            return grad.transpose(1, 2).contiguous().transpose(1, 2)
        return grad.contiguous(memory_format=torch.channels_last)

    def row(self, grad: Tensor) -> int:
        """One pixel."""
        return grad.shape[1]

    def gradients_behind(
        self, grad: Tensor, mask: Tensor, layout: tuple[int, ...] | None, kept: Tensors, want: Sequence[bool]
    ) -> tuple[Any, ...]:
        """By the native gradient, which reads codes and masks: nothing is dequantized, masked or reordered."""
        want_x, want_w, want_b, _want_t = want
        if len(kept) == 2:
            found = _step_backward(grad, kept[0], mask, kept[1], self.numbers, want_x + 2 * want_w + 4 * want_b)
            return *(g if wanted else None for g, wanted in zip(found, want, strict=False)), None
        codes, scale, *weight = kept
        if not codes.is_cpu:
            return super().gradients_behind(grad, mask, layout, kept, want)
        return native_gradients(self.geometry, grad, mask, codes, scale, Weight(*weight), want)

    def as_graph(
        self, grad: Tensor, kept: Tensors, places: Sequence[Tensor | None], want: Sequence[bool]
    ) -> tuple[Any, ...]:
        """The same as a graph."""
        if len(kept) == 2:
            scale, codes, w_scale, w_mask = _step_weight(kept[1])
            kept = (kept[0], scale, codes, w_scale, w_mask, grad.new_empty(0))
        return super().as_graph(grad, kept, places, want)

    def float_gradients(
        self, grad: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """By torch, of the dequantized operands: for devices without a kernel of ours."""
        stride, (top, left, bottom, right), dilation, groups = self.geometry
        if x.dim() == 3:
            row = w._replace(codes=w.codes.unsqueeze(2))
            gx, gw, gb = self.float_gradients(grad.unsqueeze(2), x.unsqueeze(2), x_scale, row, want)
            return None if gx is None else gx.squeeze(2), None if gw is None else gw.squeeze(2), gb
        height, width = x.shape[2:]
        real = dequantized(x, x_scale)
        pads = [top, left]
        uneven = (top, left) != (bottom, right)
        if uneven:
            real = F.pad(real, (left, right, top, bottom))
            pads = [0, 0]
        gx, gw, gb = _float_backward(
            grad,
            real,
            dequantized(w.codes, w.scale),
            [w.codes.shape[0]],
            list(stride),
            pads,
            list(dilation),
            False,
            [0, 0],
            groups,
            list(want),
        )
        if uneven and gx is not None:
            gx = gx[:, :, top : top + height, left : left + width]
        return gx, gw, gb

    def real(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        """The float convolution."""
        stride, (top, left, bottom, right), dilation, groups = self.geometry
        if x.dim() == 3:
            return self.real(x.unsqueeze(2), w.unsqueeze(2), bias).squeeze(2)
        padded = F.pad(x, (left, right, top, bottom))
        return conv2d(padded, w, bias, tuple(stride), 0, tuple(dilation), groups)


def conv(
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry | Convolution,
    weight_out: Output,
    out: Output,
    kept: KeptWeight | None = None,
) -> Coded:
    """Convolution of codes, exactly as the chip computes it; gradients are those of the float convolution.

    The sum of products and bias (at ``x.scale * weight scale``) saturates to 32 bits, is clamped, then shifted to the output
    scale, which is at most the sum's. Gradients pass where nothing saturated and no clamp or ReLU cut.

    Args:
        x: Input of at most 8 bits.
        weight: Floating point; quantized half to even.
        bias: Floating point, quantized to 32 bits at the sum's scale, or None.
        geometry: Stride, padding (top, left, bottom, right), dilation, groups; or the Convolution that a layer has made of it.
        weight_out: Quantizer of the weight, at most 8 bits.
        out: Quantizer of the result.
        kept: Where the layer keeps its quantized weight between evaluations.

    Shape:
        x ``(N, C, H, W)``, weight ``(O, C / groups, kh, kw)``, bias ``(O,)`` -> value and codes ``(N, O, H', W')``, channels-last
        in memory; without the axes of height, an image of one row.

    Raises:
        UnsupportedError: Operands above 8 bits, or a device without a kernel.
        TypeError, ValueError: Types, shapes or geometry that do not fit together.

    Source: docs/numerics.md, "Convolution".
    """
    op = geometry if type(geometry) is Convolution else Convolution(cast(Geometry, geometry))

    def check() -> None:
        check_operands("conv", x, weight, bias, weight_out, out)
        _check_geometry("conv", x.codes, weight, op.geometry)

    return weighted(op, check, x, weight, bias, weight_out, out, kept)


def conv_codes(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    shift: int,
    bits: int,
    relu: bool,
) -> Tensor:
    """``sat_bits(round_half_up(sat_32(sum + bias) / 2^shift))``, the integer convolution of runner and chip.

    Args:
        x: int8 codes, any strides.
        w: int8 codes.
        bias: int32, or None.
        stride, padding, dilation, groups: As `Geometry`.
        shift: Right shift, 0..63; -31..-1 (a left shift) with 32 bits only.
        bits: Width of the result: int8 up to 8, int16 up to 16, else int32.
        relu: Whether negative results become 0.

    Shape:
        x ``(N, C, H, W)``, w ``(O, C / groups, kh, kw)`` -> ``(N, O, H', W')``, channels-last in memory.

    Raises:
        TypeError, ValueError: Types, shapes or geometry that do not fit together.
    """
    check_codes("conv_codes", x, w, bias, shift, bits)
    geometry = Geometry(list(stride), list(padding), list(dilation), groups)
    _check_geometry("conv_codes", x, w, geometry)
    result: Tensor = _conv_codes(x, w, bias, *geometry, shift, bits, relu)
    return result


def _check_geometry(op: str, x: Tensor, w: Tensor, g: Geometry) -> None:
    if x.dim() != w.dim() or x.dim() not in (3, 4):
        raise ValueError(f"{op}: x and weight must have 4 dimensions, got {x.dim()} and {w.dim()}")
    if len(g.stride) != 2 or len(g.dilation) != 2 or len(g.padding) != 4:
        raise ValueError(f"{op}: stride and dilation need 2 numbers, padding 4 (top, left, bottom, right), got {g}")
    if min(*g.stride, *g.dilation) < 1 or min(g.padding) < 0 or g.groups < 1:
        raise ValueError(f"{op}: stride, dilation and groups must be at least 1, padding at least 0, got {g}")
    if x.shape[1] != w.shape[1] * g.groups or w.shape[0] % g.groups:
        raise ValueError(
            f"{op}: x has {x.shape[1]} channels, which does not fit weight {tuple(w.shape)} with {g.groups} groups"
        )
    if min(w.shape) < 1:
        raise ValueError(f"{op}: weight must not be empty, got {tuple(w.shape)}")
    if min(_out_size(x, w, g)) < 1:
        raise ValueError(
            f"{op}: the kernel {tuple(w.shape[2:])} with dilation {tuple(g.dilation)} is larger than the padded input "
            f"{_size(x)[0] + g.padding[0] + g.padding[2]} x {_size(x)[1] + g.padding[1] + g.padding[3]}"
        )


def _out_size(x: Tensor, w: Tensor, g: Geometry) -> tuple[Any, Any]:
    t, left, b, right = g.padding
    (h, wd), (kh, kw) = _size(x), _size(w)
    oh = (h + t + b - g.dilation[0] * (kh - 1) - 1) // g.stride[0] + 1
    return oh, (wd + left + right - g.dilation[1] * (kw - 1) - 1) // g.stride[1] + 1


def _size(x: Tensor) -> tuple[Any, Any]:
    """Height and width."""
    return (1, x.shape[2]) if x.dim() == 3 else (x.shape[2], x.shape[3])


@fake("linger::conv")
def _fake_conv(
    x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, *geometry: Any
) -> tuple[Tensor, int]:
    return _fake_result(x, w, Geometry(*geometry), torch.float32), w.shape[0]


@checks.fake("linger::conv_grad")
def _fake_conv_grad(
    dy: Tensor, mask: Tensor | None, x: Tensor, x_scale: Tensor, w: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_gradients(dy, x, torch.empty_like(w, dtype=torch.float32), rest[-1])


def _fake_gradients(dy: Tensor, x: Tensor, gw: Tensor, want: int) -> tuple[Tensor, Tensor, Tensor]:
    n, c, *size = x.shape
    gx = dy.new_empty((n, *size, c)).movedim(-1, 1) if want & 1 else dy.new_empty([0])
    return gx, gw if want & 2 else dy.new_empty([0]), dy.new_empty([dy.shape[1] if want & 4 else 0])


@checks.fake("linger::conv_codes")
def _fake_conv_codes(x: Tensor, w: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    stride, padding, dilation, groups, _shift, bits, _relu, *_packed = rest
    return _fake_result(x, w, Geometry(stride, padding, dilation, groups), checks.integer_form_dtype(bits))


def _fake_result(x: Tensor, w: Tensor, g: Geometry, dtype: torch.dtype) -> Tensor:
    h, wd = _out_size(x, w, g)
    return _image(x, x.shape[0], w.shape[0], h, wd, dtype, x.dim())


def _image(like: Tensor, n: Any, c: Any, h: Any, w: Any, dtype: torch.dtype, dim: int) -> Tensor:
    if dim == 3:
        return like.new_empty_strided((n, c, w), (w * c, 1, c), dtype=dtype)
    return like.new_empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=dtype)


def _kept_bytes(w: Tensor) -> Any:
    n: Any = w.numel()
    return 64 + (n + 63) // 64 * 64 + (n + 7) // 8


@checks.fake("linger::conv_step")
def _fake_step(
    x: Tensor, x_scale: Tensor, w: Tensor, bias: Tensor | None, states: list[Tensor], geometry: list[int], *rest: Any
) -> tuple[Tensor, ...]:
    _of_weight, packed, _clamp = rest
    numbers = Geometry(geometry[:2], geometry[2:6], geometry[6:8], geometry[8])
    value = _fake_result(x, w, numbers, torch.float32)
    *results, _slope = fake_results(value, w.shape[0], packed & 255, None, packed >> 16)
    return (*results, x.new_empty([_kept_bytes(w)], dtype=torch.uint8))


@checks.fake("linger::conv_step_backward")
def _fake_step_backward(
    dy: Tensor, x: Tensor, mask: Tensor, kept: Tensor, geometry: list[int], want: int
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = [torch.library.get_ctx().new_dynamic_size() for _ in range(x.dim() - 2)]  # the kept tensor knows it
    gw = dy.new_empty([dy.shape[1], x.shape[1] // geometry[8], *kernel] if want & 2 else [0])
    return _fake_gradients(dy, x, gw, want)


@checks.fake("linger::conv_step_weight")
def _fake_step_weight(kept: Tensor) -> tuple[Tensor, ...]:
    sizes = [torch.library.get_ctx().new_dynamic_size() for _ in range(5)]
    scale = kept.new_empty([], dtype=torch.float32)
    return scale, kept.new_empty(sizes[:4], dtype=torch.int8), scale.clone(), kept.new_empty(sizes[4:])


__all__ = ["Convolution", "Geometry", "conv", "conv_codes"]
