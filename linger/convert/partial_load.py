"""Dictionaries that were filtered by a converted model's own keys: they lack the BatchNorms that it has folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from linger.nn.constrained.fused import MARK, FusedBN

from .prepare import Fusion

__all__ = ["lost_norms"]


def lost_norms(model: nn.Module, fusions: Iterable[Fusion], given: Mapping[str, Any], strict: bool) -> list[str]:
    """Sentences about fused layers that a state loads without their BatchNorm, or not at all although it has their weights.

    ``own = model.state_dict(); own.update({k: v for k, v in state.items() if k in own}); model.load_state_dict(own)`` gives a
    model back what it has: such tensors count as missing.

    Args:
        model: Holds the layers.
        fusions: Layers and the BatchNorms that were fused into them.
        given: The state, with the keys of this model's root, as it arrived.
        strict: Whether torch reports missing keys itself.
    """
    mine = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    from_here = {k for k, t in given.items() if _same(t, mine.get(k))}
    if strict and not from_here:
        return []
    came = given.keys() - from_here
    bare, absent = [], []
    for fusion in fusions:
        x, y = f"{fusion.layer}." if fusion.layer else "", f"{fusion.bn}."
        inner = f"{x}{fusion.first}."
        norm = (f"{x}bn.running_var", f"{y}running_var", f"{y}running_mean", y + MARK)
        if came & {x + "weight", x + "weight_orig", inner + "weight", inner + "weight_orig"}:
            if not came.intersection(norm):
                bare.append(f"'{fusion.layer}' ({y}*)")
        elif isinstance(model.get_submodule(fusion.layer), FusedBN):
            absent.append(f"'{fusion.layer}' ({inner}*, {x}bn.*)")
    said = []
    if bare:
        said.append(
            f"loaded without the BatchNorm that is folded into them: {', '.join(bare)}. A dictionary that is filtered by the "
            "keys of model.state_dict() has lost them: load the whole one with strict=False, or filter with "
            f"`k not in own or own[k].shape == v.shape` (weights that are folded already: keep the keys that end in {MARK})"
        )
    if absent and came:
        said.append(
            f"not loaded, because their keys have other names here: {', '.join(absent)}. A dictionary that is filtered by the "
            "keys of model.state_dict() has lost them: load the whole one with strict=False, it is translated"
        )
    return said


def _same(given: Any, mine: Tensor | None) -> bool:
    """Whether a state gives a tensor of this very model back."""
    if not isinstance(given, Tensor) or mine is None or given.is_meta or given.device != mine.device:
        return False
    return given.data_ptr() == mine.data_ptr() and given.shape == mine.shape and given.numel() > 0
