"""One iqMul by an integer constant: the scalar product itself, and what the chips can only do by multiplying."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from linger.nn.functional import pair_attributes
from linger.runtime import Tape, Value


def write_scalar_product(
    tape: Tape,
    x: Tensor | Value,
    scale_x: float,
    code: int,
    scale_y: float,
    target: Tensor | Value,
    scale_o: float,
    name: str,
) -> None:
    """Record ``sat_8(RSH(x * code, q_x + q_y - q_o))``.

    Args:
        tape: Where the node goes.
        x, scale_x: int8 operand of the file and its scale.
        code, scale_y: The constant ``code / scale_y``, -128..127; a rank-0 int8 initializer.
        target, scale_o: Result and its scale, at most ``scale_x * scale_y``.
        name: Hint for names.
    """
    attributes = pair_attributes(tape, (8, 8, 8), (scale_x, scale_y, scale_o))
    factor = scalar_constant(tape, code, scale_y, f"{name}.times")
    tape.node("iqMul", [x, factor], [target], attributes, domain="linger", hint=name)


def scalar_constant(tape: Tape, code: int, scale: float, name: str) -> Value:
    """A rank-0 int8 initializer; a tensor of the file has one scale, so equal codes with different scales are two."""
    return Value(tape.constant(np.array(code, np.int8), f"{name}_{code}_q{math.frexp(scale)[1] - 1}"))


__all__ = ["scalar_constant", "write_scalar_product"]
