"""One iqMul by an integer constant: the scalar product itself, and what the chips can only do by multiplying."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from linger.runtime import Tape, Value


def common(tape: Tape) -> dict[str, Any]:
    """Attributes that every element-wise node carries; the chips ignore their values."""
    return {"platform": tape.platform, "quant_mode": "floor_add", "platform_quant": "luna_quant"}


def write_times(
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
    attributes = common(tape) | {
        "x_bits": 8,
        "y_bits": 8,
        "o_bits": 8,
        "scale_x": scale_x,
        "scale_y": scale_y,
        "scale_o": scale_o,
    }
    # a tensor of the file has one scale: equal codes with different scales are two constants
    factor = tape.constant(np.array(code, np.int8), f"{name}.times_{code}_q{math.frexp(scale_y)[1] - 1}")
    tape.node("iqMul", [x, Value(factor)], [target], attributes, domain="linger", hint=name)


__all__ = ["common", "write_times"]
