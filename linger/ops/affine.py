"""A quantized tensor times one number plus another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.output import Floats, Operands, Operator, Tensors, check_unary, fake, quantized, settings
from linger.ops.spec import Coded, Output

_affine = checks.native("affine")
_affine_bias = checks.native("affine_bias")


class _Affine(Operator):
    """The factor is ``w / 2**w_exp2``; the gradients need no operand."""

    __slots__ = ("b_shape", "w", "w_exp2")
    keeps_operands = False

    def __init__(self, w: int, w_exp2: int, b_shape: torch.Size) -> None:
        self.w, self.w_exp2, self.b_shape = w, w_exp2, b_shape

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        codes, scale = operands
        return _affine(codes, scale, self.w, self.w_exp2, floats[1], *settings(out, flags)), ()

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        for_x, for_b = want
        gx = grad * (self.w * 2.0**-self.w_exp2) if for_x else None
        return gx, grad.sum().reshape(self.b_shape) if for_b else None


def affine(x: Coded, w: int, w_exp2: int, b: Tensor, out: Output) -> Coded:
    """``x * w + b``: an exact integer sum, shifted once to the output scale and saturated.

    Args:
        x: Codes int8.
        w, w_exp2: The factor ``w / 2**w_exp2``, w in -128..127.
        b: float32, one element; its code has the exponent of ``x * w`` and saturates at ``2**30``.
        out: State and settings; the output exponent is at most that of ``x * w``.

    Returns:
        value, codes and scale. The gradients are those of the float expression, masked by the output's saturation; the
        rounding of ``b`` has gradient 1.

    Raises:
        TypeError: ``x`` is not Coded, ``b`` not float32, ``out`` no Output.
        ValueError: A number out of range.
        UnsupportedError: Codes wider than 8 bits, or a device without kernel.

    Source: docs/numerics.md, "A number added".
    """
    checks.check_range("affine", "w", w, -128, 127)
    checks.check_range("affine", "w_exp2", w_exp2, -100, 100)
    _check_addend("affine", b)
    check_unary("affine", x, out)
    checks.check_narrow("affine", "x", x.codes)
    op, floats = _Affine(w, w_exp2, b.shape), (checks.as_float32(x.value), b)
    return quantized(op, floats, (x.codes, x.scale), out, x.value.dtype)


def affine_bias(b: Tensor, x_scale: Tensor, w_exp2: int) -> Tensor:
    """Code of the addend of :func:`affine`, as files hold it: int32, shape of ``b``.

    Args:
        b: float32, one element.
        x_scale: float32 ``[]``.
        w_exp2: Exponent of the factor.

    Raises:
        TypeError: ``b`` or the scale is not float32.
        ValueError: More than one element.

    Source: docs/numerics.md, "A number added".
    """
    _check_addend("affine_bias", b)
    checks.check_scale("affine_bias", "x_scale", x_scale)
    code: Tensor = _affine_bias(b, x_scale, w_exp2)
    return code


def _check_addend(op: str, b: Tensor) -> None:
    if not isinstance(b, Tensor) or b.dtype != torch.float32:
        raise TypeError(f"{op}: b must be a float32 Tensor, got {getattr(b, 'dtype', type(b).__name__)}")
    if b.numel() != 1:
        raise ValueError(f"{op}: b must have one element, got shape {tuple(b.shape)}")


@fake("linger::affine")
def _fake_affine(x: Tensor, x_scale: Tensor, w: int, w_exp2: int, b: Tensor) -> tuple[Tensor, int]:
    return checks.empty_dense(x, torch.float32), x.numel()


@checks.fake("linger::affine_bias")
def _fake_affine_bias(b: Tensor, x_scale: Tensor, w_exp2: int) -> Tensor:
    return torch.empty_like(b, dtype=torch.int32)


__all__ = ["affine", "affine_bias"]
