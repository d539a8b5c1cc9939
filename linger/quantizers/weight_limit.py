"""What the limit of a weight cuts: seven times mean|w| is far from ordinary weights, and near to sparse or merged ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CUT_SAID", "WEIGHT_CUT", "WeightCut", "cut_note", "weight_cut"]

CUT_SAID = "_linger_cut_said"  # in the __dict__ of a constrained layer or a quantizer: the user knows
WEIGHT_CUT = "_weight_cut"  # in the __dict__ of a weight's quantizer: the last measurement
_LARGE = 1e-3  # of the energy: what a Laplacian weight loses at seven times its mean, and 30 dB of that layer


class WeightCut(NamedTuple):
    """What a limit cuts from one weight.

    Args:
        key: The setting that gives the limit, with its value.
        limit: In real units; infinity where there is none.
        share: Elements beyond it, 0..1.
        energy: Sum of the squares that is cut off, in parts of the weight's own, 0..1.
        peak: The largest absolute value.
    """

    key: str = ""
    limit: float = float("inf")
    share: float = 0.0
    energy: float = 0.0
    peak: float = 0.0

    @property
    def large(self) -> bool:
        """Whether the user should know."""
        return self.energy > _LARGE


@torch.no_grad()
def weight_cut(weight: Tensor, value: float | None = None, factor: float | None = None) -> WeightCut:
    """Measures what the limit of the constrained stage, or the one clamp of the quantized one, cuts from a weight.

    Args:
        weight: Float tensor of any shape, in front of the clamp.
        value: ``clamp_weight_value``; it wins over the factor.
        factor: ``clamp_factor_value``, in multiples of mean|w|.

    Source: docs/numerics.md, "Constrained stage".
    """
    if value is None and factor is None or not weight.numel() or weight.is_meta:
        return WeightCut()
    size = weight.detach().float().abs()
    key = f"clamp_factor_value {factor:g}" if value is None else f"clamp_weight_value {value:g}"
    limit = float(size.mean()) * (factor or 0.0) if value is None else float(value)
    whole = float(size.square().sum(dtype=torch.float64))
    lost = float((size - limit).clamp_min(0.0).square().sum(dtype=torch.float64))
    share = float((size > limit).float().mean())
    return WeightCut(key, limit, share, lost / whole if whole else 0.0, float(size.max()))


def cut_note(cuts: Iterable[tuple[str, WeightCut]]) -> str:
    """One message about the layers (qualified name, cut) whose limit cuts too much, and the YAML lines that help; else ""."""
    large = [(name, cut) for name, cut in cuts if cut.large]
    if not large:
        return ""
    lines = [
        f"  {name or '(root)'}: {cut.key} keeps its weight within {cut.limit:.4g}: {cut.share:.2%} of the elements and "
        f"{cut.energy:.2%} of the energy are cut (it reaches {cut.peak:.4g})"
        for name, cut in large
    ]
    names = ", ".join(dict.fromkeys(f"'{name or '*'}'" for name, _ in large))
    off = "clamp_factor_value: null"
    if any(cut.key.startswith("clamp_weight_value") for _, cut in large):
        off += ", clamp_weight_value: null"
    return "\n".join(
        (
            "the weight limit cuts:",
            *lines,
            "in the configuration, in front of other sections of these layers, no limit is:",
            f"  wide_weights:\n    name: [{names}]\n    clamp_info: {{{off}}}",
        )
    )
