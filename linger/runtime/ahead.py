"""Results that already hold the step behind them: a folded BatchNorm, a fused ReLU. Whoever else reads one is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger.errors import UnsupportedError

from . import sites
from .spellings import METADATA, NAMES, resolve
from .state import state
from .tag import info, tag

FOLDED = "_linger_folded"  # in the __dict__ of a layer: its name and that of the BatchNorm that was folded into it
FOLDED_INTO = "_linger_folded_into"  # in the __dict__ of what stands for that BatchNorm: the layer
_READ_NOTHING: set[Any] = {resolve(f"Tensor.{n}") for n in METADATA}
_READ_NOTHING |= {
    torch.zeros_like,
    torch.ones_like,
    torch.empty_like,
    torch.full_like,
    torch.rand_like,
    torch.randn_like,
}
_READ_NOTHING |= {torch.autograd.backward, torch.autograd.grad}
_READ_NOTHING |= {resolve(f"Tensor.{n}") for n in ("backward", "register_hook", "retain_grad", "grad")}
_RELU = {f for f in map(resolve, "torch.relu torch.relu_ F.relu Tensor.relu Tensor.relu_".split()) if f is not None}
_HOOKS = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_global = nn.modules.module


class Ahead(Tensor):
    """The result of a layer into which the next step has been folded; only that step, and reads of no value, take it.

    The step was found on the ways through the model that were seen at conversion. On another way the result may meet
    another reader, which would compute with values that it must not see.
    """

    held: Tensor
    layer: nn.Module
    folded_norm: str  # name of the folded BatchNorm that has not been passed yet

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        same = unchanged(func, args)
        if same is not None:
            return same
        args, kwargs = settled(func, args, kwargs or {})
        return func(*args, **kwargs)

    def refuse(self, reader: str, frame: FrameType | None = None) -> UnsupportedError:
        """What a reader is told that is not the step which was folded; ``frame``: where it is called."""
        place = "" if frame is None else " ({}:{})".format(*sites.where(frame))
        name = _name(self.layer)
        if self.folded_norm:
            held, cure = (
                f"BatchNorm '{self.folded_norm}'",
                "switch folding off with disable_module=torch.nn.BatchNorm2d (or 1d)",
            )
        else:
            held, cure = "the ReLU behind it", f"name '{name}' in disable_submodel"
        return UnsupportedError(
            f"linger: {held} was folded into '{name}', the only reader of its result when the model was converted, but "
            f"now {reader}{place} reads that result, too; convert with example_inputs that take this way through "
            f"the model, or {cure}"
        )


def ahead(y: Tensor, layer: nn.Module) -> Tensor:
    """Mark what ``layer`` hands on where it holds more than the layer's own result; interception is off.

    Layers with hooks are left alone, since their hooks read the result, and so are values that are only traced.
    """
    norm, fmt = layer.__dict__.get(FOLDED, ("", ""))[1], info(y)
    if not norm and (fmt is None or not fmt.relu) or type(y) is not Tensor or not _guards(layer):
        return y
    return _marked(y, layer, norm)


def _marked(y: Tensor, layer: nn.Module, norm: str) -> Tensor:
    with torch._C.DisableTorchFunction():
        marked = y.as_subclass(Ahead)
    marked.held, marked.layer, marked.folded_norm = y, layer, norm
    return marked


def _guards(layer: nn.Module) -> bool:
    """Whether a layer's result is marked: it runs in a forward, nobody traces, and no hook reads it."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False
    if not state.frames and "output_quantizer" in layer._modules:  # called by itself, in no forward
        return False
    own = layer.__dict__
    if any(own[table] for table in _HOOKS) or _global._global_forward_hooks or _global._global_backward_hooks:
        return False
    return torch._C._functorch.peek_interpreter_stack() is None


def behind_norm(x: Any, norm: nn.Module) -> Any:
    """What a folded BatchNorm, now the identity, hands on.

    Raises:
        UnsupportedError: ``x`` is not the result of the layer that the BatchNorm was folded into.
    """
    layer = norm.__dict__.get(FOLDED_INTO)
    names = ("", "") if layer is None else layer.__dict__.get(FOLDED, ("", ""))
    if type(x) is Ahead and x.folded_norm == names[1] != "":
        y = x.held
        with torch._C.DisableTorchFunction():
            own_gradient = x.requires_grad != y.requires_grad
        if own_gradient:  # made under torch's older checkpoint, which attaches its own gradient
            fmt = info(y)
            y = _plain(x) if fmt is None else tag(_plain(x), fmt)
        fmt = info(y)
        return _marked(y, x.layer, "") if fmt is not None and fmt.relu else y
    if layer is not None and (type(x) is Ahead or type(x) is Tensor and _guards(layer)):
        file, line = sites.where(sys._getframe(2))
        raise UnsupportedError(
            f"linger: BatchNorm '{names[1]}' was folded into '{_name(layer)}', whose result was all it read when the model was "
            f"converted, but at {file}:{line} it gets another tensor; convert with example_inputs that take this way through "
            "the model, or switch folding off with disable_module=torch.nn.BatchNorm2d (or 1d)"
        )
    return x


def _plain(x: Ahead) -> Tensor:
    with torch._C.DisableTorchFunction():
        return x.as_subclass(Tensor)


def _name(layer: nn.Module) -> str:
    return layer.__dict__.get("_linger_name", "") or layer.__dict__.get(FOLDED, ("", ""))[0] or type(layer).__name__


def link(layer: nn.Module, norm: nn.Module, layer_name: str, norm_name: str) -> None:
    """Remember that ``norm`` was folded into ``layer``."""
    layer.__dict__[FOLDED] = (layer_name, norm_name)
    norm.__dict__[FOLDED_INTO] = layer


def unchanged(func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What a call hands on without computing: a marked tensor as it came, or what a BatchNorm that was folded stands for."""
    x = args[0] if args else None
    if func is F.batch_norm and state.frames and FOLDED_INTO in state.frames[-1].owner.__dict__:
        return behind_norm(x, state.frames[-1].owner)
    return x if func is Tensor.contiguous and type(x) is Ahead and len(args) == 1 and x.held.is_contiguous() else None


def settled(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call with the marks taken off.

    Raises:
        UnsupportedError: The call reads a value that holds a step which this call is not.
    """
    harmless = func in _READ_NOTHING

    def off(value: Any) -> Any:
        if type(value) is Ahead:
            if not (harmless or func in _RELU and not value.folded_norm or _in_hook()):
                raise value.refuse(f"`{NAMES.get(func) or getattr(func, '__name__', func)}`", sys._getframe(2))
            return value.held
        if type(value) in (list, tuple):
            return type(value)(off(v) for v in value)
        return value

    return tuple(off(v) for v in args), {k: off(v) for k, v in kwargs.items()}


def _in_hook() -> bool:
    """Whether a hook of a module is running: it looks on, and what it sees is documented."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_back is not None:
        caller = frame.f_back
        if caller.f_code.co_filename == _global.__file__ and caller.f_code.co_name in ("_call_impl", "inner"):
            hook = caller.f_locals.get("hook")
            if hook is not None and getattr(hook, "__code__", None) is frame.f_code:
                return True
        frame = caller
    return False
