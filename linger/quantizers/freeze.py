"""Holding statistics still."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .quantizer import Quantizer

_HELD: Final = "_momentum_before_freeze"
_ABSENT: Final = object()


class FrozenStatistics:
    """What :func:`freeze_statistics` returns: as a context manager, the end of the freeze."""

    def __init__(self, model: nn.Module, frozen: bool, batch_norm: bool) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"freeze_statistics: model must be a torch.nn.Module, got {type(model).__name__}")
        self._quantizers: list[tuple[Quantizer, bool]] = []
        self._norms: list[tuple[_BatchNorm, dict[str, Any]]] = []
        for module in model.modules():
            if isinstance(module, Quantizer):
                self._quantizers.append((module, module.frozen))
                module.frozen = frozen
            elif batch_norm and isinstance(module, _BatchNorm):
                self._norms.append(
                    (module, {key: getattr(module, key, _ABSENT) for key in ("momentum", "training", _HELD)})
                )
                self._switch(module, frozen)

    @staticmethod
    def _switch(norm: _BatchNorm, frozen: bool) -> None:
        if frozen and not hasattr(norm, _HELD):
            setattr(norm, _HELD, norm.momentum)
            norm.momentum = 0.0
            norm.eval()
        elif not frozen and hasattr(norm, _HELD):
            norm.momentum = getattr(norm, _HELD)
            delattr(norm, _HELD)
            norm.train()

    def __enter__(self) -> FrozenStatistics:
        """The freeze began when the object was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts every layer back as it was before the call."""
        for quantizer, before in self._quantizers:
            quantizer.frozen = before
        for norm, attributes in self._norms:
            for key, value in attributes.items():
                if value is not _ABSENT:
                    setattr(norm, key, value)
                elif hasattr(norm, key):
                    delattr(norm, key)


def freeze_statistics(model: nn.Module, frozen: bool = True, batch_norm: bool = False) -> FrozenStatistics:
    """Stops (or restarts) the statistics of every quantizer in a model; in effect at once, and a context manager.

    With ``batch_norm=True`` the BatchNorm layers stop too: they normalise with their running statistics, as in ``eval()``,
    and these do not move. A later ``model.train()`` makes a plain torch BatchNorm normalise with the batch again (its
    running statistics still do not move): call this after it.

    Args:
        model: The model, or any part of it.
        frozen: False lets the statistics move again.
        batch_norm: Include BatchNorm layers.

    Raises:
        TypeError: The model is no module.

    Example:
        >>> import torch, linger
        >>> model = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> with linger.freeze_statistics(model):
        ...     out = model(torch.randn(8, 4))
        >>> model[0].output_quantizer.ready
        False

    Source: docs/numerics.md, "Training".
    """
    return FrozenStatistics(model, frozen, batch_norm)
