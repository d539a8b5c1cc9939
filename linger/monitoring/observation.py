"""One training step looked at: shares of extreme and zero codes by layer. The device is read once, when the step is over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from linger.quantizers import Quantizer, highest
from linger.runtime import Leaf, float_tensors, info

__all__ = ["Layer", "Looked", "exponents", "watch_layers"]


class Layer(NamedTuple):
    """A layer or operator in one step.

    Attributes:
        saturated: Share of its results at the largest or smallest code.
        zeros: Share of its results that are code 0.
        finite: Whether its scale is a number: NaN entered it otherwise.
        exponent: log2 of its result's scale; NaN where it has none.
        bits: Width of its result.
    """

    saturated: float
    zeros: float
    finite: bool
    exponent: float
    bits: int


class Looked:
    """What the hooks of one forward have gathered.

    Args:
        keep: Keep the codes, for histograms.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.codes: dict[str, tuple[Tensor, Tensor]] = {}  # layer -> codes and their scale
        self._counts: dict[str, tuple[Tensor, int, int]] = {}  # four numbers of the device, elements, bits

    def add(self, name: str, result: Any) -> None:
        """The result of a layer."""
        tensor = next(float_tensors(result), None)
        fmt = info(tensor) if tensor is not None else None
        if tensor is None or fmt is None or not fmt.exact or name in self._counts or not tensor.numel():
            return
        with torch.no_grad():
            value = tensor.detach()
            codes = fmt.codes if fmt.codes is not None else (value * fmt.scale).to(torch.int32)
            top, count = highest(fmt.bits), codes.numel()
            others = [
                torch.count_nonzero(codes ^ code) for code in (top, -top - 1)
            ]  # five times as fast as comparisons
            counts = [2 * count - others[0] - others[1], count - torch.count_nonzero(codes)]
            found = torch.stack([*(c.float() for c in counts), fmt.scale.float().reshape(())])
        self._counts[name] = found, tensor.numel(), fmt.bits
        if self.keep:
            self.codes[name] = codes.detach(), fmt.scale

    def layers(self) -> dict[str, Layer]:
        """The layers in the order of the forward."""
        if not self._counts:
            return {}
        rows = torch.stack([c for c, _, _ in self._counts.values()]).cpu().tolist()
        found = {}
        for (name, (_, elements, bits)), (extreme, zeros, scale) in zip(self._counts.items(), rows, strict=True):
            finite = math.isfinite(scale) and scale > 0
            exponent = math.log2(scale) if finite else math.nan
            found[name] = Layer(extreme / elements, zeros / elements, finite, exponent, bits)
        return found


def watch_layers(model: nn.Module, looked: Looked) -> Callable[[], None]:
    """Hooks on every layer and operator that computes on codes; returns what removes them."""
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Leaf) and not isinstance(module, Quantizer):

            def hook(_module: nn.Module, _args: Any, result: Any, name: str = name) -> None:
                looked.add(name or "(root)", result)

            handles.append(module.register_forward_hook(hook))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def exponents(model: nn.Module) -> dict[str, float]:
    """log2 of every quantizer's scale, by name; one read of the device."""
    found = {name: m for name, m in model.named_modules() if isinstance(m, Quantizer)}
    if not found:
        return {}
    scales = torch.stack([m.scale.detach().float().reshape(()) for m in found.values()]).cpu().tolist()
    return {n: math.log2(s) if s > 0 and math.isfinite(s) else math.nan for n, s in zip(found, scales, strict=True)}
