"""The weights of a quantized layer for which a limit holds, and what it cuts from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from linger.quantizers import WEIGHT_CUT, Quantizer, WeightCut, weight_cut

if TYPE_CHECKING:
    from linger.settings import LayerSettings


class Limited:
    """What every quantized layer with weights knows about the limit of each."""

    quant: LayerSettings

    @property
    def normalize_data(self) -> float | None:
        """Limit of the output in training, in real units; None: off. The names are those of constrained layers."""
        return self.quant.clamp.clamp_activation_value

    @property
    def normalize_weight(self) -> float | None:
        """Static limit of the weight; None: off, or in multiples of mean|w| (``quant.clamp``)."""
        return self.quant.clamp.clamp_weight_value

    @property
    def normalize_bias(self) -> float | None:
        """Static limit of the bias; None: off."""
        return self.quant.clamp.clamp_bias_value

    def limited_weights(self) -> list[tuple[Tensor, Quantizer]]:
        """The weights that are clamped once, each with its quantizer; none that is folded anew in every step."""
        weight: Tensor | None = getattr(self, "weight", None)
        return [] if weight is None else [(weight, cast(Any, self).weight_quantizer)]

    def weight_cuts(self) -> list[tuple[WeightCut, Quantizer]]:
        """What the one clamp will cut, or has cut since the model was built or loaded, from each weight."""
        info, found = self.quant.clamp, []
        for weight, quantizer in self.limited_weights():
            cut = quantizer.__dict__.get(WEIGHT_CUT)
            if cut is None and weight.requires_grad and not weight.is_meta and not quantizer.weight_clamped:
                cut = weight_cut(weight, info.clamp_weight_value, info.clamp_factor_value)
            found.append((cut or WeightCut(), quantizer))
        return found


__all__ = ["Limited"]
