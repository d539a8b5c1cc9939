"""Values beyond what the integers hold: no scale is coarser than 1, so that 8 bits end at 127. Who saturates is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from .quantizer import Quantizer

CUT = "_cut"  # in the __dict__ of a quantizer: what the last calibration saw
TRAIN_LIMIT = "_train_limit"  # in the __dict__ of an output quantizer: clamp_activation_value of its layer


class Cut(NamedTuple):
    """What one calibration saw of a quantizer's values.

    Args:
        total: Values.
        beyond: Those above what the codes hold at scale 1.
        limited: Those above the layer's training clamp.
        peak: The largest absolute value.
    """

    total: int = 0
    beyond: int = 0
    limited: int = 0
    peak: float = 0.0


def highest(bits: int) -> int:
    """The largest value that codes of this width hold: no scale is below 1."""
    return (1 << (bits - 1)) - 1


def counted(quantizer: Quantizer, x: Tensor, before: Cut) -> Cut:
    """``before`` and one more batch."""
    size = x.abs()
    limit = quantizer.__dict__.get(TRAIN_LIMIT)
    return Cut(
        before.total + x.numel(),
        before.beyond + int((size >= highest(quantizer.bits) + 0.5).sum()),
        before.limited + (0 if limit is None else int((size > limit).sum())),
        max(before.peak, float(size.max())),
    )


def layer_of(name: str) -> tuple[str, str]:
    """Layer and place (``input`` or ``output``) of a quantizer's qualified name."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.endswith("quantizer")), len(parts) - 1)
    return ".".join(parts[:at]) or "(root)", parts[at].removesuffix("_quantizer")


def remedy(name: str) -> str:
    """What helps a quantizer whose values saturate."""
    layer, place = layer_of(name)
    if place == "input":
        return "normalise the input (images of 0..255: divide by 255)"
    return f"output_bits: 16 or 32 in a section whose name covers '{layer}', or smaller numbers (normalised targets)"


def saturation(quantizer: Quantizer) -> str:
    """A sentence about a quantizer whose range ends above its largest code, or whose training clamp cuts; else ""."""
    if not quantizer.name or quantizer.role != "activation" or not quantizer.ready:
        return ""
    layer, place = layer_of(quantizer.name)
    cut: Cut = quantizer.__dict__.get(CUT, Cut())
    top, said = highest(quantizer.bits), []
    reach = cut.peak if cut.total else quantizer.reach
    if cut.beyond or not cut.total and reach >= top + 0.5:
        share = f"{cut.beyond / cut.total:.1%} of the values saturate" if cut.total else "values saturate"
        said.append(
            f"{layer}: {place}: {share} at {top}, all that {quantizer.bits} bits hold at scale 1 (the values reach {reach:.4g}): "
            + remedy(quantizer.name)
        )
    if cut.limited > 0.01 * cut.total:
        limit = quantizer.__dict__[TRAIN_LIMIT]
        said.append(
            f"{layer}: {place}: training cuts {cut.limited / cut.total:.1%} of the values at clamp_activation_value {limit:g} "
            f"(they reach {reach:.4g}): raise it, or null it, in a section whose name covers '{layer}'"
        )
    return "\n".join(said)


__all__ = ["CUT", "TRAIN_LIMIT", "Cut", "counted", "highest", "layer_of", "remedy", "saturation"]
