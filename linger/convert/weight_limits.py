"""Layers whose weight limit cuts much of the weight: ``constrain`` and ``init`` name each of them once."""

from __future__ import annotations

from typing import Any

from torch import nn

from linger.nn.constrained.layers import Constrained
from linger.nn.limited import Limited
from linger.quantizers import CUT_SAID, cut_note

__all__ = ["cut_weights"]


def cut_weights(model: nn.Module) -> list[str]:
    """One note about all layers that were not named so far, or none."""
    found = []
    for name, m in model.named_modules():
        pairs: list[tuple[Any, nn.Module]] = []
        if isinstance(m, Constrained) and not m.__dict__.get(CUT_SAID):
            pairs = [(cut, m) for cut in m.weight_cuts()]
        elif isinstance(m, Limited):
            pairs = [(cut, q) for cut, q in m.weight_cuts() if not q.__dict__.get(CUT_SAID)]
        for cut, holder in pairs:
            if cut.large:
                holder.__dict__[CUT_SAID] = True
                found.append((name, cut))
    note = cut_note(found)
    return [note] if note else []
