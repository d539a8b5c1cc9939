"""Quotients of 32-bit quantized tensors by the accelerator's divider."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linger.ops import checks, gradients
from linger.ops.quantize import quantize
from linger.ops.spec import Coded, Output

_div = checks.native("div")
_div_codes = checks.native("div_codes")
_dequantize = checks.native("dequantize")


class _Div(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Coded, b: Coded, scale: Tensor, links: gradients.Links
    ) -> tuple[Tensor, Tensor]:
        value, codes = _div(a.codes, a.scale, b.codes, b.scale, scale)
        ctx.save_for_backward(a.codes, a.scale, b.codes, b.scale, codes)
        ctx.mark_non_differentiable(codes)
        ctx.links = links
        return value, codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        for_x, for_y, *_rest = ctx.needs_input_grad
        x, x_scale, y, y_scale, codes = ctx.saved_tensors
        info = torch.iinfo(torch.int32)
        inside = (codes > info.min) & (codes < info.max) & (y != 0)
        if gradients.needs_graph(ctx):
            at_x, at_y = ctx.links
            parts = gradients.operand(at_x, x, x_scale), gradients.operand(at_y, y, y_scale)
            both = gradients.differentiated(
                lambda a, b: a / torch.where(inside, b, 1.0), torch.where(inside, grad, 0.0), *parts
            )
            return *both, None, None, None, None
        divisor = _dequantize(y, y_scale)
        gx = torch.where(inside, grad / divisor, 0.0)
        gy = -gx * _dequantize(x, x_scale) / divisor if for_y else None
        return gx if for_x else None, None if gy is None else torch.where(inside, gy, 0.0), None, None, None, None


def div(x: Coded, y: Coded, out: Output) -> Coded:
    """The chip's quotient of two 32-bit tensors.

    Args:
        x, y: Codes int32, of one shape.
        out: State and settings, 32 bits; the statistics see the real quotients. The output exponent is at least that of x
            minus that of y.

    Returns:
        value, codes and scale. The gradients are those of the quotient, 0 where it saturates or the divisor is 0.

    Raises:
        TypeError: An operand is not Coded, or not of int32 codes; ``out`` no Output.
        ValueError: Shapes differ, or a setting is out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Divide".
    """
    checks.check_coded("div", "x", x)
    checks.check_coded("div", "y", y)
    checks.check_output("div", out)
    _check_pair("div", x.codes, y.codes)
    with torch.no_grad():
        real = torch.where(y.codes == 0, 0.0, x.value.detach() / y.value.detach())
        seen = quantize(checks.as_float32(real), out._replace(threshold=None)).scale
        scale = torch.maximum(seen, x.scale / y.scale)
    xv, yv = checks.as_float32(x.value), checks.as_float32(y.value)
    if checks.needs_grad(xv, yv):
        value, codes = _Div.apply(xv, yv, x, y, scale, gradients.links(xv, yv))  # type: ignore[no-untyped-call]
    else:
        value, codes = _div(x.codes, x.scale, y.codes, y.scale, scale)
    return Coded(value, codes, scale)


def div_codes(x: Tensor, y: Tensor, shift: int) -> Tensor:
    """``sat_32(DIV(x, y, shift))`` with the sign of the quotient; a divisor of 0 saturates.

    Args:
        x, y: int32, of one shape.
        shift: 0..62.

    Returns:
        int32.

    Raises:
        TypeError: An operand of another dtype.
        ValueError: Shapes differ, ``shift`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Divide".
    """
    checks.check_codes("div_codes", "x", x)
    checks.check_codes("div_codes", "y", y)
    _check_pair("div_codes", x, y)
    checks.check_range("div_codes", "shift", shift, 0, 62)
    codes: Tensor = _div_codes(x, y, shift)
    return codes


def _check_pair(op: str, x: Tensor, y: Tensor) -> None:
    for name, t in (("x", x), ("y", y)):
        if t.dtype != torch.int32:
            raise TypeError(f"{op}: {name} must hold int32 codes, got {t.dtype}")
    if x.shape != y.shape:
        raise ValueError(f"{op}: x and y must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    checks.check_device(op, x)


@checks.fake("linger::div")
def _fake_div(x: Tensor, x_scale: Tensor, y: Tensor, y_scale: Tensor, out_scale: Tensor) -> tuple[Tensor, Tensor]:
    codes = _fake_div_codes(x, y, 0)
    return torch.empty_like(codes, dtype=torch.float32), codes


@checks.fake("linger::div_codes")
def _fake_div_codes(x: Tensor, y: Tensor, shift: int) -> Tensor:
    return checks.empty_dense(x if x.stride() == y.stride() else x.new_empty(x.shape), torch.int32)


__all__ = ["div", "div_codes"]
