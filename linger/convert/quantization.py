"""``linger.quantization``: the same model in float, or layers of it, for as long as a block runs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from torch import nn

from linger.quantizers import eagerly, switched_off
from linger.runtime import NEW_OPERATOR, Leaf, derive, is_owner
from linger.settings import covers

from .patterns import nearest

__all__ = ["Quantization", "quantization"]

_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _float_class(base: type[nn.Module]) -> type[nn.Module]:
    """The cached subclass of a quantized layer's class whose forward is the float form.

    Its results carry the marks of quantized tensors, as inside a calibration, so that operators of user code go on being
    found; whoever computes with integers quantizes them.
    """
    if base not in _classes:

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with switched_off():
                return base.forward(self, *args, **kwargs)

        body = {"forward": forward, "__module__": base.__module__, "__doc__": base.__doc__, "_linger_quantized": base}
        _classes[base] = derive(base.__name__, (base,), body)
    return _classes[base]


def _quantized_class(module: nn.Module) -> type[nn.Module]:
    return getattr(type(module), "_linger_quantized", type(module))


class Quantization:
    """What :func:`quantization` returns: a context manager.

    Attributes:
        layers: Qualified names of the layers and operators that the block switches.
    """

    def __init__(self, model: nn.Module, enabled: bool = True, layers: str | Iterable[str] | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"quantization: model must be a torch.nn.Module, got {type(model).__name__}")
        if not isinstance(enabled, bool):
            raise TypeError(f"quantization: enabled must be True or False, got {type(enabled).__name__}")
        patterns = [layers] if isinstance(layers, str) else layers
        if patterns is not None:
            patterns = list(patterns)
            wrong = [p for p in patterns if not isinstance(p, str)]
            if wrong:
                raise TypeError(f"quantization: layers must be names or globs, got {type(wrong[0]).__name__}")
        self._model, self._enabled, self._patterns = model, enabled, patterns
        named = [name for name, m in model.named_modules() if isinstance(m, Leaf)]
        if not named and not any(map(is_owner, model.modules())):
            raise ValueError("quantization: the model is not quantized: call linger.init first")
        for pattern in patterns or ():
            if not any(covers(pattern, name) for name in named):
                close = nearest(pattern, named)
                raise ValueError(
                    f"quantization: no quantized layer or operator is called {pattern!r}"
                    + (f"; nearest: {', '.join(close)}" if close else "")
                    + " (operators of user code exist from the first forward on)"
                )
        self.layers = tuple(name for name in named if self._chosen(name))
        self._before: list[tuple[nn.Module, type[nn.Module]]] = []
        self._owners: list[tuple[nn.Module, Any]] = []
        self._eager: AbstractContextManager[object] | None = None

    def _chosen(self, name: str) -> bool:
        return self._patterns is None or any(covers(pattern, name) for pattern in self._patterns)

    def _switch(self, name: str, module: nn.Module) -> None:
        if self._chosen(name):
            base = _quantized_class(module)
            module.__class__ = base if self._enabled else _float_class(base)

    def __enter__(self) -> Quantization:
        """Switches the layers; operators that the model meets for the first time inside the block follow."""
        if self._eager is not None:
            raise RuntimeError("quantization: this context is entered already; write linger.quantization(...) again")
        self._eager = eagerly()
        self._eager.__enter__()
        for name, module in self._model.named_modules():
            if isinstance(module, Leaf):
                self._before.append((module, type(module)))
                self._switch(name, module)
            if is_owner(module):
                self._owners.append((module, module.__dict__.get(NEW_OPERATOR)))
                module.__dict__[NEW_OPERATOR] = self._new
        return self

    def _new(self, name: str, module: nn.Module) -> None:
        """An operator is created inside the block: the outer block's word first, then this one's."""
        for owner, outer in self._owners:
            if outer is not None and owner.__dict__["_linger_name"] == name.rpartition(".")[0]:
                outer(name, module)
        self._before.append((module, type(module)))
        self._switch(name, module)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every layer computes again as it did before the block."""
        for module, cls in self._before:
            module.__class__ = cls
        for owner, outer in self._owners:
            if outer is None:
                owner.__dict__.pop(NEW_OPERATOR, None)
            else:
                owner.__dict__[NEW_OPERATOR] = outer
        self._before, self._owners = [], []
        eager, self._eager = self._eager, None
        if eager is not None:
            eager.__exit__(kind, error, trace)


def quantization(model: nn.Module, enabled: bool = True, layers: str | Iterable[str] | None = None) -> Quantization:
    """Context in which an initialised model, or some of its layers, computes in float; for comparison and warm-up.

    In float a layer is the torch layer with the same parameters: no rounding, no training clamp, no one-time clamp of the
    weights. No range moves; BatchNorm statistics do, in training, as in the float model. A BatchNorm that ``linger.init`` has
    folded stays folded. What a float layer hands on, the next quantized one quantizes with its own input quantizer, which in
    eval takes the range of each batch until it has seen training data.

    Blocks nest, the inner one decides, and every layer is as before when a block ends, by an exception too. Compiled models
    run as they are written inside.

    Args:
        model: Result of ``linger.init``, or a part of it.
        enabled: False: in float. True: in integers, inside a block that says False.
        layers: Qualified names or globs of layers and operators, as in a section of the configuration (a name covers what is
            below it); None: all.

    Raises:
        TypeError: An argument of another kind.
        ValueError: The model is not initialised, or a name covers no layer.

    Example:
        >>> import torch, linger
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> x = torch.randn(16, 4)
        >>> want = net(x)
        >>> model = linger.init(net)
        >>> with linger.quantization(model, False):
        ...     print(bool(torch.allclose(model(x), want)))
        True

    Source: docs/numerics.md, "Calibration" (the float forms).
    """
    return Quantization(model, enabled, layers)
