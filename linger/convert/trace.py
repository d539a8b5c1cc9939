"""``linger.trace_layers``: fuse from example inputs, and adapt checkpoints that have the layers apart."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from typing import Any

from torch import nn

from linger.nn.constrained.fused import FusedBN
from linger.runtime import is_owner
from linger.settings import current

from .classic import BLEND, classic_settings
from .constrain import fuse_pairs, mark_relu
from .neighbours_from_forward import neighbours_from_forward
from .patterns import Selection, names_of
from .prepare import ConversionRecord, check_root, record_of
from .report import Report
from .state import install

__all__ = ["CheckpointAdapter", "trace_layers"]

# Keywords of the classic form -> the layers whose ReLU they are about. A sigmoid is an operator of its own on every chip.
_AHEAD: dict[str, tuple[type[nn.Module], ...]] = {
    "ahead_conv_relu": (nn.modules.conv._ConvNd, FusedBN),
    "ahead_bn_relu": (nn.modules.batchnorm._BatchNorm,),
    "ahead_linear_relu": (nn.Linear,),
    "ahead_conv_sigmoid": (),
    "ahead_linear_sigmoid": (),
}
_LAYER_KEYS = ("weight", "bias")
_BN_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class CheckpointAdapter:
    """Renames the keys of un-fused checkpoints to those of fused layers.

    Args:
        mappings: (layer, BatchNorm) qualified names.
    """

    def __init__(self, mappings: Any = None) -> None:
        self.mappings: list[tuple[str, str]] = [(str(a), str(b)) for a, b in mappings or []]

    def add(self, conv_scope: str, bn_scope: str) -> None:
        """Note that `bn_scope` was fused into `conv_scope`; a pair that is known is not added again."""
        if (conv_scope, bn_scope) not in self.mappings:
            self.mappings.append((conv_scope, bn_scope))

    def adapt(self, state_dict: MutableMapping[str, Any], prefix: str = "") -> MutableMapping[str, Any]:
        """Rename in place and return `state_dict`; keys of a fused checkpoint stay as they are."""
        for conv, bn in self.mappings:
            moves = {f"{prefix}{conv}.{k}": f"{prefix}{conv}.conv.{k}" for k in _LAYER_KEYS}
            moves |= {f"{prefix}{bn}.{k}": f"{prefix}{conv}.bn.{k}" for k in _BN_KEYS}
            for old, new in moves.items():
                if old in state_dict:
                    state_dict[new] = state_dict.pop(old)
        return state_dict

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs as JSON."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"fusions": self.mappings}, file, indent=2)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CheckpointAdapter:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: Another file.
        """
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if not isinstance(data, dict) or not isinstance(data.get("fusions"), list):
            raise ValueError(f"CheckpointAdapter.load: {os.fspath(path)!r} holds no fusions")
        return cls(data["fusions"])

    def __repr__(self) -> str:
        return f"CheckpointAdapter({len(self.mappings)} fusions)"


def trace_layers(model: nn.Module, *args: Any, fuse_bn: bool = True, **kwargs: Any) -> Any:
    """Run the model once and fuse every convolution with the BatchNorm that is its only consumer.

    The fused layers compute what the two did (no limits yet; ``constrain`` sets them), and remember whether a ReLU
    follows. Un-fused checkpoints keep loading. Any number of calls; a repeated one changes nothing.

    ``trace_layers(root_model, target_model, *args)`` is the classic form: only ``target_model``, a part of ``root_model`` (or
    all of it), is run; later calls without a configuration file then mean what they meant in that generation.

    Args:
        model: Changed in place.
        *args: Positional arguments of its forward.
        fuse_bn: False only notes which layers a ReLU follows.
        **kwargs: The classic form's ``ahead_conv_relu``, ``ahead_bn_relu``, ``ahead_linear_relu``, ``ahead_conv_sigmoid`` and
            ``ahead_linear_sigmoid``, all true; False for the first three leaves the ReLU behind such layers unfused.

    Returns:
        A :class:`CheckpointAdapter`; in the classic form ``root_model``.

    Raises:
        TypeError: Another keyword.
        ValueError: The model does not run on the arguments; ``target_model`` is no part of ``root_model``.
        RuntimeError: The model is already initialised.
    """
    classic = bool(args) and isinstance(args[0], nn.Module)
    known = _AHEAD if classic else ()
    unknown = [k for k in kwargs if k not in known]
    if unknown:
        allowed = ", ".join(("fuse_bn", *known))
        raise TypeError(f"trace_layers: unknown arguments {', '.join(unknown)}; this form takes {allowed}")
    target, inputs = (args[0], args[1:]) if classic else (model, args)
    check_root(model, "trace_layers")
    if is_owner(model):
        raise RuntimeError("trace_layers: the model is already initialised; trace before linger.init")
    names = {id(m): name for name, m in reversed(names_of(model).items())}
    if id(target) not in names:
        raise ValueError(f"trace_layers: target_model, a {type(target).__name__}, is no part of root_model")
    found = neighbours_from_forward(target, inputs)
    found.before_relu -= {
        id(m) for key, kinds in _AHEAD.items() if not kwargs.get(key, True) for m in _of(model, kinds)
    }
    earlier = record_of(model)
    fusions = list(earlier.fusions) if earlier else []
    if fuse_bn:
        fusions += fuse_pairs(names, found, Selection(model), lambda name: None, BLEND)[0]
    for m in model.modules():
        if id(m) in found.before_relu:
            mark_relu(m, found)
    relu = tuple(n for n, m in model.named_modules() if getattr(m, "ahead_relu", False))
    if earlier is None:
        settings, report = classic_settings() if classic else current(), Report("trace_layers")
        install(
            model, ConversionRecord("trace_layers", settings, tuple(fusions), report=report, relu=relu, classic=classic)
        )
    else:
        earlier.fusions, earlier.relu = tuple(fusions), relu
        earlier.classic = earlier.classic or classic
    return model if classic else CheckpointAdapter([(f.layer, f.bn) for f in fusions if f.first == "conv"])


def _of(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, kinds)]
