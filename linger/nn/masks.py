"""Weights that are no Parameter: what ``torch.nn.utils.prune`` computes in front of every forward, and what stores it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

__all__ = ["clamp_stored", "is_mask", "masks_of", "move_masks", "renew", "settle", "stored"]


def is_mask(hook: object) -> bool:
    """Whether a forward pre-hook writes a pruned parameter."""
    return isinstance(hook, prune.BasePruningMethod)


def masks_of(layer: nn.Module) -> dict[int, Any]:
    """The pruning hooks of a layer."""
    return {key: hook for key, hook in layer._forward_pre_hooks.items() if is_mask(hook)}


def move_masks(source: nn.Module, target: nn.Module) -> None:
    """Take the pruning hooks of one module object to another that holds the parameters now."""
    for key, hook in masks_of(source).items():
        del source._forward_pre_hooks[key]
        target._forward_pre_hooks[key] = hook


def renew(layer: nn.Module) -> None:
    """Compute the pruned parameters of a layer whose ``__call__`` nobody runs."""
    if layer._forward_pre_hooks:
        for hook in masks_of(layer).values():
            hook(layer, ())


def stored(layer: nn.Module, name: str) -> Tensor | None:
    """What keeps a layer's parameter: itself, a buffer, or what a mask is applied to; None where code computes it elsewhere."""
    for table, key in ((layer._parameters, name), (layer._buffers, name), (layer._parameters, f"{name}_orig")):
        found: Tensor | None = table.get(key)
        if found is not None:
            return found
    return None


def settle(layer: nn.Module, *names: str) -> None:
    """Make the pruning of these parameters final, where the steps to come leave the zeros no meaning."""
    for hook in list(masks_of(layer).values()):
        if hook._tensor_name in names:
            prune.remove(layer, hook._tensor_name)  # type: ignore[no-untyped-call]


def clamp_stored(layer: nn.Module, name: str, before: Tensor) -> None:
    """Write what a clamp has changed in a pruned parameter into what it is computed from.

    Args:
        layer: Its parameter ``name`` is clamped by now.
        before: The parameter in front of the clamp.
    """
    keeps, now = layer._parameters.get(f"{name}_orig"), getattr(layer, name)
    if keeps is not None:
        with torch.no_grad():
            keeps.copy_(torch.where(before == keeps, now.detach(), keeps))
