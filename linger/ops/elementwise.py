"""Element-wise operators on codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.quantize import fake_quantized
from linger.ops.spec import Coded, Output, flags_of

_sums = {1: torch.ops.linger.add.default, -1: torch.ops.linger.sub.default}  # by the sign of the second operand
_sums_codes = {1: torch.ops.linger.add_codes.default, -1: torch.ops.linger.sub_codes.default}
_requant_codes = torch.ops.linger.requant_codes.default
_scale_bias_codes = torch.ops.linger.scale_bias_codes.default
_Operands = tuple[Tensor, Tensor, Tensor, Tensor]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, t: Tensor | None, operands: _Operands, out: Output, sign: int
    ) -> tuple[Tensor, ...]:
        value, codes, scale, mask, slope = _call(operands, t, out, sign, True)
        ctx.sign = sign
        checks.save_output(ctx, t, value, codes, scale, mask, slope)
        return value, codes, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        for_x, for_y, for_t, *_rest = ctx.needs_input_grad
        g, gt = checks.output_grads(ctx, grad, for_x or for_y, for_t)
        gy = g if g is None or ctx.sign == 1 else -g
        return g if for_x else None, gy if for_y else None, gt, None, None, None


def _call(operands: _Operands, t: Tensor | None, out: Output, sign: int, grad: bool) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...]
    result = _sums[sign](*operands, *out.stats, t, out.bits, out.clamp, out.rounding, flags_of(out, grad))
    return result


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
    return _sum("add", x, y, out, 1)


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
    return _sum("sub", x, y, out, -1)


def _sum(op: str, x: Coded, y: Coded, out: Output, sign: int) -> Coded:
    checks.check_coded(op, "x", x)
    checks.check_coded(op, "y", y)
    checks.check_output(op, out)
    if x.codes.shape != y.codes.shape:
        raise ValueError(f"{op}: x and y must have one shape, got {tuple(x.codes.shape)} and {tuple(y.codes.shape)}")
    checks.check_device(op, x.codes)
    if y.value is x.value and torch.compiler.is_compiling():
        # x + x: dynamo refuses one tensor in two places of an autograd.Function
        y = Coded(*(part.view_as(part) for part in y))
    xq, yq = x.codes, y.codes
    if xq.dtype != yq.dtype:
        xq, yq = xq.to(torch.int32), yq.to(torch.int32)
    operands = (xq, x.scale, yq, y.scale)
    xv, yv, t = checks.as_float32(x.value), checks.as_float32(y.value), out.threshold
    if checks.needs_grad(xv, yv, t):
        value, codes, scale = checks.applied(_Sum)(xv, yv, t, operands, out, sign)
    else:
        value, codes, scale, _, _ = _call(operands, t, out, sign, False)
    dtype = torch.promote_types(x.value.dtype, y.value.dtype)
    return Coded(value if dtype == torch.float32 else value.to(dtype), codes, scale)


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
    if x.shape != y.shape:
        raise ValueError(f"{op}: x and y must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
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
    for name, t, dtype in (("x", x, torch.int8), ("w", w, torch.int8), ("b", b, torch.int32)):
        if not isinstance(t, Tensor) or t.dtype != dtype:
            raise TypeError(f"scale_bias_codes: {name} must be {dtype}, got {getattr(t, 'dtype', type(t).__name__)}")
    if x.dim() < 2:
        raise ValueError(f"scale_bias_codes: x must have at least 2 dimensions, got {x.dim()}")
    for name, t in (("w", w), ("b", b)):
        if t.numel() != x.shape[1]:
            raise ValueError(f"scale_bias_codes: {name} must have {x.shape[1]} elements, got {t.numel()}")
    checks.check_range("scale_bias_codes", "shift", shift, -63, 63)
    checks.check_device("scale_bias_codes", x)
    out: Tensor = _scale_bias_codes(x, w, b, shift)
    return out


def _pair(x: Tensor, y: Tensor) -> Tensor:
    """The operand whose strides a two-operand result has."""
    same = all(n < 2 or a == b for n, a, b in zip(x.shape, x.stride(), y.stride(), strict=True))
    return x if same and checks.is_dense(x) else torch.empty(x.shape, dtype=x.dtype, device=x.device)


@checks.fake("linger::sub")
@checks.fake("linger::add")
def _fake_add(
    x: Tensor, x_scale: Tensor, y: Tensor, y_scale: Tensor, running: Tensor, is_init: Tensor, scale: Tensor,
    n_batches: Tensor, n_skipped: Tensor, threshold: Tensor | None, bits: int, clamp: float, rounding: int, flags: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    return fake_quantized(_pair(x, y), bits, threshold, flags)


@checks.fake("linger::sub_codes")
@checks.fake("linger::add_codes")
def _fake_add_codes(x: Tensor, y: Tensor, shift_x: int, shift_y: int, bits: int) -> Tensor:
    return checks.empty_dense(_pair(x, y), checks.code_dtype(bits))


@checks.fake("linger::requant_codes")
def _fake_requant_codes(x: Tensor, shift: int, bits: int) -> Tensor:
    return checks.empty_dense(x, checks.code_dtype(bits))


@checks.fake("linger::scale_bias_codes")
def _fake_scale_bias_codes(x: Tensor, w: Tensor, b: Tensor, shift: int) -> Tensor:
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return checks.empty_dense(x, torch.int8) if last else torch.empty(x.shape, dtype=torch.int8, device=x.device)
