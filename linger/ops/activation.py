"""Sigmoid, tanh, GELU and swish as a chip computes them. ``table`` is the chip's function, a row of ``linger.chip.CURVES``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks, gradients
from linger.ops.output import Tensors, Unary, check_unary, fake, quantized
from linger.ops.spec import Coded, Output

_chip_function = checks.native("chip_function")
_activation = checks.native("activation")
_quantized = checks.native("activation_quantized")
_codes = checks.native("activation_codes")
_grad = checks.native("activation_grad")
_REAL = (torch.sigmoid, torch.tanh) * 3 + (F.gelu, F.silu)  # by table
Q27 = 27  # exponent of the 32-bit results of GELU and swish


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, codes: Tensor, scale: Tensor, table: int, bits: int, links: gradients.Links
    ) -> Tensors:
        y, y_codes, y_scale = _activation(codes, scale, table, bits)
        ctx.save_for_backward(codes, scale)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(y_codes, y_scale)
        ctx.curve, ctx.links = _curve(table), links
        return y, y_codes, y_scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        gx = None
        if grad is not None:
            if gradients.needs_graph(ctx):
                (gx,) = ctx.curve.as_graph(grad, ctx.saved_tensors, (*ctx.links, None), (True,))
            else:
                (gx,) = ctx.curve.gradients(grad, ctx.saved_tensors, (True,))
        return gx, *(None,) * 5


def _curve(table: int) -> Unary:
    """GELU and swish; their gradient and float form, and those of sigmoid and tanh."""
    return Unary(_quantized, _grad, _REAL[table], (table,), (table,))


def chip_function(x: Tensor, table: int, bits: int) -> Tensor:
    """One function of a chip on its own fixed formats.

    Args:
        x: int32, Q27 (venus: Q11 within int16), any shape.
        table: Row of the function.
        bits: Width of the result, one that the chip has.

    Returns:
        int8, int16 or int32; Q7, Q15, Q31 (GELU, swish: Q3, Q11, Q27).

    Raises:
        TypeError: ``x`` is not int32.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Chip functions".
    """
    checks.check_dtype("chip_function", "x", x, "int32")
    checks.check_device("chip_function", x)
    y: Tensor = _chip_function(x, table, bits)
    return y.to(checks.integer_form_dtype(bits))


def activation(x: Coded, table: int, bits: int) -> Coded:
    """Sigmoid or tanh: the operand is brought to the chip's fixed format, the result keeps the function's own, Q(bits - 1).

    Args:
        x: Codes int8 or int32, any scale.
        table: Row of the function.
        bits: Width of the result, one that the chip has.

    Returns:
        value, codes and scale ``2**(bits - 1)``. The gradient is the derivative of the exact function at ``x``.

    Raises:
        TypeError: ``x`` is not Coded.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Sigmoid and tanh".
    """
    checks.check_coded("activation", "x", x)
    checks.check_device("activation", x.codes)
    value = checks.as_float32(x.value)
    if checks.needs_grad(value):
        y, codes, scale = _Activation.apply(  # type: ignore[no-untyped-call]
            value, x.codes, x.scale, table, bits, gradients.links(value)
        )
    else:
        y, codes, scale = _activation(x.codes, x.scale, table, bits)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), codes, scale)


def quantized_activation(x: Coded, table: int, out: Output) -> Coded:
    """GELU or swish: the chip's Q27 result, then an output quantizer.

    Args:
        x: Codes int8 or int32, any scale.
        table: Row of the function.
        out: State and settings; the output scale is at most ``2**27``.

    Returns:
        value, codes and scale. The gradient is the derivative of the exact function at ``x``, where the result does not saturate.

    Raises:
        TypeError: ``x`` is not Coded, ``out`` no Output.
        ValueError: A setting out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "GELU and swish".
    """
    check_unary("quantized_activation", x, out)
    return quantized(_curve(table), (checks.as_float32(x.value),), (x.codes, x.scale), out, x.value.dtype)


def activation_codes(x: Tensor, exp2: int, table: int, bits: int) -> Tensor:
    """A chip's function on codes of any scale; the result keeps the function's own format.

    Args:
        x: Codes, int8, int16 or int32.
        exp2: log2 of their scale, -126..126.
        table: Row of the function.
        bits: Width of the result, one that the chip has.

    Returns:
        int8, int16 or int32, as :func:`chip_function`.

    Raises:
        TypeError: ``x`` of another dtype.
        ValueError: ``exp2`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Chip functions".
    """
    checks.check_codes("activation_codes", "x", x)
    checks.check_range("activation_codes", "exp2", exp2, -126, 126)
    checks.check_device("activation_codes", x)
    y: Tensor = _codes(checks.widened(x), exp2, table, bits)
    return y


@checks.fake("linger::chip_function")
def _fake_chip_function(x: Tensor, table: int, bits: int) -> Tensor:
    return x.new_empty(x.shape)


@checks.fake("linger::activation")
def _fake_activation(x: Tensor, x_scale: Tensor, table: int, bits: int) -> tuple[Tensor, ...]:
    value = checks.empty_dense(x, torch.float32)
    return value, checks.empty_dense(x, checks.quantized_dtype(bits)), value.new_empty([])


@fake("linger::activation_quantized")
def _fake_quantized(x: Tensor, x_scale: Tensor, table: int) -> tuple[Tensor, int]:
    return checks.empty_dense(x, torch.float32), x.numel()


@checks.fake("linger::activation_codes")
def _fake_codes(x: Tensor, exp2: int, table: int, bits: int) -> Tensor:
    return checks.empty_dense(x, checks.integer_form_dtype(bits))


@checks.fake("linger::activation_grad")
def _fake_grad(grad: Tensor, x: Tensor, x_scale: Tensor, table: int) -> Tensor:
    same = checks.pair_order(x, grad) is x
    return checks.empty_dense(grad, torch.float32) if same else grad.new_empty(grad.shape)


__all__ = ["Q27", "activation", "activation_codes", "chip_function", "quantized_activation"]
