"""Quantized layers that keep their BatchNorm trainable and fold it in every step (``fold_bn="step"``)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linger.nn.base import QuantLayer
from linger.nn.constrained.fused import NO_LIMITS, EmptyBatchNorm, Limits, copy_layer, fold
from linger.nn.constrained.layers import batch_norm, convolve
from linger.nn.masks import move_masks, renew
from linger.quantizers import Quantizer, WeightCut, in_recomputation, unobserved, weight_cut
from linger.runtime import takes_its_own_forward

from .conv import Conv1dInt, Conv2dInt
from .linear import LinearInt

if TYPE_CHECKING:
    from linger.settings import LayerSettings

_S = TypeVar("_S", bound="_FoldingInt")


class _FoldingInt(QuantLayer):
    """Shared: child ``.bn``; the integers come from weight and bias folded with the batch's or the running statistics.

    In training the float layer gives the batch's mean and unbiased variance, the running statistics follow as in torch,
    and gradients pass through the fold, statistics included. With ``.bn.eval()``, and in evaluation, the running
    statistics are used.

    Source: docs/numerics.md, "Constrained Conv+BN" (blend 0, in integers).
    """

    bn: Any
    fold_limits: Limits

    @classmethod
    def from_pair(cls: type[_S], layer: nn.Module, bn: nn.Module, quant: LayerSettings) -> _S:
        """Turn `layer` into this in place and return it; `bn` moves inside and leaves an :class:`EmptyBatchNorm`."""
        inner = copy_layer(bn)
        move_masks(bn, inner)
        if takes_its_own_forward(type(inner)):  # whose code goes on running outside
            inner.__class__ = nn.BatchNorm1d if isinstance(inner, nn.BatchNorm1d) else nn.BatchNorm2d
            inner._modules.clear()
        EmptyBatchNorm.replace(bn)
        info = quant.clamp
        free = replace(info, clamp_weight_value=None, clamp_factor_value=None)  # the fold clamps, in every step
        new: Any = cls.from_float(layer, replace(quant, clamp=free))
        new.bn = inner
        new.fold_limits = Limits(info.clamp_weight_value, info.clamp_factor_value, info.clamp_bias_value)
        folded: _S = new
        return folded

    def limited_weights(self) -> list[tuple[Tensor, Quantizer]]:
        """None: the fold clamps in every step."""
        return []

    def weight_cuts(self) -> list[tuple[WeightCut, Quantizer]]:
        """What the fold cuts from the folded weight of the evaluation."""
        with torch.no_grad(), torch._C.DisableTorchFunction():
            folded = fold(self, self.bn, self.bn.running_mean, self.bn.running_var)[0]
        return [(weight_cut(folded, self.fold_limits.weight, self.fold_limits.factor), self.weight_quantizer)]

    def _raw(self, x: Tensor) -> Tensor:
        layer: Any = self
        if isinstance(self, nn.Linear):
            return F.linear(x, layer.weight, layer.bias)
        return convolve(layer, x, layer.weight, layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward, float gradients in backward."""
        bn = self.bn
        renew(bn)
        with torch._C.DisableTorchFunction():
            if bn.training:
                with torch.autocast(x.device.type, enabled=False):
                    raw = self._raw(x.float())
                axes = [d for d in range(raw.dim()) if d != 1]
                var, mean = torch.var_mean(raw, axes, correction=1)
                if not in_recomputation():
                    with torch.no_grad():
                        batch_norm(bn, raw, None, None)  # only for its running statistics
                self.__dict__["_statistics"] = (mean, var)
        try:
            out: Tensor = super().forward(x)
        finally:
            self.__dict__.pop("_statistics", None)
        return out

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        mean, var = self.__dict__.get("_statistics") or (self.bn.running_mean, self.bn.running_var)
        return fold(self, self.bn, mean, var, NO_LIMITS if unobserved() else self.fold_limits)


class Conv1dBNInt(_FoldingInt, Conv1dInt):
    """``Conv1dInt`` with a trainable BatchNorm folded in every step.

    Shape:
        x ``(N, C, L)`` -> as ``Conv1dInt``.
    """


class Conv2dBNInt(_FoldingInt, Conv2dInt):
    """``Conv2dInt`` with a trainable BatchNorm folded in every step.

    Shape:
        x ``(N, C, H, W)`` -> as ``Conv2dInt``.
    """


class LinearBNInt(_FoldingInt, LinearInt):
    """``LinearInt`` with a trainable BatchNorm folded in every step.

    Shape:
        x ``(N, in_features)`` -> as ``LinearInt``.
    """


FOLDING: dict[type[nn.Module], type[_FoldingInt]] = {
    nn.Conv1d: Conv1dBNInt,
    nn.Conv2d: Conv2dBNInt,
    nn.Linear: LinearBNInt,
}
