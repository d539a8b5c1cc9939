"""Batched product of two quantized tensors. The engine is the convolution's: one group per matrix, one pixel per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks
from linger.ops.output import Floats, Operands, Operator, Tensors, check_binary, pair, quantized, settings
from linger.ops.spec import Coded, Output

_conv = checks.native("conv")
_conv_codes = checks.native("conv_codes")
_dequantize = checks.native("dequantize")
LONGEST = (1 << 17) - 1  # K * 2**14 < 2**31: the convolution's 32-bit accumulator cannot saturate


def _pixels(x: Tensor) -> Tensor:
    """``(B, M, K)`` as an image ``(1, B * K, M, 1)``, channels last."""
    b, m, k = x.shape
    return x.transpose(0, 1).reshape(1, m, 1, b * k).permute(0, 3, 1, 2)


def _kernels(y: Tensor) -> Tensor:
    """``(B, K, N)`` as weights ``(B * N, K, 1, 1)`` of B groups."""
    b, k, n = y.shape
    return y.transpose(1, 2).reshape(b * n, k, 1, 1)


def _rows(image: Tensor) -> Tensor:
    """``(1, B * N, M, 1)`` in channels last as ``(M, B * N)``, the memory order of the mask."""
    return image.permute(0, 2, 3, 1).reshape(image.shape[2], image.shape[1])


def _matrices(rows: Tensor, b: int) -> Tensor:
    """``(M, B * N)`` as ``(B, M, N)``, contiguous; never a view, which user code could not overwrite in place."""
    return rows.view(rows.shape[0], b, rows.shape[1] // b).transpose(0, 1).clone(memory_format=torch.contiguous_format)


class _Bmm(Operator):
    """One group of a convolution per matrix; the mask has its rows."""

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        x, x_scale, y, y_scale = operands
        b, head = x.shape[0], (_pixels(x), x_scale, _kernels(y), y_scale, None, [1, 1], [0, 0, 0, 0], [1, 1])
        value, codes, scale, mask, slope = _conv(*head, b, *settings(out, flags))
        slope = slope if slope.dim() < 4 else _rows(slope)
        return (_matrices(_rows(value), b), _matrices(_rows(codes), b), scale, mask, slope), operands

    def ordered(self, grad: Tensor, layout: tuple[int, ...] | None) -> Tensor:
        b, m, n = grad.shape
        return grad.transpose(0, 1).reshape(m, b * n).contiguous()

    def row(self, grad: Tensor) -> int:
        return grad.shape[1]

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        x, x_scale, y, y_scale = kept
        for_x, for_y = want
        grad = _matrices(grad, x.shape[0])
        gx = grad @ _dequantize(y, y_scale).transpose(1, 2) if for_x else None
        return gx, _dequantize(x, x_scale).transpose(1, 2) @ grad if for_y else None

    def as_graph(
        self, grad: Tensor, kept: Tensors, places: Sequence[Tensor | None], want: Sequence[bool]
    ) -> tuple[Any, ...]:
        return super().as_graph(_matrices(grad, kept[0].shape[0]), kept, places, want)

    def real(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.bmm(x, y)


_BMM = _Bmm()


def bmm(x: Coded, y: Coded, out: Output) -> Coded:
    """``x[b] @ y[b]`` on codes, exactly as the chip computes it; gradients are those of the float product.

    Args:
        x, y: Operands of at most 8 bits.
        out: State and settings; the output scale is at most the product of the operands' scales.

    Shape:
        x ``(B, M, K)``, y ``(B, K, N)`` -> value and codes ``(B, M, N)``, contiguous. Nothing may be empty; K < 2**17.

    Raises:
        TypeError: An operand is not Coded, ``out`` no Output.
        ValueError: Shapes that do not fit together, or a setting out of range.
        UnsupportedError: Operands above 8 bits, or a device without kernel.

    Source: docs/numerics.md, "BmmInt".
    """
    check_binary("bmm", x, y, out)
    if x.codes.dtype != torch.int8 or y.codes.dtype != torch.int8:
        raise UnsupportedError("bmm: the operands must have at most 8 bits")
    _check_shapes("bmm", x.codes, y.codes)
    floats, operands, dtype = pair(x, y)
    return quantized(_BMM, floats, operands, out, dtype)


def bmm_codes(x: Tensor, y: Tensor, shift: int, bits: int) -> Tensor:
    """``sat_bits(RSH(x[b] @ y[b], shift))``.

    Args:
        x: int8 ``(B, M, K)``.
        y: int8 ``(B, K, N)``.
        shift: 0..63.
        bits: Width of the result: int8 up to 8, int16 up to 16, else int32.

    Raises:
        TypeError: An operand of another dtype.
        ValueError: Shapes that do not fit together, ``shift`` or ``bits`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "BmmInt".
    """
    checks.check_dtype("bmm_codes", "x", x, "torch.int8")
    checks.check_dtype("bmm_codes", "y", y, "torch.int8")
    _check_shapes("bmm_codes", x, y)
    checks.check_integer_form("bmm_codes", x, bits, shift)
    b = x.shape[0]
    image: Tensor = _conv_codes(
        _pixels(x), _kernels(y), None, [1, 1], [0, 0, 0, 0], [1, 1], b, shift, bits, False
    )  # fmt: skip
    return _matrices(_rows(image), b)


def _check_shapes(op: str, x: Tensor, y: Tensor) -> None:
    if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1]:
        raise ValueError(f"{op}: x must be (B, M, K) and y (B, K, N), got {tuple(x.shape)} and {tuple(y.shape)}")
    if 0 in (*x.shape, *y.shape) or x.shape[2] > LONGEST:
        raise ValueError(f"{op}: sizes must be >= 1 and K <= {LONGEST}, got {tuple(x.shape)} and {tuple(y.shape)}")


__all__ = ["LONGEST", "bmm", "bmm_codes"]
