"""Errors of operators know shapes and arguments, not layers: the innermost layer that ran gives them its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from torch import nn

__all__ = ["name_layer"]


def name_layer(error: Exception, layer_class: type[nn.Module]) -> None:
    """Put the qualified name of the layer in which an error arose in front of its sentence, where that lacks it.

    Args:
        error: Raised in a forward; changed in place.
        layer_class: Base of the layers.
    """
    name, trace = "", error.__traceback__
    while trace is not None:
        name, trace = _name(trace, layer_class) or name, trace.tb_next
    said = error.args[0] if len(error.args) == 1 else None
    if name and isinstance(said, str) and f"'{name}" not in said:
        error.args = (f"'{name}': {said}",)


def _name(trace: TracebackType, layer_class: type[nn.Module]) -> str:
    running = trace.tb_frame.f_locals.get("self")
    return str(running.__dict__.get("_linger_name", "")) if isinstance(running, layer_class) else ""
