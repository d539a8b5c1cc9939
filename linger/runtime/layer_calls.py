"""Calls of torch's functions that are a layer: ``F.conv2d(x, self.weight, ...)`` in the code of a subclass of ``nn.Conv2d``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional as F

__all__ = ["LAYER_FUNCTIONS", "bound", "own_arithmetic", "same_geometry", "takes_its_own_forward"]

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


@dataclass(frozen=True)
class _Function:
    """Names of a function's arguments, and the layers that are such a call."""

    names: tuple[str, ...]
    layers: tuple[type[nn.Module], ...]


LAYER_FUNCTIONS: dict[Callable[..., Any], _Function] = {
    F.linear: _Function(("input", "weight", "bias"), (nn.Linear,)),
    F.conv1d: _Function(_CONV, (nn.Conv1d,)),
    F.conv2d: _Function(_CONV, (nn.Conv2d,)),
    F.conv_transpose1d: _Function(_TRANSPOSED, (nn.ConvTranspose1d,)),
    F.conv_transpose2d: _Function(_TRANSPOSED, (nn.ConvTranspose2d,)),
    F.batch_norm: _Function(_NORM, (nn.BatchNorm1d, nn.BatchNorm2d)),
}


def bound(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a layer's function by name."""
    return {**dict(zip(LAYER_FUNCTIONS[func].names, args, strict=False)), **kwargs}


def takes_its_own_forward(cls: type[nn.Module]) -> bool:
    """Whether a class extends a torch layer whose function is known, with a ``forward`` of its own."""
    bases = [c for f in LAYER_FUNCTIONS.values() for c in f.layers]
    base = next((c for c in cls.__mro__ if c in bases), None)
    return base is not None and cls.forward is not base.forward


def own_arithmetic(
    m: nn.Module,
    func: Callable[..., Any],
    named: dict[str, Any],
    same: Callable[[Any, Any], bool] = lambda a, b: a is b,
) -> bool:
    """Whether a call computes what the torch layer ``m`` does, with the parameters of ``m``.

    Args:
        m: The module whose code calls.
        func: A key of ``LAYER_FUNCTIONS``.
        named: Arguments by name.
        same: Tells whether an argument is a tensor of ``m`` (symbolic values are compared in another way).
    """
    if not isinstance(m, LAYER_FUNCTIONS[func].layers):
        return False
    layer: Any = m
    if not all(same(named.get(name), getattr(layer, name)) for name in ("weight", "bias")):
        return False
    if func is F.batch_norm:
        known = layer.running_mean is None or same(named.get("running_mean"), layer.running_mean)
        frozen = named.get("running_mean") is None and layer.training and not layer.track_running_stats
        return (known or frozen) and named.get("eps", 1e-5) == layer.eps and layer.weight is not None
    return func is F.linear or same_geometry(layer, named)


def same_geometry(layer: Any, named: dict[str, Any]) -> bool:
    """Whether stride, padding, dilation and groups of a call are those of the layer."""
    n = len(layer.kernel_size)

    def each(value: Any) -> Any:
        return (value,) * n if isinstance(value, int) else value if isinstance(value, str) else tuple(value)

    padding = layer.padding if layer.padding_mode == "zeros" else 0
    wanted = {"stride": (layer.stride, 1), "padding": (padding, 0), "dilation": (layer.dilation, 1)}
    fits = all(each(named.get(k, default)) == each(own) for k, (own, default) in wanted.items())
    return fits and layer.padding_mode == "zeros" and named.get("groups", 1) == layer.groups
