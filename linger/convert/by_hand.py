"""Quantized layers that users construct themselves: ``linger.init`` gives them their place in the model."""

from __future__ import annotations

from torch import nn

from linger.nn import swaps
from linger.nn.constructor import BY_HAND
from linger.quantizers import Quantizer
from linger.runtime import Leaf, is_owner

__all__ = ["initialised_parts", "release"]

_FLOAT_CLASS: dict[type[nn.Module], type[nn.Module]] = {
    made: plain for plain, made in swaps.items() if issubclass(made, Leaf)
}
_OF_QUANTIZED = ("quant", "fused_relu", "kept_weight", "_saturated", "_cells")


def _waits(m: nn.Module) -> bool:
    return BY_HAND in m.__dict__ and type(m) in _FLOAT_CLASS


def initialised_parts(model: nn.Module) -> list[str]:
    """Names of what is initialised in a model. Layers made by hand do not count: they wait for it."""
    waiting = {id(part) for m in model.modules() if _waits(m) for part in m.modules()}
    parts = model.named_modules()
    return [name for name, m in parts if (isinstance(m, Leaf) or is_owner(m)) and id(m) not in waiting]


def release(model: nn.Module) -> set[int]:
    """Make float layers of those that were made by hand; their settings stay on them as wishes (:mod:`marks`).

    Returns:
        Their ids.
    """
    made = [m for m in model.modules() if _waits(m)]
    for m in made:
        m.__class__ = _FLOAT_CLASS[type(m)]
        del m.__dict__[BY_HAND]
        for name in [n for n, child in m.named_children() if isinstance(child, Quantizer)]:
            delattr(m, name)
        for name in _OF_QUANTIZED:
            if name in m.__dict__ or name in m._buffers:
                delattr(m, name)
    return {id(m) for m in made}
