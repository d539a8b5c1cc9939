"""One trial: a copy of the float model initialised with some settings and calibrated, and what its outputs keep."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from linger import settings as store
from linger.convert import init
from linger.convert.dry_run import quietly
from linger.errors import ConfigError, UnsupportedError
from linger.measure.sums import Energy
from linger.measure.watch import arguments_of, run
from linger.quantizers import calibration
from linger.runtime import float_tensors
from linger.settings import ClampInfo, QuantInfo, Section, Settings

__all__ = ["Keys", "Trials", "with_keys"]

Keys = Mapping[str, Mapping[str, Any]]
"""Qualified name -> key of ``quant_info`` -> value; the empty name stands for the whole model."""


def with_keys(settings: Settings, keys: Keys) -> Settings:
    """Settings with some keys of ``quant_info`` changed, for the whole model or by a section of one layer's own."""
    everywhere = dict(keys.get("", {}))
    quant = replace(settings.quant_info, **everywhere)
    kept = [s for s in settings.sections if not s.key.startswith("tuned_")]
    mine = []
    for i, (name, own) in enumerate((n, k) for n, k in keys.items() if n):
        base = next((s for s in kept if s.matches(name)), None)
        section = base or Section("", (name,), ClampInfo(), QuantInfo(), settings.platform)
        given = {*section.given, *(f"quant_info.{key}" for key in own)}
        changed = replace(section.quant_info, **own)
        mine.append(replace(section, key=f"tuned_{i + 1}", name=(name,), quant_info=changed, given=tuple(given)))
    return replace(settings, quant_info=quant, sections=(*mine, *kept))


@dataclass
class Trials:
    """What all trials share.

    Args:
        model: Float or constrained; copied for every trial.
        settings: Of the first trial.
        batches: For calibration; the outputs are compared on all of them.
        named: How ``init`` is called beside the settings.
    """

    model: nn.Module
    settings: Settings
    batches: list[Any]
    named: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.wanted = self.outputs()
        self.tried = 0

    def outputs(self) -> list[list[Tensor]]:
        """The float model's outputs, batch by batch."""
        return [self._outputs(self.model, batch) for batch in self.batches]

    def _outputs(self, model: nn.Module, batch: Any) -> list[Tensor]:
        with quietly(model), torch.no_grad():
            args, kwargs = arguments_of(model, batch)
            return [t.detach().clone() for t in float_tensors(run(model, args, kwargs))]

    def same_outputs(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether the float model gives the same bits with other weights."""
        with quietly(self.model):
            twin = copy.deepcopy(self.model)
            self._put(twin, weights)
            found = [self._outputs(twin, batch) for batch in self.batches]
        pairs = [(a, b) for x, y in zip(found, self.wanted, strict=True) for a, b in zip(x, y, strict=True)]
        return all(torch.equal(a, b) for a, b in pairs)

    @torch.no_grad()
    def _put(self, model: nn.Module, weights: Mapping[str, Tensor] | None) -> None:
        for name, value in (weights or {}).items():
            model.get_parameter(name).copy_(value)

    def build(self, keys: Keys, weights: Mapping[str, Tensor] | None = None) -> nn.Module | None:
        """A calibrated model with these settings; None where the chip refuses them.

        Args:
            keys: Settings.
            weights: Parameters of the float model that are other than its own.
        """
        self.tried += 1
        before = store.current()
        with quietly(self.model):
            twin = copy.deepcopy(self.model)
            self._put(twin, weights)
            try:
                store.use(with_keys(self.settings, keys))
                made = init(twin, **self.named)
                with calibration(made), torch.no_grad():
                    for batch in self.batches:
                        args, kwargs = arguments_of(made, batch)
                        made(*args, **kwargs)
            except (UnsupportedError, ConfigError):
                return None
            finally:
                store.use(before)
        return made

    def start(self) -> nn.Module:
        """The model with the settings that the search starts from.

        Raises:
            UnsupportedError, ConfigError: The chip refuses them.
        """
        made = self.build({})
        if made is None:
            before = store.current()
            try:
                store.use(self.settings)
                init(copy.deepcopy(self.model), **self.named)
            finally:
                store.use(before)
            raise UnsupportedError("tune: the model cannot be initialised with the settings it starts from")
        return made

    def quality(self, model: nn.Module) -> float:
        """What the outputs keep of the float model's, in dB; minus infinity where a layer refuses what it is given."""
        energy = Energy()
        for batch, wanted in zip(self.batches, self.wanted, strict=True):
            try:
                found = self._outputs(model, batch)
            except UnsupportedError:  # a width that the reader of a result does not take
                return -math.inf
            for a, b in zip(wanted, found, strict=True):
                energy.add(a, b)
        return math.inf if energy.sqnr is None else energy.sqnr
