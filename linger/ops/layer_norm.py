"""Integer layer normalisation with its output quantizer: checked entries, float gradients, shapes for tracing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.errors import UnsupportedError
from linger.ops import checks, gradients
from linger.ops.output import Floats, Operands, Operator, Tensors, check_unary, fake, quantized, settings
from linger.ops.spec import Coded, Output
from linger.ops.weighted import Weight, quantize_weight, weight_gradients

_layer_norm = checks.native("layer_norm")
_layer_norm_codes = checks.native("layer_norm_codes")
_float_backward = torch.ops.aten.native_layer_norm_backward.default

CHIP_EPS = 1e-5
NORM_EXP2 = 10
LONGEST = 1 << 20
_ONE = 64  # code of the factor 1 where there is no gamma; 4-bit factors hold 4


def nearest_eps(eps: float) -> int:
    """K such that ``1e-5 * 4**k``, which the chips reach by declaring another scale, is nearest to ``eps`` in ratio.

    Args:
        eps: As ``torch.nn.LayerNorm``, >= 0; 0 gives a k that vanishes next to any variance.
    """
    return max(-40, min(40, round(math.log(eps / CHIP_EPS, 4)))) if eps > 0 else -40


def layer_norm(
    x: Coded,
    gamma: Tensor | None,
    beta: Tensor | None,
    gamma_out: Output,
    out: Output,
    *,
    shape: tuple[int, ...],
    eps_shift: int = 0,
    norm_bits: int = 32,
) -> Coded:
    """Layer normalisation of codes, exactly as the chip computes it; gradients are those of the float operator.

    The gradient of gamma passes where its code saturates, too: torch's initial 1 does, everywhere, and would never train.

    Args:
        x: Input of at most 8 bits.
        gamma, beta: Floating point, of ``shape``; None: 1 and 0. gamma is quantized half to even, beta to 32 bits at 2**10
            times gamma's scale.
        gamma_out: Quantizer of gamma, at most 16 bits; unused without gamma.
        out: Quantizer of the result; its scale is at most 2**10 times gamma's.
        shape: The last axes of ``x``, over which mean and variance are taken.
        eps_shift: The chip adds ``1e-5 * 4**eps_shift`` to the variance (:func:`nearest_eps`).
        norm_bits: Width of the normalised value: 32, venus 16.

    Returns:
        value, codes and scale, contiguous, the shape of ``x``.

    Raises:
        UnsupportedError: Codes above 8 bits, gamma above 16, or a device without a kernel.
        TypeError, ValueError: Types, shapes or settings that do not fit together.

    Source: docs/numerics.md, "LayerNormInt".
    """
    _check("layer_norm", x, gamma, beta, gamma_out, out, shape)
    checks.check_range("layer_norm", "eps_shift", eps_shift, -40, 40)
    op = _LayerNorm(shape, eps_shift, _norm_bits("layer_norm", norm_bits))
    gamma = None if gamma is None else checks.as_float32(gamma)
    beta = None if beta is None else checks.as_float32(beta)
    floats = (checks.as_float32(x.value), gamma, beta, None if gamma is None else gamma_out.threshold)
    return quantized(op, floats, (x.codes, x.scale, gamma_out), out, x.value.dtype)


def layer_norm_codes(
    x: Tensor, gamma: Tensor, beta: Tensor, eps_exp2: int, shift: int, bits: int = 8, *, norm_bits: int = 32
) -> Tensor:
    """``sat_bits(RSH(sat_32(norm * gamma) + beta, shift))``, norm in Q10: the integer form of runner and chip.

    Args:
        x: int8 codes ``(..., *gamma.shape)``.
        gamma: Codes of at most 16 bits.
        beta: int32 codes, at 2**10 times gamma's scale.
        eps_exp2: log2 of the scale of ``x``, from which the chip derives what it adds to the variance.
        shift: 0..63.
        bits: Width of the result: int8 up to 8, int16 up to 16, else int32.
        norm_bits: Width of the normalised value: 32, venus 16.

    Raises:
        TypeError, ValueError: Types, shapes or settings that do not fit together.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "LayerNormInt".
    """
    checks.check_dtype("layer_norm_codes", "x", x, "int8")
    checks.check_dtype("layer_norm_codes", "gamma", gamma, "int8", "int16")
    checks.check_dtype("layer_norm_codes", "beta", beta, "int32")
    _check_shape("layer_norm_codes", x, tuple(gamma.shape))
    if beta.shape != gamma.shape:
        raise ValueError(f"layer_norm_codes: beta must have shape {tuple(gamma.shape)}, got {tuple(beta.shape)}")
    checks.check_range("layer_norm_codes", "eps_exp2", eps_exp2, -1000, 1000)
    checks.check_integer_form("layer_norm_codes", x, bits, shift)
    norm = _norm_bits("layer_norm_codes", norm_bits)
    out: Tensor = _layer_norm_codes(x, checks.widened(gamma), beta, eps_exp2, norm, shift, bits)
    return out


def quantize_gamma(
    x_scale: Tensor, gamma: Tensor | None, beta: Tensor | None, out: Output, shape: tuple[int, ...], grad: bool
) -> Weight:
    """Codes of gamma at a scale that leaves beta 32 bits; without gamma the constant 1."""
    norm = torch.full((), 2.0**NORM_EXP2, device=x_scale.device)
    if gamma is not None:
        return quantize_weight(gamma, beta, norm, out, grad)
    one = min(_ONE, 1 << (out.bits - 2))
    codes = torch.full(shape, one, dtype=torch.int8, device=x_scale.device)
    none = codes.new_empty(0)
    return Weight(codes, torch.full((), float(one), device=x_scale.device), none, none)


def _norm_bits(op: str, bits: int) -> int:
    if bits not in (16, 32):
        raise ValueError(f"{op}: norm_bits must be 16 or 32, got {bits}")
    return bits


def _check_shape(op: str, x: Tensor, shape: tuple[int, ...]) -> None:
    n = math.prod(shape)
    if not shape or tuple(x.shape[-len(shape) :]) != shape or n < 1:
        raise ValueError(f"{op}: x must have shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if n > LONGEST:
        raise ValueError(f"{op}: at most {LONGEST} elements are normalised together, got {n}")


def _check(
    op: str, x: Coded, gamma: Tensor | None, beta: Tensor | None, gamma_out: Output, out: Output, shape: tuple[int, ...]
) -> None:
    checks.check_output(op, gamma_out)
    check_unary(op, x, out, narrow=True)
    if gamma_out.bits > 16:
        raise UnsupportedError(f"{op}: gamma must have at most 16 bits, got {gamma_out.bits}")
    _check_shape(op, x.codes, shape)
    for name, t in (("gamma", gamma), ("beta", beta)):
        if t is None:
            continue
        checks.check_float(op, name, t)
        if tuple(t.shape) != shape:
            raise ValueError(f"{op}: {name} must have shape {shape}, got {tuple(t.shape)}")


class _LayerNorm(Operator):
    """Its floats are x, gamma, beta and gamma's threshold; its operands codes and scale of x, and gamma's quantizer."""

    __slots__ = ("eps_shift", "norm_bits", "shape")

    def __init__(self, shape: tuple[int, ...], eps_shift: int, norm_bits: int) -> None:
        self.shape, self.eps_shift, self.norm_bits = shape, eps_shift, norm_bits

    def eps(self) -> float:
        return CHIP_EPS * 4.0**self.eps_shift

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        _value, gamma, beta, _t = floats
        codes, scale, gamma_out = operands
        w = quantize_gamma(scale, gamma, beta, gamma_out, self.shape, bool(want) and want[3])
        state, form = settings(out, flags)[:6], settings(out, flags)[6:]
        results = _layer_norm(codes, scale, w.codes, w.scale, beta, *state, self.eps_shift, self.norm_bits, *form)
        return results, (codes, scale, *w)

    def row(self, grad: Tensor) -> int:
        return math.prod(self.shape)

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        codes, scale, *weight = kept
        w, gamma_t = Weight(*weight), None
        want_x, want_gamma, want_beta, want_t = want
        with checks.no_autocast(grad):
            x, gamma = gradients.dequantized(codes.contiguous(), scale), gradients.dequantized(w.codes, w.scale)
            _normal, mean, factor = torch.native_layer_norm(x, list(self.shape), None, None, self.eps())
            wanted = [want_x, want_gamma or want_t, want_beta]
            gx, gw, gb = _float_backward(
                grad, x, list(self.shape), mean, factor, gamma, torch.zeros_like(gamma), wanted
            )
        if want_t:
            _, gamma_t = weight_gradients(gw, w, False, True)
        return gx, gw if want_gamma else None, gb, gamma_t

    def as_graph(
        self, grad: Tensor, kept: Tensors, places: Sequence[Tensor | None], want: Sequence[bool]
    ) -> tuple[Any, ...]:
        at_x, at_gamma, _beta, at_t, _out = places
        codes, scale, *weight = kept
        w = Weight(*weight)
        x = gradients.operand(at_x, codes.contiguous(), scale)
        if at_t is None:
            gamma = gradients.operand(at_gamma, w.codes, w.scale)
        else:  # the gradient of gamma passes where its code saturates, too
            gamma = gradients.weight_operand(at_gamma, at_t, w._replace(mask=torch.full_like(w.mask, 255)))
        gx, gw = gradients.differentiated(self.real, grad, x, gamma)
        gb = grad.reshape(-1, *self.shape).sum(0) if want[2] else None
        gt = None if gw is None or at_t is None else checks.threshold_grad(gw, w.slope, w.scale, at_t)
        return gx, gw if at_gamma is not None else None, gb, gt

    def real(self, x: Tensor, gamma: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, gamma, None, self.eps())


@fake("linger::layer_norm")
def _fake_layer_norm(
    x: Tensor, x_scale: Tensor, gamma: Tensor, gamma_scale: Tensor, beta: Tensor | None
) -> tuple[Tensor, int]:
    return x.new_empty(x.shape, dtype=torch.float32), gamma.numel()


@checks.fake("linger::layer_norm_codes")
def _fake_layer_norm_codes(
    x: Tensor, gamma: Tensor, beta: Tensor, eps_exp2: int, norm_bits: int, shift: int, bits: int
) -> Tensor:
    return x.new_empty(x.shape, dtype=checks.integer_form_dtype(bits))


__all__ = ["LONGEST", "NORM_EXP2", "layer_norm", "layer_norm_codes", "nearest_eps", "quantize_gamma"]
