"""Layers with 8-bit operands: torch's layers, their class swapped in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linger import ops
from linger.convert.neighbours import discover, fusable_pairs
from linger.nn.base import convert_class

__all__ = ["CLASSES", "QuantConv2d", "QuantLinear", "Quantized", "Range", "convert", "names", "quantized_layers"]

N_STATE = 42
"""Elements of a range's state; docs/numerics.md, "Ranges of dopt"."""


class Range(nn.Module):
    """The range of one activation.

    Attributes:
        state: float32 ``[42]``: the running maximum or 0, the calibration batches, their squared error per exponent.
        calibrating: Whether a forward improves the range; never in a checkpoint or a copy.
    """

    state: Tensor

    def __init__(self, device: Any = None) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(N_STATE, device=device))
        self.calibrating = False

    def forward(self, x: Tensor) -> Tensor:
        """The values of ``x``; the range moves in training and in calibration."""
        return ops.fake_quantize(x, self.state, observe=self.training, calibrate=self.calibrating)

    def exp2(self) -> int | None:
        """The exponent, or None before any data."""
        if not float(self.state[0]) > 0:
            return None
        far = torch.full((1,), 2.0**100, device=self.state.device)  # saturates: 127 / 2**e comes back
        return 1 - math.frexp(float(ops.fake_quantize(far, self.state)) / 127)[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Range:
        """Moves with the model, but stays float32 under ``model.half()``: squared errors do not fit there."""
        before = self.state
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.state.dtype != torch.float32:
            self.state = before.to(self.state.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"calibrating": False}

    def extra_repr(self) -> str:
        e = None if self.state.is_meta else self.exp2()
        return "no data yet" if e is None else f"8 bits, scale 2**{-e}"


class Quantized:
    """What both layers share. Bias and result are float.

    Attributes:
        input_range: The range of the input.
        _bn: The BatchNorm behind the layer, whose factor is in the quantized weight; a tuple, so that it is no child.
    """

    weight: Tensor
    input_range: Range
    _bn: tuple[Any, ...]

    def factor(self) -> Tensor | None:
        """Factor per output channel of the BatchNorm behind, as a column of the weight; without gradient."""
        if not self._bn:
            return None
        bn = self._bn[0]
        with torch.no_grad():
            s = torch.rsqrt(bn.running_var + bn.eps)
            s = s if bn.weight is None else s * bn.weight
            return s.reshape(-1, *[1] * (self.weight.dim() - 1))

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """The weight that the file will hold, unquantized, and its factor; a factor of 0 counts as 1."""
        s = self.factor()
        if s is None:
            return self.weight, None
        s = torch.where(s == 0, 1.0, s)
        return self.weight * s, s

    def quantized_weight(self) -> Tensor:
        """The weight of this step: quantized where it will be quantized, which is behind the fold."""
        w, s = self.folded()
        q = ops.fake_quantize_weight(w)[0]
        return q if s is None else q / s

    def quant_loss(self) -> Tensor:
        """Squared distance of the weight to its codes."""
        w, _ = self.folded()
        with torch.no_grad():
            q, _ = ops.fake_quantize_weight(w)
        loss: Tensor = (w - q).square().sum()
        return loss


class QuantConv2d(Quantized, nn.Conv2d):
    """A convolution of 8-bit activations and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's."""
        y: Tensor = self._conv_forward(self.input_range(x), self.quantized_weight(), self.bias)
        return y


class QuantLinear(Quantized, nn.Linear):
    """A matrix product of 8-bit activations and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's."""
        return F.linear(self.input_range(x), self.quantized_weight(), self.bias)


CLASSES: dict[type[nn.Module], tuple[str, type[nn.Module]]] = {
    nn.Conv2d: ("Conv2D", QuantConv2d),
    nn.Linear: ("MatMul", QuantLinear),
}
"""torch's class -> the end of a layer's name in the configuration, the quantized class."""


def base(m: nn.Module) -> type[nn.Module] | None:
    """The class of torch whose computation a module has, quantized or not; None for all others."""
    for cls in CLASSES:
        if isinstance(m, cls) and (isinstance(m, Quantized) or type(m).forward is cls.forward):
            return cls
    return None


def names(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can be or are quantized: ``block/0/Conv2D`` -> module, in the order of the model."""
    found = {}
    for name, m in model.named_modules():
        cls = base(m)
        if cls is not None:
            found["/".join([*filter(None, name.split(".")), CLASSES[cls][0]])] = m
    return found


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """The quantized ones among them."""
    return {name: m for name, m in names(model).items() if isinstance(m, Quantized)}


def convert(model: nn.Module, layers: Iterable[nn.Module], example: Any) -> None:
    """Turns layers of a model into quantized ones in place.

    Args:
        model: The root; its neighbours (layer and BatchNorm) are found in a forward on the example, or read from its code.
        layers: What to turn.
        example: Positional inputs, or None.
    """
    pairs = {id(pair.layer): pair.bn for pair in fusable_pairs(discover(model, example))}
    for m in layers:
        cls = base(m)
        if cls is None:
            raise TypeError(f"convert: {type(m).__name__} cannot be quantized")
        convert_class(m, CLASSES[cls][1])
        layer: Any = m
        layer.input_range = Range(layer.weight.device).train(m.training)
        bn = pairs.get(id(m))
        layer._bn = () if getattr(bn, "running_var", None) is None else (bn,)
