"""Owners: modules whose ``forward`` runs user code. Each gets a dynamic subclass that switches interception on."""

from __future__ import annotations

import functools
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from linger.errors import UnsupportedError
from linger.ops.checks import refuse_transforms

from . import containers, dynamo, islands, mode
from .blame import name_layer
from .state import FLOAT_OPERATORS, Frame, end_forward, state
from .tag import info


class LayerLookup(Protocol):
    """What an owner asks for the settings of an operator it creates; ``linger.settings.Settings`` is one."""

    @property
    def float_operators(self) -> frozenset[str]:
        """Operators of user code that stay in float."""

    @property
    def sections(self) -> Any:
        """Settings of some layers; one with ``open_quant`` False keeps what it covers in float."""

    def layer(self, name: str) -> Any:
        """Settings of the layer with this qualified name."""


def refuse_script(module: nn.Module) -> UnsupportedError:
    """What ``torch.jit.script`` hears of a converted module."""
    return UnsupportedError(
        f"linger: torch.jit.script cannot compile {type(module).__name__}, whose integers are native operators: use "
        "torch.jit.trace (inference), torch.compile, or linger.onnx.export"
    )


class Leaf(nn.Module):
    """Marker base of quantized leaf modules and quantizers: their ``forward`` is ours, nothing in it is intercepted."""

    def __repr__(self) -> str:
        """As torch prints a layer; quantizers do not print as children."""
        shown = [(name, child) for name, child in self._modules.items() if not name.endswith("quantizer")]
        if not shown:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [self.extra_repr(), *(f"({name}): {child!r}" for name, child in shown)]
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"

    def __prepare_scriptable__(self) -> None:
        """What ``torch.jit.script`` asks first."""
        raise refuse_script(self)

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """What ``torch.jit.trace`` runs. It cannot record our backward: the traced module is for inference."""
        with torch.no_grad():
            return super()._slow_forward(*args, **kwargs)  # type: ignore[no-untyped-call]


def runs_user_code(module: nn.Module) -> bool:
    """Whether a quantized layer is one call inside the ``forward`` of a user's class."""
    return hasattr(type(module), "_linger_layer")


class Composite(nn.Module):
    """Marker base of quantized modules whose ``forward`` is written in torch functions: intercepted as user code is."""


_M = TypeVar("_M", bound=nn.Module)
_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _enter(self: nn.Module, base: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One ``forward`` of an owner. The name of this code object is the boundary of call-site chains."""
    frames = state.frames
    frames.append(Frame(self))
    try:
        if LEFT_FLOAT in self.__dict__:
            args, kwargs = _floats(self, args, kwargs)
        if len(frames) > 1 or state.float_depth:
            return base.forward(self, *args, **kwargs)
        refuse_transforms()
        if torch.compiler.is_dynamo_compiling():
            dynamo.shows_functions()
        else:
            dynamo.refuse_torchs_exporter()
            if not torch.compiler.is_compiling():
                islands.let_flow((args, kwargs))
        with mode.Interception():
            if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # it cannot record our backward; the traced module is for inference
                with torch.no_grad():
                    return base.forward(self, *args, **kwargs)
            return base.forward(self, *args, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        if len(frames) == 1 and not torch.compiler.is_compiling():
            name_layer(error, Leaf)
        raise
    finally:
        frames.pop()
        if not frames:
            end_forward()


BOUNDARY: CodeType = _enter.__code__
LEFT_FLOAT = "_linger_left_float"  # in the __dict__ of a module that the caller switched off


def _floats(self: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module that stays in float: quantized tensors as plain ones, which no operator takes for codes."""
    found = False

    def plain(v: Any) -> Any:
        nonlocal found
        if type(v) in (list, tuple):
            return type(v)(plain(e) for e in v)
        if type(v) is dict:
            return {k: plain(e) for k, e in v.items()}
        if info(v) is None:
            return v
        found = True
        with torch._C.DisableTorchFunction():
            real = v.view_as(v)
        if state.tape is not None and state.tape.has(v):
            state.tape.bind(real, state.tape.float_name(v))
        return real

    args, kwargs = tuple(plain(v) for v in args), {k: plain(v) for k, v in kwargs.items()}
    if found:
        islands.note_island(base_class(self), None if torch.compiler.is_compiling() else sys._getframe(2))
    return args, kwargs


def _refuse_script(self: nn.Module) -> None:
    raise refuse_script(self)


def owner_class(base: type[nn.Module]) -> type[nn.Module]:
    """The cached subclass of ``base`` that enters interception in ``forward`` (same name, module and pickle form)."""
    cls = _classes.get(base)
    if cls is None:

        @functools.wraps(base.forward)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return _enter(self, base, args, kwargs)

        def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
            return (
                _rebuild,
                (getattr(base, "_linger_parts", base),),
                cast(Any, self).__getstate__() if hasattr(self, "__getstate__") else self.__dict__,
            )

        body = {
            **containers.methods(base),
            "forward": forward,
            "__reduce_ex__": reduce,
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "__prepare_scriptable__": _refuse_script,
            "_linger_base": base,
        }
        cls = _classes.setdefault(base, derive(base.__name__, (base,), body))
    return cls


def derive(name: str, bases: tuple[type[nn.Module], ...], body: dict[str, Any]) -> type[nn.Module]:
    """A subclass that the user's classes do not hear of.

    Their ``__init_subclass__`` or metaclass may demand keywords, refuse a name they know, or register what they see.
    """
    metaclass: Any = max((type(b) for b in bases), key=lambda m: len(m.__mro__))
    make: Any = ABCMeta.__new__ if issubclass(metaclass, ABCMeta) else type.__new__
    hears = any("__init_subclass__" in vars(c) for b in bases for c in b.__mro__[:-1])
    cls: Any = make(metaclass, name, (nn.Module,) if hears else bases, body)
    if hears:
        cls.__bases__ = bases
    return cast("type[nn.Module]", cls)


def _rebuild(base: Any) -> nn.Module:
    cls: Any = owner_class(base[0](*base[1:]) if type(base) is tuple else base)
    return cast(nn.Module, cls.__new__(cls))


def is_owner(module: nn.Module) -> bool:
    """Whether ``module`` has been given the interception subclass."""
    return hasattr(type(module), "_linger_base")


def base_class(module: nn.Module) -> type[nn.Module]:
    """The user's own class of a module, converted or not."""
    return getattr(type(module), "_linger_base", type(module))


# Leaf layers of torch that call an operator with state: they hold it, since a Sequential around them runs what it holds.
_CALLERS = (
    nn.Sigmoid, nn.Tanh, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GELU, nn.SiLU, nn.GLU, nn.AvgPool1d, nn.AvgPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


# Leaf layers of torch whose functions no operator handles: switched off, they need no help to stay in float.
_SILENT = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Linear, nn.Embedding, nn.RNNBase,
)  # fmt: skip


def can_attach(module: nn.Module) -> bool:
    """Owners are modules with user code or children, and torch's layers that call operators with state.

    Leaves of ours, torch's other leaf layers and scripted modules are none.
    """
    if is_owner(module) or isinstance(module, torch.jit.ScriptModule):
        return False
    if isinstance(module, Leaf):
        return runs_user_code(module)
    if LEFT_FLOAT in module.__dict__ and isinstance(module, nn.LayerNorm):
        return True
    if type(module).__module__.startswith("linger."):
        return isinstance(module, Composite)
    library = type(module).__module__.startswith("torch.nn.")
    return (
        not library
        or next(module.children(), None) is not None
        or isinstance(module, _CALLERS)
        or LEFT_FLOAT in module.__dict__
        and not isinstance(module, _SILENT)
    )


def walk(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Named modules in order, not descending into leaves; shared modules once."""
    seen: set[int] = set()

    def visit(m: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if id(m) in seen:
            return
        seen.add(id(m))
        yield name, m
        if not isinstance(m, (Leaf, torch.jit.ScriptModule)) or runs_user_code(m):
            for child, c in m.named_children():
                yield from visit(c, f"{name}.{child}" if name else child)

    yield from visit(module, prefix)


def attach(model: _M, settings: LayerLookup, on_owner: Callable[[nn.Module], None] | None = None) -> _M:
    """Give every owner in ``model`` the interception subclass, its qualified name and the settings.

    Args:
        model: Changed in place and returned.
        settings: Answers ``layer(qualified_name)`` for operators that are created later.
        on_owner: Called for each new owner (registers the state hooks).
    """
    model.__dict__["_linger_settings"] = settings  # a bare layer is a model too
    for name, module in walk(model):
        module.__dict__["_linger_name"] = name
        if can_attach(module):
            module.__class__ = owner_class(type(module))
            module.__dict__["_linger_settings"] = settings
            module.__dict__["_linger_sites"] = {}
            if settings.float_operators:
                module.__dict__[FLOAT_OPERATORS] = settings.float_operators
            _close_fast_path(module)
            if on_owner is not None:
                on_owner(module)
    return model


def _close_fast_path(module: nn.Module) -> None:
    """In evaluation torch runs a whole encoder layer as one float kernel; compiled code does not see that this is none."""
    if isinstance(module, nn.TransformerEncoderLayer):
        module.activation_relu_or_gelu = 0
    elif isinstance(module, nn.TransformerEncoder):
        module.use_nested_tensor = False


@contextmanager
def active(model: nn.Module) -> Iterator[nn.Module]:
    """Run entry methods other than ``forward`` of an initialised model in integers.

    Args:
        model: Result of ``linger.init`` (or a module of it) whose methods are called inside.

    Raises:
        TypeError: ``model`` has not been initialised.

    Example:
        with linger.active(model):
            code = model.encode(x)
    """
    if not is_owner(model):
        raise TypeError(f"active: model must be initialised by linger.init, got {type(model).__name__}")
    state.frames.append(Frame(model, active=True))
    try:
        if len(state.frames) > 1:
            yield model
        else:
            with mode.Interception():
                yield model
    finally:
        state.frames.pop()
        if not state.frames:
            end_forward()


@contextmanager
def float_region() -> Iterator[None]:
    """Operators inside run in float and are not reported: losses and metrics that live in a ``forward``."""
    state.float_depth += 1
    try:
        yield
    finally:
        state.float_depth -= 1
