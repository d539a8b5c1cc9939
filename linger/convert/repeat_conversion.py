"""Repeat a recorded conversion on a fresh model: same settings, same fusions, same layers left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from linger.errors import UnsupportedError
from linger.nn.constrained.fused import FusedBN
from linger.nn.constrained.layers import Constrained
from linger.settings import Settings, loads

from .by_hand import release
from .classic import BLEND
from .constrain import apply_constraints
from .conversion import Conversion
from .convertible import own_layer
from .flow import Adjacency
from .own_code import as_written
from .patterns import Selection, names_of, nearest
from .prepare import check_root, log_report, record_of
from .quantize import check_method, quantize

__all__ = ["repeat_conversion", "stage_of"]

_STAGES = ("float", "trace_layers", "constrain", "init")


def stage_of(model: nn.Module) -> str:
    """How far a model has been converted."""
    record = record_of(model)
    return "float" if record is None else record.stage


def repeat_conversion(model: nn.Module, recorded: Mapping[str, Any]) -> str | None:
    """Bring a model to the stage of a checkpoint's record; returns the stage, or None where the model is there already.

    Args:
        model: Converted in place.
        recorded: What ``Record.metadata`` wrote.

    Raises:
        ValueError: The record names a module that this model lacks.
        UnsupportedError: It holds no settings (an older file), or comes from ``trace_layers`` alone.
    """
    stage = str(recorded.get("stage"))
    if stage not in _STAGES or _STAGES.index(stage) <= _STAGES.index(stage_of(model)):
        return None
    check_root(model, "load")
    if stage == "trace_layers":
        raise UnsupportedError("load: the checkpoint comes from linger.trace_layers alone; trace this model first")
    if "settings" not in recorded:
        raise UnsupportedError(
            f"load: the checkpoint does not record its settings; call linger.{stage}(model, ...) first"
        )
    settings = loads(str(recorded["settings"]), "the checkpoint's record")
    if "engine" not in recorded:
        settings = replace(settings, engine=None)
    with as_written(model):
        selection, found = _selection(model, recorded), _neighbours(model, recorded)
        if stage == "constrain":
            blend = {"blend": BLEND} if recorded.get("classic") else {}
            apply_constraints(model, settings, selection, found, **blend)
        else:
            _initialise(model, settings, selection, found, str(recorded.get("fold_bn", "once")))
    return stage


def _initialise(model: nn.Module, settings: Settings, selection: Selection, found: Adjacency, fold_bn: str) -> None:
    check_method(model, settings)
    release(model)
    log_report(quantize(Conversion(model, settings, selection, found, fold_bn)).report)


def _module(names: Mapping[str, nn.Module], name: str) -> nn.Module:
    if name not in names:
        close = nearest(name, names)
        hint = f"; nearest: {', '.join(close)}" if close else ""
        raise ValueError(f"load: the checkpoint was made of another model: {name!r} is no module of this one{hint}")
    return names[name]


def _selection(model: nn.Module, recorded: Mapping[str, Any]) -> Selection:
    """Exactly the layers that were left alone."""
    selection, names = Selection(model), names_of(model)
    for name, why in dict(recorded.get("left", {})).items():
        selection.off[id(_module(names, str(name)))] = str(why)
    return selection


def _neighbours(model: nn.Module, recorded: Mapping[str, Any]) -> Adjacency:
    """The pairs and ReLUs that were found then."""
    names, found = names_of(model), Adjacency()
    done = [*dict(recorded.get("bits", {})), *(name for pair in recorded.get("fusions", []) for name in pair)]
    found.own.update(id(names[str(n)]) for n in done if str(n) in names and own_layer(names[str(n)]))
    relus = {str(name) for name in recorded.get("relu", [])}
    found.before_relu.update(id(_module(names, name)) for name in relus)
    for first, second in recorded.get("fusions", []):
        layer, bn = _module(names, str(first)), _module(names, str(second))
        if isinstance(layer, (FusedBN, Constrained)) and not isinstance(bn, nn.modules.batchnorm._BatchNorm):
            continue  # this model has fused them already
        found.pairs.append((layer, bn, None))
        if first in relus:
            found.before_relu.add(id(bn))
    return found
