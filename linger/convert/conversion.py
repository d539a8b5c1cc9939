"""The walk of ``linger.init`` over a model: BatchNorms are folded, layers replaced, what stays float gets its reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from linger import runtime
from linger.nn import MultiheadAttentionInt, RecurrentInt, swaps
from linger.nn.base import clamp_once
from linger.nn.constrained.fused import EmptyBatchNorm, FusedBN, fold
from linger.nn.constrained.layers import Constrained, clamp
from linger.nn.layers.batch_norm_folding import FOLDING
from linger.nn.masks import renew, settle, stored
from linger.quantizers import CUT_SAID, Quantizer
from linger.settings import Settings

from .constrain import fusion_of
from .convertible import left_alone, obstacle, target_class, unsynchronised
from .flow import Adjacency
from .neighbours import Pair, fusable_pairs, standing_notes
from .own_code import LIMITED, user_class
from .patterns import Selection, limits_of, names_of
from .prepare import CHOSEN, ConversionRecord, Fusion, record_of
from .report import Report, Row

__all__ = ["Conversion"]


class Conversion:
    """One walk over a model: fold, replace, report.

    Args:
        model: Its neighbours are known, everything has been checked.
        settings: Of the whole model.
        selection: Layers that the caller wants left alone.
        found: Who feeds whom.
        fold_bn: ``"once"`` or ``"step"``.
        quant_modules: The only classes to convert; None: all.
        by_hand: Ids of the layers that were constructed as quantized ones (:mod:`by_hand`): they are converted in any case.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        selection: Selection,
        found: Adjacency,
        fold_bn: str,
        quant_modules: Any = None,
        by_hand: Collection[int] = (),
    ) -> None:
        self.model, self.settings, self.selection, self.found, self.fold_bn = model, settings, selection, found, fold_bn
        self.names = {id(m): name for name, m in reversed(names_of(model).items())}
        self.users: dict[int, set[int]] = {}  # id of a Parameter -> ids of the modules that hold it
        for m in model.modules():
            for p in m._parameters.values():
                if p is not None:
                    self.users.setdefault(id(p), set()).add(id(m))
        only = (quant_modules,) if isinstance(quant_modules, type) else quant_modules
        self.only = None if only is None else {c: c for c in only}
        self.by_hand = by_hand
        self.alone: dict[int, str] = {}  # id of a BatchNorm behind a layer -> why it is not folded
        self.rows: list[Row] = []
        self.fusions: list[Fusion] = []
        self.earlier = record_of(model)

    def run(self) -> ConversionRecord:
        """Convert everything and return what was done."""
        for pair in fusable_pairs(self.found, own=True):
            self._pair(pair)
        fresh = {row.name for row in self.rows}
        before = {name: limits_of(m) for name, m in names_of(self.model).items()}
        inside: set[int] = set()
        for name, m in list(self.model.named_modules()):
            if id(m) in inside or name in fresh or id(m) not in self.names:  # the last: made by a conversion
                continue
            if isinstance(m, FusedBN):
                inside.update(id(c) for c in m.children())
            self._one(name, m)
        report = Report("init", self.rows)
        report.notes += standing_notes(self.model, self.found)
        covered = tuple(r.name for r in self.rows if r.became)
        left = {r.name: r.note for r in report.stayed_float}
        if self.earlier is not None:
            report.notes += _differences(self.earlier, covered, left)
            report.notes += _limit_differences(before, self.settings, covered)
        fusions = (*(self.earlier.fusions if self.earlier else ()), *self.fusions)
        relu = tuple(n for n, m in self.model.named_modules() if getattr(m, "fused_relu", False))
        return ConversionRecord("init", self.settings, fusions, covered, left, report, self.fold_bn, relu)

    def left_alone(self) -> Callable[[nn.Module], bool]:
        """Whether a module gets no layer of its own: the caller's wish, or a BatchNorm that will be folded."""
        folded = {id(pair.bn) for pair in fusable_pairs(self.found, own=True)}
        return lambda m: id(m) in folded or self._why(m) is not None

    def _row(self, m: nn.Module, was: str, became: str, note: str = "") -> None:
        self.rows.append(Row(self.names[id(m)], was, became, note, self.found.where.get(id(m), "")))

    def _why(self, m: nn.Module, *also: type[nn.Module]) -> str | None:
        """Why the caller wants this module left alone."""
        why = self.selection.disabled(m, *also)
        only = self.only
        if (
            why is not None
            or only is None
            or id(m) in self.by_hand
            or target_class(m, only)
            or any(issubclass(c, o) for c in also for o in only)
        ):
            return why
        return "not in quant_modules"

    def _foldable(self, layer: Any, bn: Any, base: type[nn.Module]) -> str | None:
        """Why a pair that is adjacent cannot be folded; None when it can."""
        if base not in swaps or (self.fold_bn == "step" and base not in FOLDING):
            return f"{base.__name__} has no quantized form"
        if bn.running_mean is None:
            return "it keeps no running statistics (track_running_stats=False)"
        if self.fold_bn == "once" and len(self.users.get(id(stored(layer, "weight")), ())) > 1:
            return "the weight in front of it is shared with another module"
        return None

    def _pair(self, pair: Pair) -> None:
        layer: Any = pair.layer
        bn: Any = pair.bn
        if isinstance(layer, Constrained) and self._why(layer, layer.float_class):
            return
        if self.selection.disabled(layer) or self.selection.disabled(bn) or self._why(layer, pair.fused):
            return
        why = self._foldable(layer, bn, pair.fused.float_class)
        if why is not None:
            if bn.running_mean is None:  # nor can it stand alone in a file
                self._row(bn, type(bn).__name__, "", f"not folded: {why}")
            self.alone[id(bn)] = f"not folded: {why}"
            return
        was = f"{type(layer).__name__} + {type(bn).__name__}"
        name, relu = self.names[id(layer)], id(bn) in self.found.before_relu
        self.fusions.append(fusion_of(self.names, layer, bn, pair.fused.first))
        note = f"with {self.names[id(bn)]}"
        if self.fold_bn == "step":
            note += unsynchronised(bn)
            self._finish(FOLDING[pair.fused.float_class].from_pair(layer, bn, self.settings.layer(name)), relu)
            note += ", folded in every step"
        else:
            _fold_into(layer, bn)
            EmptyBatchNorm.replace(bn)
            self._swap(layer, pair.fused.float_class, relu)
        runtime.link(layer, bn, name, self.names[id(bn)])
        self._row(layer, was, type(layer).__name__, note)

    def _one(self, name: str, m: nn.Module) -> None:
        was = type(m).__name__
        if runtime.FOLDED_INTO in m.__dict__:  # its code goes on running, its arithmetic is the layer's in front of it
            return
        if id(m) in self.selection.off or next(m.children(), None) is None and self.selection.disabled(m):
            m.__dict__[runtime.LEFT_FLOAT] = True
        if isinstance(m, FusedBN):
            self._fused(m)
            return
        row = target_class(m, swaps)
        if row is None:
            why = left_alone(m, "init")
            if isinstance(m, Constrained):
                why = f"{was} has no quantized form"
            if why is not None:
                self._row(m, was, "", self._why(m) or why)
            return
        base = row[0]
        torch_class = m.float_class if isinstance(m, Constrained) else base
        why = self._why(m) or (None if isinstance(m, Constrained) else obstacle(m, base, id(m) in self.found.own))
        if why is not None:
            if self._why(m):
                m.__dict__[runtime.LEFT_FLOAT] = True
            self._row(m, was, "", self.alone.get(id(m), why))
            return
        relu = id(m) in self.found.before_relu or bool(getattr(m, "ahead_relu", False))
        self._swap(m, torch_class, relu)
        self._row(m, was, type(m).__name__, self.alone.get(id(m), getattr(m, "difference", "")))

    def _fused(self, m: FusedBN) -> None:
        """A constrained pair: its layer and BatchNorm, folded."""
        was = type(m).__name__
        bn, base = m.bn, m.float_class
        why = self._why(m, base, m.bn_class) or None
        if why is None and (base not in swaps or (self.fold_bn == "step" and base not in FOLDING)):
            why = f"{base.__name__} has no quantized form"
        if why is None and bn.running_mean is None:
            why = "its BatchNorm keeps no running statistics (track_running_stats=False)"
        if why is not None:
            self._row(m, was, "", why)
            return
        relu = id(m) in self.found.before_relu or m.ahead_relu
        m.unfuse()
        if self.fold_bn == "step":
            self._finish(FOLDING[base].from_pair(m, bn, self.settings.layer(self.names[id(m)])), relu)
        else:
            _fold_into(m, bn)
            self._swap(m, base, relu)
            self._clamp_now(m)
        self._row(m, was, type(m).__name__)

    def _swap(self, m: nn.Module, base: type[nn.Module], relu: bool) -> None:
        constrained = isinstance(m, Constrained) or LIMITED in m.__dict__
        if isinstance(m, Constrained):
            m.__class__ = user_class(m) or base  # type: ignore[assignment]
        layer: Any = swaps[base]
        self._finish(layer.from_float(m, self.settings.layer(self.names[id(m)])), relu)
        if constrained:
            self._clamp_now(m)

    def _finish(self, m: Any, relu: bool) -> None:
        m.fused_relu = relu
        for key in ("normalize_data", "normalize_weight", "normalize_bias", "normalize_factor"):
            m.__dict__.pop(key, None)  # of a first stage; the settings have them
        device = next((p.device for p in m._parameters.values() if p is not None), None)
        for child in m.children():
            child.to(device)

    def _clamp_now(self, m: Any) -> None:
        """A layer that was constrained computes with clamped parameters already: keep them."""
        info = m.quant.clamp
        for quantizer in m.modules():
            if isinstance(quantizer, Quantizer) and quantizer.role == "weight":  # nothing here: the report says it
                quantizer.__dict__[CUT_SAID] = m.__dict__.get(CUT_SAID, False)
        if isinstance(m, (RecurrentInt, MultiheadAttentionInt)):
            m.keep_constrained()
            return
        if m.weight is not None:
            clamp_once(m)
        bias = getattr(m, "bias", None)  # embeddings have none
        if bias is not None and bias.requires_grad and info.clamp_bias_value is not None:
            with torch.no_grad():
                bias.copy_(clamp(bias.detach(), info.clamp_bias_value))


def _fold_into(layer: Any, bn: Any) -> None:
    """Write the folded weight and bias into the layer; the weight keeps its identity and mask, a missing bias is created."""
    settle(bn, "weight", "bias")
    settle(layer, "bias")
    with torch.no_grad():
        renew(layer)
        w, b = fold(layer, bn, bn.running_mean, bn.running_var)
        keeps = stored(layer, "weight")
        if keeps is not None and keeps is not layer.weight:
            transposed, groups = getattr(layer, "transposed", False), getattr(layer, "groups", 1)
            whole = SimpleNamespace(weight=keeps, bias=layer.bias, transposed=transposed, groups=groups)
            w = fold(whole, bn, bn.running_mean, bn.running_var)[0]
        if keeps is not None:
            keeps.copy_(w)
        renew(layer)
        if layer.bias is None:
            trainable = bn.bias.requires_grad if bn.bias is not None else layer.weight.requires_grad
            layer.bias = nn.Parameter(b.to(layer.weight.dtype), requires_grad=trainable)
        else:
            layer.bias.copy_(b)


def _differences(earlier: ConversionRecord, covered: tuple[str, ...], left: Mapping[str, str]) -> list[str]:
    """Layers that one stage converted and the other left alone."""
    if earlier.stage != "constrain":
        return []
    notes = [f"{n}: constrained=off, quantized=on" for n in covered if earlier.left.get(n, "").startswith(CHOSEN)]
    return notes + [f"{n}: constrained=on, quantized=off" for n in left if n in earlier.covered]


def _limit_differences(
    before: Mapping[str, Mapping[str, Any]], settings: Settings, covered: tuple[str, ...]
) -> list[str]:
    """Limits that hold otherwise than the first stage trained with, each with its layers."""
    found: dict[str, list[str]] = {}
    for name in covered:
        here = vars(settings.layer(name).clamp)
        for key, there in before.get(name, {}).items():
            own = key.rpartition(".")[2]
            if here[own] != there:
                found.setdefault(f"{own}: {there} in the first stage, {here[own]} here", []).append(name)
    return [
        f"{what}, in {', '.join(names)}; linger.init(..., inherit=True) takes the first stage's"
        for what, names in found.items()
    ]
