"""One Requant node: a change of scale or width between two operators of a file."""

from __future__ import annotations

from torch import Tensor

from linger.nn.functional import common_attributes
from linger.runtime import Tape, Value


def write_requant(
    tape: Tape, x: Tensor | Value, scale_x: float, scale_o: float, bits: int, name: str, target: Tensor | None = None
) -> Value | Tensor:
    """int8 codes in another scale or width; 16 and 32 bits by a left shift only.

    Args:
        tape: Where the node goes.
        x, scale_x: int8 operand of the file and its scale.
        scale_o, bits: Scale and width of the result.
        name: Hint for names.
        target: Tensor that the result is; None for one that exists only in the file.
    """
    y: Value | Tensor = tape.value(f"{name}.in") if target is None else target
    attributes = common_attributes(tape) | {"data_bits": 8, "o_bits": bits, "scale_x": scale_x, "scale_o": scale_o}
    tape.node("Requant", [x], [y], attributes, domain="linger", hint=name)
    return y


__all__ = ["write_requant"]
