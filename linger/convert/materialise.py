"""Operators of user code come to life in one eval forward, before an optimizer is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from linger import runtime
from linger.quantizers import Quantizer

from .neighbours_from_forward import bind_inputs, undisturbed

__all__ = ["materialise", "name_quantizers", "rest_unused"]


def materialise(model: nn.Module, example_inputs: Any) -> None:
    """Create the operators of user code by one eval forward that moves no statistics and warns of none."""
    args, kwargs = bind_inputs(model, example_inputs)
    made: list[tuple[nn.Module, dict[str, nn.Module | None]]] = []
    owned: list[tuple[nn.Module, dict[str, Any]]] = []
    with undisturbed(model), torch.no_grad():
        used = runtime.state.used = set()
        try:
            model(*args, **kwargs)
        finally:
            runtime.state.used = None
        idle = _idle(model, used.__contains__)
        for m in model.modules():
            if runtime.is_owner(m):
                made.append((m, {k: v for k, v in m._modules.items() if k.startswith("_linger_")}))
                kept = {k: v for k, v in m.__dict__.items() if k.startswith("_linger_")}
                owned.append((m, {k: dict(v) if type(v) is dict else v for k, v in kept.items()}))
    for m, modules in made:
        for key, child in modules.items():
            if child is not None and key not in m._modules:
                m.add_module(key, child.train(m.training))
    for m, attributes in owned:
        m.__dict__.update(attributes)
    for quantizer in idle:
        quantizer.rest()
    name_quantizers(model)


def name_quantizers(model: nn.Module) -> None:
    """Give every quantizer its qualified name."""
    for name, m in model.named_modules():
        if isinstance(m, Quantizer):
            m.name = name


def rest_unused(model: nn.Module) -> None:
    """Thresholds of a loaded state that saw no float operand where it came from rest (:meth:`Quantizer.rest`)."""
    for quantizer in _idle(model, lambda q: q.ready):
        quantizer.rest()


def _idle(model: nn.Module, used: Callable[[Quantizer], bool]) -> list[Quantizer]:
    """Input quantizers that were not used, of layers whose output quantizer was."""
    found: list[Quantizer] = []
    for m in model.modules():
        output = getattr(m, "output_quantizer", None)
        if isinstance(output, Quantizer) and used(output):
            inputs = getattr(m, "input_quantizer", None)
            candidates = [inputs] if isinstance(inputs, Quantizer) else inputs or ()
            found += [q for q in candidates if not used(q)]
    return found
