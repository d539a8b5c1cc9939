"""Element-wise operators on codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.output import Floats, Operands, Operator, Tensors, check_binary, fake, pair, quantized, settings
from linger.ops.spec import Coded, Output

_sums = {1: checks.native("add"), -1: checks.native("sub")}  # by the sign of the second operand
_sums_codes = {1: checks.native("add_codes"), -1: checks.native("sub_codes")}
_requant_codes = checks.native("requant_codes")
_scale_bias_codes = checks.native("scale_bias_codes")


class _Sum(Operator):
    """``x + y`` or ``x - y``; its gradients need no operand."""

    __slots__ = ("sign",)
    keeps_operands = False

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        return _sums[self.sign](*operands, *settings(out, flags)), ()

    def row(self, grad: Tensor) -> int:
        return 0

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        for_x, for_y = want
        return grad if for_x else None, (grad if self.sign == 1 else -grad) if for_y else None


_ADD, _SUB = _Sum(1), _Sum(-1)


def add(x: Coded, y: Coded, out: Output) -> Coded:
    """The chip's addition: each operand is re-rounded to the output scale, then summed and saturated.

    Args:
        x, y: Operands of one shape; codes int8 or int32.
        out: State and settings; the output scale is at most the smaller operand scale.

    Returns:
        value, codes and scale. The gradient is 1 to both operands, masked by the output's saturation.

    Raises:
        TypeError: An operand is not Coded, ``out`` no Output.
        ValueError: Shapes differ, or a setting is out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "iqAdd".
    """
    return _sum("add", x, y, out, _ADD)


def sub(x: Coded, y: Coded, out: Output) -> Coded:
    """The difference ``x - y``: each operand is re-rounded to the output scale, then subtracted and saturated.

    Args:
        x, y, out: As :func:`add`.

    Returns:
        value, codes and scale. The gradient is 1 and -1, masked by the output's saturation.

    Raises:
        TypeError, ValueError, UnsupportedError: As :func:`add`.

    Source: docs/numerics.md, "iqAdd".
    """
    return _sum("sub", x, y, out, _SUB)


def _sum(name: str, x: Coded, y: Coded, out: Output, op: _Sum) -> Coded:
    check_binary(name, x, y, out)
    _check_shapes(name, x.codes, y.codes)
    floats, operands, dtype = pair(x, y)
    return quantized(op, floats, operands, out, dtype)


def _check_shapes(op: str, x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ValueError(f"{op}: x and y must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")


def add_codes(x: Tensor, y: Tensor, shift_x: int, shift_y: int, bits: int) -> Tensor:
    """``sat(sat(RSH(x, shift_x)) + sat(RSH(y, shift_y)))``.

    Args:
        x, y: Codes of one shape, int8, int16 or int32.
        shift_x, shift_y: 0..63.
        bits: Width of the result.

    Returns:
        int8 up to 8 bits, int16 up to 16, int32 above.

    Raises:
        TypeError: An operand of another dtype.
        ValueError: Shapes differ, a shift or ``bits`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "iqAdd".
    """
    return _sum_codes("add_codes", x, y, shift_x, shift_y, bits, 1)


def sub_codes(x: Tensor, y: Tensor, shift_x: int, shift_y: int, bits: int) -> Tensor:
    """``sat(sat(RSH(x, shift_x)) - sat(RSH(y, shift_y)))``; arguments and errors as :func:`add_codes`.

    Source: docs/numerics.md, "iqAdd".
    """
    return _sum_codes("sub_codes", x, y, shift_x, shift_y, bits, -1)


def _sum_codes(op: str, x: Tensor, y: Tensor, shift_x: int, shift_y: int, bits: int, sign: int) -> Tensor:
    checks.check_codes(op, "x", x)
    checks.check_codes(op, "y", y)
    _check_shapes(op, x, y)
    checks.check_range(op, "shift_x", shift_x, 0, 63)
    checks.check_range(op, "shift_y", shift_y, 0, 63)
    checks.check_range(op, "bits", bits, 2, 32)
    checks.check_device(op, x)
    if x.dtype != torch.int8 or y.dtype != torch.int8:
        x, y = x.to(torch.int32), y.to(torch.int32)
    return checks.narrowed(_sums_codes[sign](x, y, shift_x, shift_y, bits), bits)


def requant_codes(x: Tensor, shift: int, bits: int) -> Tensor:
    """``sat(RSH(x, shift))``, or ``sat(x * 2**-shift)`` for a negative shift.

    Args:
        x: Codes, int8, int16 or int32.
        shift: -63..63.
        bits: Width of the result.

    Returns:
        int8 up to 8 bits, int16 up to 16, int32 above.

    Raises:
        TypeError: ``x`` of another dtype.
        ValueError: ``shift`` or ``bits`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Requant".
    """
    checks.check_codes("requant_codes", "x", x)
    checks.check_range("requant_codes", "shift", shift, -63, 63)
    checks.check_range("requant_codes", "bits", bits, 2, 32)
    checks.check_device("requant_codes", x)
    return checks.narrowed(_requant_codes(checks.widened(x), shift, bits), bits)


def scale_bias_codes(x: Tensor, w: Tensor, b: Tensor, shift: int) -> Tensor:
    """The chip's BatchNorm2dInt: ``sat_8(RSH(x * w[c] + b[c], shift))``.

    Args:
        x: int8 ``(N, C, ...)``.
        w: int8 ``(C,)``.
        b: int32 ``(C,)`` at the product's scale.
        shift: -63..63; a negative shift multiplies and saturates, as venus does.

    Returns:
        int8, shape of ``x``.

    Raises:
        TypeError: An operand of another dtype.
        ValueError: A shape or ``shift`` that does not fit.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "BatchNorm2dInt".
    """
    for name, t, dtype in (("x", x, "torch.int8"), ("w", w, "torch.int8"), ("b", b, "torch.int32")):
        checks.check_dtype("scale_bias_codes", name, t, dtype)
    if x.dim() < 2:
        raise ValueError(f"scale_bias_codes: x must have at least 2 dimensions, got {x.dim()}")
    for name, t in (("w", w), ("b", b)):
        if t.numel() != x.shape[1]:
            raise ValueError(f"scale_bias_codes: {name} must have {x.shape[1]} elements, got {t.numel()}")
    checks.check_range("scale_bias_codes", "shift", shift, -63, 63)
    checks.check_device("scale_bias_codes", x)
    out: Tensor = _scale_bias_codes(x, w, b, shift)
    return out


@fake("linger::add", "linger::sub")
def _fake_sum(x: Tensor, x_scale: Tensor, y: Tensor, y_scale: Tensor) -> tuple[Tensor, int]:
    return checks.empty_dense(checks.pair_order(x, y), torch.float32), 0


@checks.fake("linger::sub_codes")
@checks.fake("linger::add_codes")
def _fake_add_codes(x: Tensor, y: Tensor, shift_x: int, shift_y: int, bits: int) -> Tensor:
    return checks.empty_dense(checks.pair_order(x, y), checks.quantized_dtype(bits))


@checks.fake("linger::requant_codes")
def _fake_requant_codes(x: Tensor, shift: int, bits: int) -> Tensor:
    return checks.empty_dense(x, checks.quantized_dtype(bits))


@checks.fake("linger::scale_bias_codes")
def _fake_scale_bias_codes(x: Tensor, w: Tensor, b: Tensor, shift: int) -> Tensor:
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return checks.empty_dense(x, torch.int8) if last else torch.empty(x.shape, dtype=torch.int8, device=x.device)
