"""``linger.init(..., inherit=True)``: the second stage goes on as the first one began."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from linger.settings import Settings

from .patterns import Selection
from .prepare import CHOSEN, ConversionRecord, record_of

__all__ = ["inherit_exceptions", "inherited_settings"]


def _first_stage(model: nn.Module) -> ConversionRecord:
    record = record_of(model)
    if record is None or record.stage != "constrain":
        raise ValueError(
            "init: inherit=True, but the model has no first stage: call linger.constrain, or load its checkpoint"
        )
    return record


def inherited_settings(model: nn.Module, settings: Settings, whole: bool) -> Settings:
    """The settings of the second stage of a model.

    Args:
        model: Constrained.
        settings: What the call says without the first stage.
        whole: The first stage's configuration holds; only operators that setters have switched since are as in ``settings``.

    Raises:
        ValueError: The model has no first stage.
    """
    first = _first_stage(model).settings
    if not whole:
        return settings
    return replace(first, file=None, explicit=frozenset()).with_operators(dict(settings.operators))


def inherit_exceptions(model: nn.Module, selection: Selection) -> None:
    """Leave alone what the first stage was told to leave alone."""
    for name, why in _first_stage(model).left.items():
        if why.startswith(CHOSEN) and name in selection.names:
            selection.off.setdefault(id(selection.names[name]), f"{why} in the first stage")
