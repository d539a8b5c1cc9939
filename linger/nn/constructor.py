"""What constructors of layers take beyond the arguments of their torch class: widths and limits, by keyword or by position."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from linger.settings import ClampInfo, LayerSettings, QuantMode, current

__all__ = ["BY_HAND", "OWN_SETTINGS", "also_positional", "settings_of_arguments"]

BY_HAND = "_linger_by_hand"  # in the __dict__ of a layer that is not part of a model so far
OWN_SETTINGS = "_linger_own_settings"  # in the __dict__ of a layer: dotted key of a section -> value
_RECURRENT = 7  # arguments of recurrent layers in front of the others: torch's signature does not list them
_WIDTHS = {"data_bits": (8, 16, 32), "parameter_bits": (4, 8, 16), "o_bits": (8, 16, 32)}
_F = TypeVar("_F", bound=Callable[..., None])


def _arguments_of_torch(cls: Any) -> int:
    """How many arguments a layer's torch class takes by position in front of ``device`` and ``dtype``."""
    base = getattr(cls, "float_class", None) or next(c for c in cls.__mro__ if c.__module__.startswith("torch.nn."))
    names = list(inspect.signature(base.__init__).parameters)[1:]
    return names.index("device") if "device" in names else _RECURRENT


def also_positional(*names: str) -> Callable[[_F], _F]:
    """Decorate an ``__init__``: the arguments of these names may also follow those of the torch class by position.

    torch has ``device`` and ``dtype`` there; a device or a dtype is still taken for one.
    """

    def decorate(init: _F) -> _F:
        @functools.wraps(init)
        def by_position(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            own = _arguments_of_torch(type(self))
            more = args[own:]
            if more and not isinstance(more[0], (str, torch.device)) and not any(type(v) is torch.dtype for v in more):
                if len(more) > len(names):
                    raise TypeError(
                        f"{type(self).__name__}: takes {own + len(names)} arguments by position, got {len(args)}"
                    )
                args, named = args[:own], dict(zip(names, more, strict=False))
                twice = sorted(set(named) & set(kwargs))
                if twice:
                    raise TypeError(f"{type(self).__name__}: {twice[0]} is given twice")
                kwargs |= named
            init(self, *args, **kwargs)

        return by_position  # type: ignore[return-value]

    return decorate


def settings_of_arguments(
    layer: nn.Module,
    data_bits: int | None,
    parameter_bits: int | None,
    mode: QuantMode | None,
    o_bits: int | None,
    clamps: tuple[float | None, float | None, float | None],
) -> LayerSettings:
    """Settings of a layer that is made by hand, and the note from which ``linger.init`` gives it the same in its model.

    Args:
        layer: Marked in place.
        data_bits, parameter_bits, o_bits: Widths of input, weight and output; None: those of the current configuration.
        mode: Rounding of the output; None: that of the current configuration.
        clamps: Limits of output, weight and bias in real units; None: off.

    Raises:
        ValueError: A width that no chip has.
        ConfigError: A limit that is not above 0.
    """
    name = type(layer).__name__
    given = {"data_bits": data_bits, "parameter_bits": parameter_bits, "o_bits": o_bits}
    for key, bits in given.items():
        if bits is not None and bits not in _WIDTHS[key]:
            raise ValueError(f"{name}: {key} must be one of {', '.join(map(str, _WIDTHS[key]))}, got {bits!r}")
    if mode is not None and not isinstance(mode, QuantMode):
        raise ValueError(f"{name}: mode must be a member of QuantMode, got {mode!r}")
    limits = ClampInfo(clamps[0], clamps[2], None, clamps[1])
    keys = {"input_bits": data_bits, "weight_bits": parameter_bits, "output_bits": o_bits}
    widths: dict[str, Any] = {key: bits for key, bits in keys.items() if bits is not None}
    own = {f"quant_info.{key}": bits for key, bits in widths.items()} | {
        f"clamp_info.{key}": value for key, value in vars(limits).items()
    }
    settings = replace(current().layer(""), clamp=limits, **widths)
    if mode is not None:
        own["quant_info.round_mode"] = mode.name
        settings = replace(settings, rounding=mode)
    layer.__dict__ |= {OWN_SETTINGS: own, BY_HAND: True}
    return settings
