"""Widths that a chip lacks: refused before anything is converted, all layers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from linger.chip import OPERATORS
from linger.errors import UnsupportedError
from linger.nn import swaps
from linger.settings import Settings

from .convertible import target_class
from .patterns import names_of

__all__ = ["check_widths"]

_TABLES = {"EmbeddingInt": "Gather"}  # rows of the operator table that are not named after the layer


def check_widths(model: nn.Module, settings: Settings, left_alone: Callable[[nn.Module], bool]) -> None:
    """Refuse widths that no operator of the chip has.

    Args:
        model: Not converted yet.
        settings: Of the whole model.
        left_alone: Whether the caller wants a module to stay in float.

    Raises:
        UnsupportedError: Lists every layer with its width, those of the chip and the key to set.
    """
    found = [
        line
        for name, m in names_of(model).items()
        if not left_alone(m)
        for line in _broken(name or "(root)", m, settings.layer(name))
    ]
    if found:
        raise UnsupportedError(f"init: {settings.platform} has no such widths:\n  " + "\n  ".join(found))


def _broken(name: str, m: nn.Module, quant: Any) -> Iterator[str]:
    row = target_class(m, swaps)
    base = getattr(m, "float_class", None) if row is None else row[0]
    target = swaps.get(base) if base is not None else None
    operator = "" if target is None else _operator(target.__name__, m, quant)
    if not operator:
        return
    allowed = OPERATORS[operator][quant.platform].bits
    for key, bits, has in (("output_bits", quant.output_bits, allowed), ("input_bits", quant.input_bits, (8,))):
        if bits not in has and not (key == "input_bits" and operator == "Gather"):
            known = " or ".join(map(str, has))
            yield f"{name} ({type(m).__name__}): {key} {bits}, {quant.platform} has {known}: set {key} in its section"


def _operator(name: str, m: nn.Module, quant: Any) -> str:
    """Row of the operator table: some 1-D convolutions are 2-D ones of height 1 in files."""
    name = _TABLES.get(name, name)
    if name == "Conv1dInt" and isinstance(m, nn.Conv1d):
        depthwise = m.groups > 1 and m.groups == m.in_channels == m.out_channels
        if depthwise or tuple(m.dilation) != (1,) or quant.weight_bits < 8:
            return "Conv2dInt"
    return name if name in OPERATORS else ""
