"""``linger.check_optimizer``: parameters that would never move."""

from __future__ import annotations

import gc
import html
import logging
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

from linger.runtime import BORN

from .report import shortened

__all__ = ["OptimizerReport", "check_optimizer", "watch_first_step"]

_log = logging.getLogger("linger")
_watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # initialised models that no optimizer has stepped
_TOLD = "_linger_untrained"  # in the __dict__ of a model: names of parameters that were named
_hook: Any = None  # handle of the hook on all optimizers, while a model is watched


@dataclass
class OptimizerReport:
    """What :func:`check_optimizer` found; false when nothing is missing.

    Attributes:
        missing: Parameters of the model that want gradients and that no optimizer holds.
        n_foreign: Parameters in the optimizers that are none of the model's (those of a BatchNorm that was folded, or of
            another model).
    """

    missing: list[str]
    n_foreign: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing)

    def __str__(self) -> str:
        lines = []
        if self.missing:
            lines.append(
                f"{len(self.missing)} parameters are in no optimizer and would never train (build the optimizer after "
                f"linger.init(..., example_inputs=...)): {', '.join(self.missing)}"
            )
        if self.n_foreign:
            lines.append(f"{self.n_foreign} parameters of the optimizer are none of the model's")
        return "\n".join(lines) or "every parameter that wants gradients is in an optimizer"

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in str(self).splitlines())

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def check_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer]
) -> OptimizerReport:
    """Tell which parameters of a model no optimizer holds: biases and thresholds that appeared after it was built.

    Args:
        model: The model, wrapped or not.
        optimizer: The optimizer, or all of them.

    Returns:
        A report that is false when nothing is missing and that prints the missing names.

    Raises:
        TypeError: Something else was passed.

    Example:
        >>> import torch, linger
        >>> model = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> report = linger.check_optimizer(model, torch.optim.SGD([model[0].weight], lr=0.1))
        >>> bool(report), report.missing
        (True, ['0.bias'])

    Source: ours.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"check_optimizer: model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(optimizer, (torch.optim.Optimizer, Iterable)):
        raise TypeError(f"check_optimizer: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    held: set[int] = set()
    for one in optimizers:
        if not isinstance(one, torch.optim.Optimizer):
            raise TypeError(f"check_optimizer: expected torch.optim.Optimizer, got {type(one).__name__}")
        held |= _held(one)
    named = dict(model.named_parameters())
    missing = [name for name, p in named.items() if p.requires_grad and id(p) not in held]
    return OptimizerReport(missing, len(held - {id(p) for p in named.values()}))


def _held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for group in getattr(optimizer, "param_groups", ()) for p in group["params"]}


def watch_first_step(model: nn.Module) -> None:
    """Say it, once, if the next step that trains this model leaves parameters out that got a gradient."""
    global _hook
    _watched.add(model)
    if watch_first_step not in BORN:  # operators of a way through the model that comes later
        BORN.append(watch_first_step)
    if _hook is None:
        _hook = torch_optimizer.register_optimizer_step_pre_hook(_before_step)


def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    global _hook
    if torch.compiler.is_compiling():
        return
    held = _held(optimizer)
    for model in list(_watched):
        parameters = {id(p): (name, p) for name, p in model.named_parameters()}
        if held.isdisjoint(parameters):
            continue
        _watched.discard(model)
        left = {i: name for i, (name, p) in parameters.items() if p.grad is not None and i not in held}
        if left:  # another optimizer may have them: how many there are nobody keeps count of
            for other in [o for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer)]:
                for i in _held(other):
                    left.pop(i, None)
        told: set[str] = model.__dict__.setdefault(_TOLD, set())
        left = {i: name for i, name in left.items() if name not in told}
        told.update(left.values())
        if left:
            _log.warning("linger: the optimizer lacks %d parameters of the model that have gradients and would never train: %s; "
                         "build it after linger.init(..., example_inputs=...), or set requires_grad = False on what is to stay",
                         len(left), shortened(left.values()))  # fmt: skip
    if not _watched and _hook is not None:
        _hook.remove()
        _hook = None
