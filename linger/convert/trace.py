"""``linger.trace_layers``: fuse from example inputs, and adapt checkpoints that have the layers apart."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from typing import Any

from torch import nn

from linger.errors import UnsupportedError
from linger.runtime import is_owner
from linger.settings import current

from .constrain import fuse_pairs, mark_relu
from .neighbours_from_forward import record
from .patterns import Selection, names_of
from .prepare import Record, check_root, record_of
from .report import Report
from .state import install

__all__ = ["CheckpointAdapter", "trace_layers"]

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


def trace_layers(model: nn.Module, *args: Any, fuse_bn: bool = True, **kwargs: Any) -> CheckpointAdapter:
    """Run the model once and fuse every convolution with the BatchNorm that is its only consumer.

    The fused layers compute what the two did (no limits yet; ``constrain`` sets them), and remember whether a ReLU
    follows. Un-fused checkpoints keep loading. Any number of calls; a repeated one changes nothing.

    Args:
        model: Changed in place.
        *args: Positional arguments of its forward.
        fuse_bn: False only notes which layers a ReLU follows.

    Raises:
        UnsupportedError: The classic form ``trace_layers(root, target, *args)``.
        ValueError: The model does not run on the arguments.
    """
    if args and isinstance(args[0], nn.Module):
        raise UnsupportedError(
            "trace_layers(root_model, target_model, ...): the classic form is not available yet; call trace_layers(model, *args)"
        )
    if kwargs:
        raise TypeError(f"trace_layers: unknown arguments {', '.join(kwargs)}")
    check_root(model, "trace_layers")
    if is_owner(model):
        raise RuntimeError("trace_layers: the model is already initialised; trace before linger.init")
    found = record(model, args)
    names = {id(m): name for name, m in reversed(names_of(model).items())}
    earlier = record_of(model)
    fusions = list(earlier.fusions) if earlier else []
    if fuse_bn:
        fusions += fuse_pairs(names, found, Selection(model), lambda name: None, 1.0)[0]
    for m in model.modules():
        if id(m) in found.before_relu:
            mark_relu(m, found)
    relu = tuple(n for n, m in model.named_modules() if getattr(m, "ahead_relu", False))
    if earlier is None:
        install(model, Record("trace_layers", current(), tuple(fusions), report=Report("trace_layers"), relu=relu))
    else:
        earlier.fusions, earlier.relu = tuple(fusions), relu
    return CheckpointAdapter([(f.layer, f.bn) for f in fusions if f.first == "conv"])
