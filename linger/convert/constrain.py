"""``linger.constrain``: torch layers become float layers whose parameters and outputs are clamped."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from torch import nn

from linger.nn.constrained.fused import FusedBN
from linger.nn.constrained.layers import CONSTRAINED, Constrained
from linger.runtime import Leaf, link
from linger.settings import ClampInfo, Settings

from .by_hand import initialised_parts
from .classic import BLEND
from .convertible import left_alone, obstacle, target_class, unsynchronised
from .flow import Adjacency
from .neighbours import discover, fusable_pairs, standing_notes
from .patterns import Selection, check_operators, check_sections, names_of, with_own_settings
from .prepare import (
    ConversionRecord,
    Fusion,
    check_root,
    former_settings_on_failure,
    log_report,
    open_settings,
    place,
    record_of,
    with_engine,
)
from .report import Report, Row, shortened
from .state import install
from .weight_limits import cut_weights

__all__ = ["apply_constraints", "constrain", "fuse_pairs", "fusion_of", "mark_relu"]

_log = logging.getLogger("linger")
_M = TypeVar("_M", bound=nn.Module)


def fusion_of(names: dict[int, str], layer: nn.Module, bn: nn.Module, first: str) -> Fusion:
    """Names and constants of a fused pair."""
    norm: Any = bn
    return Fusion(
        names[id(layer)], names[id(bn)], first, float(norm.eps), norm.weight is not None, norm.bias is not None
    )


def fuse_pairs(
    names: dict[int, str], found: Adjacency, selection: Selection, limits: Any, blend: float
) -> tuple[list[Fusion], list[Row]]:
    """Turn every fusable pair that is not switched off into one constrained layer."""
    fusions, rows = [], []
    for pair in fusable_pairs(found):
        if selection.disabled(pair.layer) or selection.disabled(pair.bn):
            continue
        name, was = names[id(pair.layer)], f"{type(pair.layer).__name__} + {type(pair.bn).__name__}"
        fusions.append(fusion_of(names, pair.layer, pair.bn, pair.fused.first))
        note = f"with {names[id(pair.bn)]}{unsynchronised(pair.bn)}"
        fused = pair.fused.fuse(pair.layer, pair.bn, limits(name), blend)
        link(fused, pair.bn, name, names[id(pair.bn)])
        fused.ahead_relu = id(pair.bn) in found.before_relu
        rows.append(Row(name, was, type(fused).__name__, note, found.where.get(id(fused), "")))
    return fusions, rows


def mark_relu(m: nn.Module, found: Adjacency) -> None:
    """Remember on a constrained layer that a ReLU is its only consumer."""
    if isinstance(m, Constrained) and id(m) in found.before_relu:
        m.ahead_relu = True


def constrain(
    model: _M,
    config_file: Any = None,
    disable_module: Any = None,
    disable_submodel: Any = None,
    *,
    example_inputs: Any = None,
    engine: str | None = None,
) -> _M:
    """First stage: clamp weights and activations, and fuse every BatchNorm into the layer in front of it.

    The model stays a float model and trains as before. Parameters keep their identity, so an existing optimizer stays
    valid.

    Args:
        model: Changed in place and returned. With ``open_quant: false`` it is returned untouched.
        config_file: YAML file; it becomes the current configuration. None: the current one, device and seed untouched.
        disable_module: Classes that are left alone, subclasses included, e.g. ``(nn.LSTM, nn.Linear)``.
        disable_submodel: Module-name patterns, e.g. ``('classifier*',)``; everything below a match is left alone too.
        example_inputs: A tensor, a tuple or a dict of keyword arguments: one recorded eval forward then tells which
            layers are neighbours. Without it the code is read (``torch.fx``), which dynamic code does not allow.
        engine: ``562ddc7`` or ``later``, recorded for ``init``; None: what the configuration says.

    Raises:
        ConfigError: The file, or a section that names nothing.
        ValueError: A pattern that matches nothing; example inputs that do not run; an unknown engine.
        RuntimeError: The model is already initialised.
    """
    check_root(model, "constrain")
    if initialised_parts(model):
        raise RuntimeError("constrain: the model is already initialised; constrain comes before linger.init")
    with former_settings_on_failure():
        settings = with_engine(open_settings(config_file), engine, record_of(model))
        settings = with_own_settings(settings, model)
        selection = Selection(model, disable_module, disable_submodel, "constrain", settings)
        if not settings.open_quant:
            return model
        check_sections(model, settings)
        check_operators(settings)
        place(model, settings, "constrain")
        earlier = record_of(model)
        if earlier is not None and earlier.stage == "constrain":
            _log.warning("linger.constrain: the model is constrained already (%s): this call gives its layers the limits of its "
                         "settings and changes nothing else; to begin anew, write linger.constrain(%s(), ...)",
                         shortened(earlier.covered), type(model).__name__)  # fmt: skip
        apply_constraints(model, settings, selection, discover(model, example_inputs))
        return model


def apply_constraints(
    model: nn.Module, settings: Settings, selection: Selection, found: Adjacency, *, blend: float = 0.1
) -> None:
    """The conversion itself: neighbours are known, everything has been checked.

    Args:
        model, settings, selection, found: As in ``Conversion``.
        blend: Of the pairs that are fused now (:class:`linger.nn.fused.FusedBN`); 1.0 in the classic form.
    """
    names = {id(m): name for name, m in reversed(names_of(model).items())}

    def limits(name: str) -> ClampInfo:
        return settings.layer(name).clamp

    fusions, rows = fuse_pairs(names, found, selection, limits, blend)
    inside: set[int] = {id(m) for m in model.modules() if isinstance(m, FusedBN) for m in m.children()}
    fresh = {row.name for row in rows}
    for name, m in list(model.named_modules()):
        if id(m) in inside or name in fresh:
            continue
        rows += _one(name, m, selection, limits(name), found, blend)
    for name, m in model.named_modules():
        if isinstance(m, Constrained):
            m.__dict__["_linger_name"] = name  # for messages
    report = Report("constrain", rows)
    report.notes += [*standing_notes(model, found), *cut_weights(model)]
    earlier = record_of(model)
    fusions = [*(earlier.fusions if earlier else ()), *fusions]
    covered = tuple(r.name for r in rows if r.became)
    left = {r.name: r.note for r in report.stayed_float}
    relu = tuple(n for n, m in model.named_modules() if isinstance(m, Constrained) and m.ahead_relu)
    classic = blend == BLEND
    install(
        model,
        ConversionRecord("constrain", settings, tuple(fusions), covered, left, report, relu=relu, classic=classic),
    )
    log_report(report)


def _one(name: str, m: nn.Module, selection: Selection, info: ClampInfo, found: Adjacency, blend: float) -> list[Row]:
    where = found.where.get(id(m), "")
    was = type(m).__name__
    if isinstance(m, Constrained):  # from trace_layers, or a second call
        if isinstance(m, FusedBN):
            why = selection.disabled(m, type(m.layer))
            if why is None and not any((m.normalize_data, *m.limits)):  # from trace_layers: no limits so far
                m.set_blend(blend)
        else:
            why = selection.disabled(m)
        if why is not None:
            return [Row(name, was, "", why, where)]
        m.apply_clamp_info(info)
        return [Row(name, was, was, "limits applied", where)]
    row = None if isinstance(m, Leaf) else target_class(m, CONSTRAINED)  # a layer made by hand is quantized already
    if row is None:
        why = left_alone(m, "constrain")
        return [] if why is None else [Row(name, was, "", selection.disabled(m) or why, where)]
    base, cls = row
    why = selection.disabled(m) or obstacle(m, base, id(m) in found.own)
    if why is not None:
        return [Row(name, was, "", why, where)]
    cls.from_float(m, info)
    mark_relu(m, found)
    return [Row(name, was, cls.__name__, "", where)]
