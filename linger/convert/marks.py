"""Wishes that stand on modules before a model is converted: left alone in one stage, or built with settings of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from linger.nn.constructor import OWN_SETTINGS

__all__ = ["leave_alone", "left_reason", "own_settings", "settings_of"]

_LEFT = "_linger_leave_alone"  # in the __dict__ of a module: stage -> reason


def leave_alone(module: nn.Module, stage: str, reason: str) -> None:
    """Keep a module and everything below it out of a stage (``constrain`` or ``init``) of the model it belongs to.

    Args:
        module: Marked in place.
        stage: The call that will leave it alone.
        reason: What reports say, e.g. ``disable_quant``.
    """
    for m in module.modules():
        m.__dict__.setdefault(_LEFT, {})[stage] = reason


def left_reason(module: nn.Module, stage: str) -> str | None:
    """Why a module has to be left alone in a stage, None where nobody asked for it."""
    reason: str | None = module.__dict__.get(_LEFT, {}).get(stage)
    return reason


def own_settings(module: nn.Module, values: Mapping[str, Any], where: Callable[[nn.Module], bool]) -> None:
    """Give settings of their own to the modules of a tree for which `where` is true; later calls add to earlier ones.

    Args:
        module: Root of the tree, marked in place.
        values: Dotted keys of a section, e.g. ``{"quant_info.weight_bits": 4, "clamp_info.clamp_weight_value": 2.0}``.
        where: Which modules.
    """
    for m in module.modules():
        if where(m):
            m.__dict__.setdefault(OWN_SETTINGS, {}).update(values)


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The settings of its own that a module has, by dotted key."""
    own: dict[str, Any] = module.__dict__.get(OWN_SETTINGS, {})
    return own
