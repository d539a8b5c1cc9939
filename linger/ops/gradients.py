"""What backwards share: saved operands in real numbers, and gradients of gradients.

A backward that will itself be differentiated (``create_graph=True``) does not call the native kernels: it differentiates the
float operator at the dequantized saved codes, as a graph. Codes, masks, slopes and the scales of operands are constants in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks

_dequantize = checks.native("dequantize")
_NOTHING = torch.empty(0)
_SMALL = 256  # elements: time counts there, memory does not
Links = tuple[Tensor | None, ...] | None


def dequantized(codes: Tensor, scale: Tensor) -> Tensor:
    """A saved operand for the float gradients. Behind a NaN its codes are 0 and its scale is NaN: it then counts as 0."""
    value: Tensor = _dequantize(codes, scale, True)
    return value


def links(*tensors: Tensor | None) -> Links:
    """The places of an operator's operands in the graph, without their memory: what a second derivative flows to.

    An operator saves codes; that they came from these tensors is all that is left to remember. None while a graph is traced:
    compiled code has no second derivative.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return None
    return tuple(map(_link, tensors))


def _link(x: Tensor | None) -> Tensor | None:
    if x is None or not x.requires_grad:
        return None
    if x.is_leaf or x.numel() <= _SMALL or type(x) is not Tensor:
        return x  # the graph keeps a leaf anyway
    place = x.unsafe_chunk(1)[0]  # no view: that would keep its base
    place.data = _NOTHING
    return place


def needs_graph(ctx: Any) -> bool:
    """Whether a backward must give its results as a graph; ``ctx.links`` are the operator's :func:`links`."""
    return ctx.links is not None and torch.is_grad_enabled()


def of_threshold(ctx: Any, grad: Tensor, slope: Tensor, scale: Tensor) -> Tensor:
    """Gradient of the output quantizer's threshold, which is the last of ``ctx.links``."""
    return checks.threshold_grad(grad, slope, scale, None if ctx.links is None else ctx.links[-1])


class _Operand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, place: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        return dequantized(codes, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


def operand(place: Tensor | None, codes: Tensor, scale: Tensor) -> Tensor:
    """Saved codes in real numbers, standing in the graph where ``place`` does."""
    if place is None:
        return dequantized(codes, scale)
    value: Tensor = _Operand.apply(place, codes, scale)  # type: ignore[no-untyped-call]
    return value


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, place: Tensor | None, t: Tensor | None, *saved: Tensor) -> Tensor:
        codes, scale, mask, slope = saved
        ctx.save_for_backward(mask, slope, scale)
        ctx.layout, ctx.threshold = checks.layout_of(codes), t
        return dequantized(codes, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_w, for_t, *_rest = ctx.needs_input_grad
        mask, slope, scale = ctx.saved_tensors
        grad = checks.in_layout(grad, ctx.layout)
        gt = checks.threshold_grad(grad, slope, scale, ctx.threshold) if for_t else None
        return checks.mask_grad(grad, mask) if for_w else None, gt, None, None, None, None


def weight_operand(place: Tensor | None, t: Tensor | None, saved: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """A quantized weight (codes, scale, mask, slope) in real numbers, with its quantizer's gradients to ``place`` and ``t``."""
    if place is None and t is None:
        return dequantized(*saved[:2])
    value: Tensor = _Weight.apply(place, t, *saved)  # type: ignore[no-untyped-call]
    return value


def differentiated(expression: Callable[..., Tensor], grad: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of a float expression at its operands, as a graph; None for an operand that needs none.

    Args:
        expression: Of float32 tensors.
        grad: Gradient of its result.
        *operands: From :func:`operand` and :func:`weight_operand`.
    """
    wanted = [x for x in operands if x.requires_grad]
    if not wanted:
        return (None,) * len(operands)
    with checks.no_autocast(grad):
        found = iter(torch.autograd.grad(expression(*operands), wanted, grad, create_graph=True))
    return tuple(next(found) if x.requires_grad else None for x in operands)


def refuse_second_derivative(found: tuple[Any, ...], message: str) -> tuple[Any, ...]:
    """Gradients that cannot be differentiated again: whoever tries reads ``message``."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return found
    refuse: Any = torch._C._functions.DelayedError(message.encode(), len(found))
    results: tuple[Any, ...] = refuse(*(None if g is None else g.detach().requires_grad_() for g in found))
    return results


__all__ = [
    "dequantized",
    "differentiated",
    "links",
    "needs_graph",
    "of_threshold",
    "operand",
    "refuse_second_derivative",
    "weight_operand",
]
