"""What the classic generation means by its calls: no limits but those that were asked for, ``bmm`` in float, blend 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from linger.errors import UnsupportedError
from linger.settings import ClampInfo, QuantMode, Settings, current

from .prepare import record_of

__all__ = ["BLEND", "NO_LIMITS", "classic_settings", "is_classic", "with_keywords"]

BLEND = 1.0  # Conv+BN in training: the true batch normalisation alone, the clamps act in evaluation
NO_LIMITS = ClampInfo(None, None, None, None)
_FLOAT = {"bmm": False}  # operators that stay in float unless they are asked for


def is_classic(model: nn.Module, *keywords: Any) -> bool:
    """Whether a call without a configuration file is of the classic form: one of its keywords, or a classic call before it."""
    record = record_of(model)
    return any(k is not None for k in keywords) or (record is not None and record.classic)


def classic_settings() -> Settings:
    """The current settings in the classic form."""
    settings = replace(current(), clamp_info=NO_LIMITS, file=None, explicit=frozenset())
    return settings.with_operators(_FLOAT | dict(settings.operators))


def with_keywords(settings: Settings, parameter_bits: int | None, mode: Any) -> Settings:
    """Apply ``parameter_bits`` and check ``mode``.

    Raises:
        ValueError: Another mode than ``QuantMode.QValue`` or a rounding.
        UnsupportedError: A width of weights that no chip has.
    """
    if mode is not None and getattr(mode, "name", None) != "QValue" and not isinstance(mode, QuantMode):
        raise ValueError(f"init: mode must be QuantMode.QValue, got {mode!r}")
    if parameter_bits is None:
        return settings
    if parameter_bits not in (4, 8):
        raise UnsupportedError(f"init: parameter_bits={parameter_bits}: the chips have weights of 4 and 8 bits")
    return replace(settings, quant_info=replace(settings.quant_info, weight_bits=parameter_bits))
