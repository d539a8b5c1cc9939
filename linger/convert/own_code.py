"""Constrained layers whose forward is the user's code: while a model is initialised they are the user's classes again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from linger.nn.constrained.layers import Constrained
from linger.runtime import FOLDED_INTO

__all__ = ["LIMITED", "as_written", "limit_again", "user_class"]

LIMITED = "_linger_limited"  # in the __dict__ of a layer that is the user's class again: what it was


def user_class(m: nn.Module) -> type[nn.Module] | None:
    """The user's own class of a constrained layer that extends a torch layer."""
    bases = type(m).__bases__
    mixed = isinstance(m, Constrained) and len(bases) == 2 and not type(m).__module__.startswith("linger.")
    return bases[1] if mixed else None


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Inside, such layers have their own class, so that their code is read and run as it is; a failure gives them back."""
    for m in model.modules():
        if isinstance(m, Constrained) and m.own_code:
            m.__dict__[LIMITED] = type(m)
            m.__class__ = user_class(m)  # type: ignore[assignment]
    try:
        yield
    finally:
        limit_again(model)


def limit_again(model: nn.Module) -> None:
    """What was not converted has its limits again."""
    for m in model.modules():
        limited = m.__dict__.pop(LIMITED, None)
        if limited is not None and type(m) is limited.__bases__[1] and FOLDED_INTO not in m.__dict__:
            m.__class__ = limited
