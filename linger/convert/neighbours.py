"""Discovery of neighbours: which BatchNorm folds into which layer, and which layer feeds only a ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from linger.nn.constrained.fused import FUSED
from linger.nn.constrained.layers import Constrained
from linger.nn.masks import stored

from .convertible import obstacle, target_class
from .doubt import drop_doubtful
from .flow import Adjacency
from .neighbours_from_code import neighbours_from_code
from .neighbours_from_forward import neighbours_from_forward

__all__ = ["Pair", "discover", "fusable_pairs", "standing_notes"]


@dataclass(frozen=True)
class Pair:
    """A layer and the BatchNorm that is its only consumer. `fused` is the constrained class for both."""

    layer: nn.Module
    bn: nn.Module
    fused: Any


def discover(model: nn.Module, example_inputs: Any = None) -> Adjacency:
    """Neighbours from recorded forwards where example inputs are given, else from the code itself.

    Args:
        model: Left as it is.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ValueError: The model does not run on the inputs.
    """
    found = neighbours_from_code(model) if example_inputs is None else neighbours_from_forward(model, example_inputs)
    drop_doubtful(model, found)
    return found


def fusable_pairs(found: Adjacency, own: bool = False) -> list[Pair]:
    """Neighbours that one layer can compute: a Conv, ConvTranspose or Linear, and a BatchNorm over its output channels.

    Args:
        found: Who feeds whom.
        own: Take modules, too, whose own code calls the layer's function.
    """
    layers = {layer: layer for layer, _ in FUSED}
    norms = {bn: bn for _, bn in FUSED}
    pairs = []
    for first, second, dims in found.pairs:
        layer, norm = target_class(first, layers), target_class(second, norms)
        if layer is None or norm is None:
            continue
        if any(_blocked(m, c[0], own and id(m) in found.own) for m, c in ((first, layer), (second, norm))):
            continue
        if stored(first, "weight") is None:  # code of the user's computes it
            continue
        fused = FUSED.get((layer[0], norm[0]))
        width = first.out_features if layer[0] is nn.Linear else first.out_channels
        rank = 2 if layer[0] is nn.Linear else 2 + len(getattr(first, "kernel_size", ()))
        if fused is not None and second.num_features == width and dims in (None, rank):
            pairs.append(Pair(first, second, fused))
    return pairs


def _blocked(m: nn.Module, base: type[nn.Module], own: bool) -> bool:
    return m.own_code if isinstance(m, Constrained) else obstacle(m, base, own) is not None


def standing_notes(model: nn.Module, found: Adjacency) -> list[str]:
    """Why a BatchNorm stands alone although a layer feeds it: other ways through the model, or code that could not be read."""
    notes = list(found.doubts)
    names = dict(model.named_modules())
    for owner, why in found.blind.items():
        prefix = f"{owner}." if owner else ""
        norms = {n: m for n, m in names.items() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        alone = [n for n, m in norms.items() if n.startswith(prefix) and id(m) in found.unseen]
        deeper = tuple(f"{other}." for other in found.blind if len(other) > len(owner))
        inner = [n for n in alone if not n.startswith(deeper)]
        if inner:
            notes.append(
                f"the forward of {owner or type(model).__name__!r} cannot be read ({why}), so {', '.join(inner)} "
                "may stand alone although a layer feeds only it: pass example_inputs"
            )
    return notes
