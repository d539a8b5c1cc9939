"""Layers with hooks: a fused layer shows its hooks what is behind the fused step. Said once, or the layer is left unfused."""

from __future__ import annotations

from torch import nn

from linger.nn.masks import is_mask

from .flow import Adjacency
from .patterns import names_of

__all__ = ["hooked_neighbours"]


def _looks_on(m: nn.Module) -> bool:
    """Whether a hook of the user's reads or replaces what a module computes."""
    return bool(m._forward_hooks or m._backward_hooks or m._backward_pre_hooks)


def _looks_before(m: nn.Module) -> bool:
    """Whether a hook of the user's reads what a module gets."""
    return any(not is_mask(hook) for hook in m._forward_pre_hooks.values())


def hooked_neighbours(model: nn.Module, found: Adjacency, keep: bool) -> list[str]:
    """Sentences about hooks on layers that are fused with the step behind them.

    Args:
        model: Not converted yet.
        found: Who feeds whom; with ``keep`` the hooked neighbours are taken out.
        keep: Leave these layers unfused.
    """
    names = {id(m): n for n, m in reversed(names_of(model).items())}
    notes = []
    for pair in list(found.pairs):
        layer, norm = pair[:2]
        if _looks_on(layer) or _looks_before(norm):
            if keep:
                found.pairs.remove(pair)
            elif isinstance(norm, nn.modules.batchnorm._BatchNorm):
                notes.append(
                    f"{names[id(layer)]}: its hooks see the value behind {names[id(norm)]}, which is folded into it; "
                    "init(..., keep_hooked=True) leaves hooked layers unfused"
                )
    folded = {id(norm): layer for layer, norm, _ in found.pairs}
    for m in model.modules():
        if id(m) in found.before_relu and (_looks_on(m) or id(m) in folded and _looks_on(folded[id(m)])):
            if keep:
                found.before_relu.discard(id(m))
            else:
                notes.append(
                    f"{names[id(m)]}: its hooks see the value behind the ReLU that is fused into it; "
                    "init(..., keep_hooked=True) leaves hooked layers unfused"
                )
    return notes
