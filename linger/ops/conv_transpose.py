"""Integer transposed convolution: the convolution's engine on an input with zeros put between its elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops.conv import Convolution, Geometry
from linger.ops.gradients import dequantized
from linger.ops.spec import Coded, Output
from linger.ops.weighted import KeptWeight, Weight, Weighted, check_operands, weighted

_float_backward = torch.ops.aten.convolution_backward.default


class Spacing(NamedTuple):
    """Shape parameters of a 2-D transposed convolution.

    Attributes:
        stride: Rows, columns; at least 1.
        padding: Rows, columns that the result loses on both sides.
        output_padding: Rows, columns that it gains at the end; below stride or dilation.
        dilation: Rows, columns; at least 1.
        groups: Divides input and output channels.
    """

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    output_padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1


class TransposedConvolution(Weighted):
    """What runs and differentiates a transposed convolution of one spacing."""

    __slots__ = ("spacing",)

    def __init__(self, spacing: Spacing) -> None:
        self.spacing = spacing

    def arranged(self, codes: Tensor) -> Tensor:
        """Weight codes as the convolution takes them."""
        return turned(codes, self.spacing.groups)

    def packing(self) -> tuple[Sequence[int], int]:
        """Stride and groups of the convolution."""
        return (1, 1), self.spacing.groups

    def engine(
        self, x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, out: Output, flags: int,
        packed: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The integers with their output quantizer."""
        stride, padding, extra, dilation, groups = self.spacing
        spaced = spread(x, stride, edges(w.shape[2:], (*padding, *padding), extra, dilation))
        plain = Convolution(Geometry(dilation=dilation, groups=groups))
        return plain.engine(spaced, x_scale, w, w_scale, bias, out, flags, packed)

    def ordered(self, grad: Tensor, layout: tuple[int, ...] | None) -> Tensor:
        """Channels last."""
        return grad.contiguous(memory_format=torch.channels_last)

    def row(self, grad: Tensor) -> int:
        """One pixel."""
        return grad.shape[1]

    def float_gradients(
        self, grad: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """Gradients as torch computes them of the float operator on the dequantized operands: of x, w and bias."""
        operands = dequantized(x, x_scale), dequantized(w.codes, w.scale), [grad.shape[1]]
        stride, padding, extra, dilation, groups = self.spacing
        found: tuple[Tensor | None, Any, Tensor | None] = _float_backward(
            grad, *operands, stride, padding, dilation, True, extra, groups, list(want)
        )
        return found

    def real(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        """The float operator."""
        stride, padding, extra, dilation, groups = self.spacing
        return F.conv_transpose2d(
            x, w, bias, tuple(stride), tuple(padding), tuple(extra), groups, tuple(dilation)
        )  # fmt: skip


def conv_transpose(
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    spacing: Spacing,
    weight_out: Output,
    out: Output,
    kept: KeptWeight | None = None,
) -> Coded:
    """Transposed convolution of codes, exactly as the chip computes it; gradients are those of the float operator.

    Sums, clamp, shift and masks are those of :func:`conv`. Backward needs the codes of ``x`` as they came, without zeros.

    Args:
        x: Input of at most 8 bits.
        weight: Floating point; quantized half to even.
        bias: Floating point, quantized to 32 bits at the sum's scale, or None.
        spacing: Stride, padding, output padding, dilation, groups.
        weight_out: Quantizer of the weight, at most 8 bits.
        out: Quantizer of the result.
        kept: Where the layer keeps its quantized weight between evaluations.

    Shape:
        x ``(N, C, H, W)``, weight ``(C, O / groups, kh, kw)``, bias ``(O,)`` -> value and codes ``(N, O, H', W')``,
        channels-last in memory.

    Raises:
        UnsupportedError: Operands above 8 bits, or a device without a kernel.
        TypeError, ValueError: Types, shapes or spacing that do not fit together.

    Source: docs/numerics.md, "Convolution".
    """

    def check() -> None:
        _check_spacing("conv_transpose", spacing)
        outputs = weight.shape[1] * spacing.groups if isinstance(weight, Tensor) and weight.dim() == 4 else None
        check_operands("conv_transpose", x, weight, bias, weight_out, out, outputs)
        _check_shapes("conv_transpose", x.codes, weight, spacing)

    return weighted(TransposedConvolution(spacing), check, x, weight, bias, weight_out, out, kept)


def _check_spacing(op: str, g: Spacing) -> None:
    if any(len(part) != 2 for part in g[:4]):
        raise ValueError(f"{op}: stride, padding, output_padding and dilation need 2 numbers each, got {g}")
    if min(*g.stride, *g.dilation, g.groups) < 1 or min(*g.padding, *g.output_padding) < 0:
        raise ValueError(f"{op}: stride, dilation and groups must be at least 1, padding at least 0, got {g}")
    if any(e >= max(s, d) for e, s, d in zip(g.output_padding, g.stride, g.dilation, strict=True)):
        raise ValueError(f"{op}: output_padding must be smaller than stride or dilation, got {g}")


def _check_shapes(op: str, x: Tensor, w: Tensor, g: Spacing) -> None:
    if x.dim() != 4 or w.dim() != 4:
        raise ValueError(f"{op}: x and weight must have 4 dimensions, got {x.dim()} and {w.dim()}")
    if min(w.shape) < 1:
        raise ValueError(f"{op}: weight must not be empty, got {tuple(w.shape)}")
    if x.shape[1] != w.shape[0] or w.shape[0] % g.groups:
        raise ValueError(
            f"{op}: x has {x.shape[1]} channels, which does not fit weight {tuple(w.shape)} with {g.groups} groups"
        )
    size = [
        (x.shape[2 + a] - 1) * g.stride[a] + g.dilation[a] * (w.shape[2 + a] - 1) + 1 + g.output_padding[a] - 2 * g.padding[a]
        for a in (0, 1)
    ]  # fmt: skip
    if min(size) < 1:
        raise ValueError(f"{op}: the output would have size {size}")


def spread(x: Tensor, stride: Sequence[int], around: tuple[int, int, int, int]) -> Tensor:
    """``x`` (N, C, H, W) with ``stride - 1`` zeros between neighbours and (top, left, bottom, right) around; negative crops."""
    n, c, h, w = x.shape
    sh, sw = stride
    if sh > 1 or sw > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, sw - 1, 0, 0, 0, sh - 1)).reshape(n, c, h * sh, w * sw)
    top, left, bottom, right = around
    return F.pad(x, (left, right - (sw - 1), top, bottom - (sh - 1)))


def turned(weight: Tensor, groups: int) -> Tensor:
    """Weight (C, O/groups, kh, kw) of a transposed convolution as that of the convolution: (O, C/groups, kh, kw), reversed."""
    c, o, kh, kw = weight.shape
    grouped = weight.reshape(groups, c // groups, o, kh, kw).transpose(1, 2)
    return grouped.reshape(groups * o, c // groups, kh, kw).flip(2, 3)


def edges(
    kernel: Sequence[int], pads: Sequence[int], extra: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """Border of the spread input; ``pads`` is (top, left, bottom, right)."""
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return (reach[0] - pads[0], reach[1] - pads[1], reach[0] - pads[2] + extra[0], reach[1] - pads[3] + extra[1])


__all__ = ["Spacing", "conv_transpose", "edges", "spread", "turned"]
