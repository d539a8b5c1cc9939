"""Which modules are single steps, and why the conversion cannot reach some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from linger.nn.constrained.fused import EmptyBatchNorm
from linger.nn.constrained.layers import Constrained
from linger.runtime import Leaf, takes_its_own_forward

__all__ = [
    "forward_owner",
    "is_leaf",
    "left_alone",
    "obstacle",
    "own_layer",
    "target_class",
    "uninitialised",
    "unsynchronised",
]

_TORCH = "torch.nn.modules."


def forward_owner(cls: type[nn.Module]) -> type[nn.Module]:
    """The class that defines the ``forward`` a class uses."""
    return next((c for c in cls.__mro__ if "forward" in c.__dict__), nn.Module)


def is_leaf(m: nn.Module) -> bool:
    """Whether a module is one step of the model: nothing of the user's code runs inside it."""
    if isinstance(m, (torch.jit.ScriptModule, Constrained, EmptyBatchNorm, Leaf, nn.MultiheadAttention)):
        return True
    if "forward" in m.__dict__ or not forward_owner(type(m)).__module__.startswith(_TORCH):
        return False
    return all(name == "parametrizations" for name, _ in m.named_children()) and type(m) not in (
        nn.Sequential,
        nn.ModuleList,
        nn.ModuleDict,
    )


def target_class(m: nn.Module, table: Mapping[type[nn.Module], Any]) -> tuple[type[nn.Module], Any] | None:
    """Row of a conversion table for a module: its own class, or the torch class that it extends; None without one."""
    for cls in type(m).__mro__:
        if cls in table:
            return cls, table[cls]
    return None


def own_layer(m: nn.Module) -> bool:
    """Whether a module's own ``forward`` may be code around the function of the torch layer that it extends."""
    return not isinstance(m, (Constrained, Leaf)) and takes_its_own_forward(type(m)) and "forward" not in m.__dict__


def obstacle(m: nn.Module, base: type[nn.Module], own: bool = False) -> str | None:
    """Why a module that extends the convertible class `base` cannot be converted, with the fix; None when it can.

    Args:
        own: Its own ``forward`` calls the layer's function with the layer's parameters.
    """
    if isinstance(m, torch.jit.ScriptModule):
        return "scripted or traced module: convert the model before torch.jit"
    if "forward" in m.__dict__:
        return "its forward is replaced on the instance: define it on a class"
    if is_parametrized(m):
        return "parametrized weight: call torch.nn.utils.parametrize.remove_parametrizations first"
    if any(hasattr(hook, "name") and hasattr(hook, "remove") for hook in m._forward_pre_hooks.values()):
        return (
            "its weight is computed by a hook (weight_norm, spectral_norm): call torch.nn.utils.remove_weight_norm or "
            "remove_spectral_norm first"
        )
    if isinstance(m, nn.RNNBase) and m.proj_size:
        return f"proj_size={m.proj_size}: no chip projects the state; use proj_size=0 and a Linear layer behind it"
    if isinstance(m, nn.MultiheadAttention) and (m.bias_k is not None or m.add_zero_attn):
        return "add_bias_kv and add_zero_attn append keys and values that are no layer's output: leave them out"
    for name in ("forward", "_conv_forward", "__call__")[own:]:
        if getattr(type(m), name, None) is not getattr(base, name, None):
            return f"{type(m).__name__} overrides {name} of {base.__name__}: its arithmetic is not the layer's"
    return None


def uninitialised(m: nn.Module) -> bool:
    """Whether a lazy module still waits for its first forward."""
    return any(
        isinstance(t, (UninitializedBuffer, UninitializedParameter))
        for t in (*m._parameters.values(), *m._buffers.values())
    )


_TRANSPARENT = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Flatten,
    nn.Unflatten, nn.ReLU, nn.ReLU6, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.Unfold, nn.ChannelShuffle, nn.PixelShuffle,
    nn.PixelUnshuffle, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d,
    nn.ReplicationPad2d, nn.CircularPad1d, nn.CircularPad2d, nn.Sequential, nn.ModuleList, nn.ModuleDict,
    nn.ParameterList, nn.ParameterDict, nn.modules.loss._Loss,
    nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
    nn.Sigmoid, nn.Tanh, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GELU, nn.SiLU, nn.GLU,
)  # fmt: skip


def _transparent(m: nn.Module) -> bool:
    """Torch modules that need no form of their own: the operators they call are handled."""
    return isinstance(m, _TRANSPARENT)


def unsynchronised(bn: nn.Module) -> str:
    """What the report adds for a BatchNorm that goes on training inside the layer in front of it."""
    return ", statistics of each process alone" if isinstance(bn, nn.SyncBatchNorm) else ""


def left_alone(m: nn.Module, stage: str) -> str | None:
    """Reason to report for a module that no table has a form for; None where nothing is lost by leaving it.

    Args:
        stage: ``constrain`` cares about layers with parameters only.
    """
    if isinstance(m, (EmptyBatchNorm, Leaf, Constrained)) or _transparent(m):
        return None
    if isinstance(m, torch.jit.ScriptModule):
        return "scripted or traced module: convert the model before torch.jit"
    if "forward" in m.__dict__ and next(m.children(), None) is None:
        return "its forward is replaced on the instance: define it on a class"
    if not is_leaf(m) or not type(m).__module__.startswith(_TORCH):
        return None
    if stage == "constrain" and next(m.parameters(), None) is None:
        return None
    if isinstance(m, nn.SyncBatchNorm):
        return "SyncBatchNorm without a layer in front to fold it into: use BatchNorm1d or BatchNorm2d"
    return f"{type(m).__name__} has no {'quantized' if stage == 'init' else 'constrained'} form"
