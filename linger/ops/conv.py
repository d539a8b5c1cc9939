"""Integer convolution with its output quantizer: checked entries, float gradients, shapes for tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks
from linger.ops.bilinear import (
    KeptWeight,
    Weight,
    check_codes,
    check_operands,
    checked,
    codes_dtype,
    fake_outputs,
    weight_masked,
)
from linger.ops.gradients import dequantized
from linger.ops.spec import Coded, Output

_conv = torch.ops.linger.conv.default
_conv_codes = torch.ops.linger.conv_codes.default
_conv_grad = torch.ops.linger.conv_grad.default
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

    def arranged(self, codes: Tensor) -> Tensor:
        """Weight codes as the engine takes them."""
        return codes

    def packing(self) -> tuple[Sequence[int], int]:
        """Stride and groups."""
        return self.stride, self.groups

    def run(
        self, x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, out: Output, flags: int,
        packed: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The integer convolution with its output quantizer: value, codes, scale, mask, slope."""
        state = (*out.stats, out.threshold, out.bits, float(out.clamp), int(out.rounding))
        result: tuple[Tensor, ...] = _conv(x, x_scale, w, w_scale, bias, *self, *state, flags, packed)
        return result

    def ordered(self, grad: Tensor) -> Tensor:
        """A gradient in the memory order of the result."""
        return grad.contiguous(memory_format=torch.channels_last)

    def gradients(
        self, grad: Tensor, mask: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool], whole: bool
    ) -> tuple[Tensor | None, Any, Tensor | None]:  # fmt: skip
        """Gradients of the convolution of the dequantized operands: of x, w and bias."""
        if not x.is_cpu:
            return self._torch_gradients(grad, mask, x, x_scale, w, want, whole)
        wanted = want[0] + 2 * want[1] + 4 * want[2]
        w_mask = None if whole or not want[1] else w.mask
        found = _conv_grad(grad, mask, x, x_scale, w.codes, w.scale, w_mask, *self, wanted)
        gx, gw, gb = (g if asked else None for g, asked in zip(found, want, strict=True))
        return gx, gw, gb

    def _torch_gradients(
        self, grad: Tensor, mask: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool], whole: bool
    ) -> tuple[Tensor | None, Any, Tensor | None]:  # fmt: skip
        """The same by torch, for devices without a kernel of ours."""
        grad = checks.mask_grad(self.ordered(grad), mask, grad.shape[1])
        top, left, bottom, right = self.padding
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
            list(self.stride),
            pads,
            list(self.dilation),
            False,
            [0, 0],
            self.groups,
            list(want),
        )
        if uneven and gx is not None:
            gx = gx[:, :, top : top + height, left : left + width]
        return gx, weight_masked(gw, w, whole), gb

    def real(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        """The float convolution."""
        top, left, bottom, right = self.padding
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, w, bias, tuple(self.stride), 0, tuple(self.dilation), self.groups)


def conv(
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
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
        geometry: Stride, padding (top, left, bottom, right), dilation, groups.
        weight_out: Quantizer of the weight, at most 8 bits.
        out: Quantizer of the result.
        kept: Where the layer keeps its quantized weight between evaluations.

    Shape:
        x ``(N, C, H, W)``, weight ``(O, C / groups, kh, kw)``, bias ``(O,)`` -> value and codes ``(N, O, H', W')``, channels-last
        in memory.

    Raises:
        UnsupportedError: Operands above 8 bits, or a device without a kernel.
        TypeError, ValueError: Types, shapes or geometry that do not fit together.

    Source: docs/numerics.md, "Convolution".
    """

    def check() -> None:
        check_operands("conv", x, weight, bias, weight_out, out)
        _check_geometry("conv", x.codes, weight, geometry)

    return checked(geometry, check, x, weight, bias, weight_out, out, kept)


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
    if x.dim() != 4 or w.dim() != 4:
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
            f"{x.shape[2] + g.padding[0] + g.padding[2]} x {x.shape[3] + g.padding[1] + g.padding[3]}"
        )


def _out_size(x: Tensor, w: Tensor, g: Geometry) -> tuple[Any, Any]:
    t, left, b, right = g.padding
    h = (x.shape[2] + t + b - g.dilation[0] * (w.shape[2] - 1) - 1) // g.stride[0] + 1
    return h, (x.shape[3] + left + right - g.dilation[1] * (w.shape[3] - 1) - 1) // g.stride[1] + 1


@checks.fake("linger::conv")
def _fake_conv(
    x: Tensor,
    x_scale: Tensor,
    w: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
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
    value = _fake_result(x, w, Geometry(stride, padding, dilation, groups), torch.float32)
    n, o, h, wd = value.shape
    return fake_outputs(value, n * h * wd, o, bits, threshold, flags)


@checks.fake("linger::conv_grad")
def _fake_conv_grad(
    dy: Tensor,
    mask: Tensor | None,
    x: Tensor,
    x_scale: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    want: int,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, h, wd = x.shape
    gx = dy.new_empty_strided((n, c, h, wd), (h * wd * c, 1, wd * c, c)) if want & 1 else dy.new_empty([0])
    gw = torch.empty_like(w, dtype=torch.float32) if want & 2 else dy.new_empty([0])
    return gx, gw, dy.new_empty([w.shape[0] if want & 4 else 0])


@checks.fake("linger::conv_codes")
def _fake_conv_codes(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    shift: int,
    bits: int,
    relu: bool,
) -> Tensor:
    return _fake_result(x, w, Geometry(stride, padding, dilation, groups), codes_dtype(bits))


def _fake_result(x: Tensor, w: Tensor, g: Geometry, dtype: torch.dtype) -> Tensor:
    h, wd = _out_size(x, w, g)
    o = w.shape[0]
    return x.new_empty_strided((x.shape[0], o, h, wd), (h * wd * o, 1, wd * o, o), dtype=dtype)


__all__ = ["Geometry", "conv", "conv_codes"]
