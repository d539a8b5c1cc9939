"""Numbers in quantized arithmetic: Python constants and learned ones, as factor and as addend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from linger import ops
from linger.chip import OPERATORS
from linger.errors import UnsupportedError
from linger.nn.functional import FunctionalLayer, is_number
from linger.nn.nodes.broadcast import write_channels
from linger.runtime import Tape, guarded, info, is_small

_FINEST = 30  # exponent of a constant factor; smaller numbers lose bits, as a tensor's would
_FINER = 6  # bits by which a sum with a number may be finer than the tensor: the factor 1 is 64 / 2**6
_LEARNED_FINER = 3  # the same where the number is not known in advance


def is_one_number(v: Any) -> TypeGuard[Tensor | float]:
    """Whether an operand is a number: a Python one, a 0-dim float tensor or a Parameter of one element."""
    if not isinstance(v, Tensor):
        return is_number(v)
    return v.numel() == 1 and (v.dim() == 0 or isinstance(v, nn.Parameter)) and info(v) is None


def code_of(number: float) -> tuple[int, int]:
    """A number as int8 code and exponent of its scale, as finely as int8 holds it; finite, below ``2**60`` in magnitude."""
    _, exponent = math.frexp(abs(number))
    exp2 = 0 if number == 0 else min(7 - exponent, _FINEST)
    code = round(number * 2.0**exp2)
    if abs(code) > 127:  # .998 * 128
        code, exp2 = code // 2, exp2 - 1
    return code, exp2


def product_with_number(x: ops.Coded, number: float, out: ops.Output) -> ops.Coded:
    """``x * number`` with :func:`code_of` the number: what an iqMul by that constant computes."""
    return ops.affine(x, *code_of(number), torch.zeros((), device=x.codes.device), out)


def codes_of_parameters(y: Tensor) -> ops.Coded:
    """A float tensor of parameters as int8 codes of one scale, as finely as int8 holds the largest; gradient 1, no statistics.

    The exponent rule of activations may saturate the largest value by a factor of sqrt 2, which in a lone number is all.
    """
    now = y.detach().to(torch.float32)
    peak = now.abs().amax()
    known = peak.isfinite()
    exp2 = (7 - torch.frexp(peak).exponent).clamp(-60, _FINEST)
    scale = torch.where(known, torch.ldexp(torch.ones_like(peak), exp2), torch.nan)
    code = torch.where(known, (now * scale).round().clamp(-128, 127), 0.0)
    return ops.Coded(y + (code / scale - now).to(y.dtype), code.to(torch.int8), scale)


def add_number(layer: FunctionalLayer, x: Tensor, sign: int, y: Tensor | float, *, source: Any = None) -> Tensor:
    """``sign * x + y``, a BatchNorm2dInt whose channels are all alike.

    Args:
        layer: The operator at the call site; its first operand is ``x``.
        x: Any shape.
        sign: 1 or -1.
        y: A number, see :func:`is_one_number`.
        source: What ``y`` was made from, where it is not the user's own.

    Raises:
        UnsupportedError: The result is to have a width that the node lacks.
    """
    bits, chip = layer.output_quantizer.bits, layer.quant.platform
    allowed = OPERATORS["BatchNorm2dInt"][chip].bits
    if bits not in allowed:
        raise UnsupportedError(
            f"linger: output_bits {bits} of '{layer.name}' (a tensor and a number): {chip} adds numbers in "
            f"{' or '.join(map(str, allowed))} bits; set output_bits in a section whose name covers it, in front of others"
        )
    if isinstance(y, Tensor):
        w_exp2, b = _LEARNED_FINER, y.reshape(()).to(torch.float32)
    else:  # coarser for numbers above 1: the sum's 32 bits must hold them at any exponent of x
        w_exp2 = max(0, min(_FINER, _FINER - math.frexp(abs(y))[1]))
        b = torch.tensor(y, dtype=torch.float32, device=x.device)

    def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
        return ops.affine(operands[0], sign << w_exp2, w_exp2, b, out)

    def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
        refuse_graph(tape, layer, y if source is None else source)
        weight, bias = np.array(sign << w_exp2, np.int8), ops.affine_bias(b.detach(), operands[0].scale, w_exp2)
        scales = float(operands[0].scale), 2.0**w_exp2, float(out.scale)
        write_channels(tape, operands[0].value, z.shape, weight, bias.numpy(), scales, z, layer.name)

    z = layer.compute((x,), lambda v: sign * v + y, integers, write)
    return guarded(z, torch.add, x, y) if sign == 1 and is_small(_known(y)) else z


def _known(y: Tensor | float) -> float | None:
    """A number that costs no wait for a device; None for others."""
    if not isinstance(y, Tensor):
        return y
    return None if torch.compiler.is_compiling() or y.device.type != "cpu" else float(y.detach())


def refuse_graph(tape: Tape, layer: FunctionalLayer, y: Any) -> None:
    """Note on the tape a number that the file computes: the chips' constants are constant."""
    if tape.has(y):
        tape.violations.append(
            f"{layer.name}: a number computed in the graph has no dimensions; give it the shape of the other operand"
        )


__all__ = ["add_number", "code_of", "codes_of_parameters", "is_one_number", "product_with_number", "refuse_graph"]
