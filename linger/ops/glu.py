"""Gated linear unit as a chip computes it. ``chip``: 0 arcs and mars, 1 venusA, 2 venus."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks
from linger.ops.output import Unary, along, check_unary, fake, fake_gradient
from linger.ops.spec import Coded, Output

_glu, _glu_codes, _grad = map(checks.native, ("glu", "glu_codes", "glu_grad"))
GATE_EXP2 = (31, 15, 7)  # exponent of the gate, by chip


def glu(x: Coded, out: Output, *, chip: int, dim: int = -1) -> Coded:
    """The first half of an axis times the sigmoid of the second, then an output quantizer.

    Args:
        x: int8 codes; the axis has an even length.
        out: State and settings; the output scale is at most that of ``x`` times the gate's.
        chip: 0, 1 or 2.
        dim: Axis.

    Returns:
        value, codes and scale, the axis halved. The gradient is that of the exact function at ``x``, where no result saturates.

    Raises:
        TypeError, ValueError, UnsupportedError: What does not fit; codes above 8 bits; a device without kernel.

    Source: docs/numerics.md, "GLU".
    """
    check_unary("glu", x, out, narrow=True)
    _check_axis("glu", x.codes, dim)
    return along(Unary(_glu, _grad, F.glu, (chip,)), x, out, dim)


def glu_codes(x: Tensor, exp2: int, chip: int, shift: int, bits: int) -> Tensor:
    """``sat(RSH(a * gate(b), shift))`` along the last axis; a negative shift scales a up first, saturated to 32 bits.

    Args:
        x: int8 codes; the last axis has an even length.
        exp2: log2 of their scale, -126..126.
        chip: 0, 1 or 2.
        shift: -31..63.
        bits: Width of the result: int8 up to 8, int16 up to 16, else int32.

    Raises:
        TypeError, ValueError, UnsupportedError: As :func:`glu`.

    Source: docs/numerics.md, "GLU".
    """
    checks.check_dtype("glu_codes", "x", x, "int8")
    _check_axis("glu_codes", x, -1)
    checks.check_integer_form("glu_codes", x, bits, shift, exp2, lowest=-31)
    y: Tensor = _glu_codes(x, exp2, chip, max(-shift, 0), max(shift, 0), bits)
    return y


def _check_axis(op: str, x: Tensor, dim: int) -> None:
    checks.check_range(op, "dim", dim, -x.dim(), x.dim() - 1)
    if x.shape[dim] % 2:
        raise ValueError(f"{op}: axis {dim} must have an even length, got {x.shape[dim]}")


@fake("linger::glu")
def _fake_glu(x: Tensor, x_scale: Tensor, chip: int) -> tuple[Tensor, int]:
    return x.new_empty([*x.shape[:-1], x.shape[-1] // 2], dtype=torch.float32), x.numel() // 2


@checks.fake("linger::glu_codes")
def _fake_glu_codes(x: Tensor, exp2: int, chip: int, left: int, shift: int, bits: int) -> Tensor:
    return _fake_glu(x, x, chip)[0].to(checks.integer_form_dtype(bits))


fake_gradient("linger::glu_grad")
__all__ = ["GATE_EXP2", "glu", "glu_codes"]
