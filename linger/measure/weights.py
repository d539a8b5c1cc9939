"""What becomes of the weights: their codes, the limit of the constrained stage, channels with extreme factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from linger import ops
from linger.nn.base import Converted, QuantLayer
from linger.nn.recurrent.layer import RecurrentInt
from linger.quantizers import WEIGHT_CUT, Quantizer, switched_off, weight_cut

from .rows import Row, WeightRow
from .sums import Energy

__all__ = ["FACTOR", "weight_rows"]

FACTOR = "factor"  # what a BatchNorm multiplies its channels by

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def weight_rows(rows: Mapping[str, Row], model: nn.Module, reference: nn.Module | None) -> None:
    """Fill the weights of every measured layer.

    Args:
        rows: Layers by qualified name.
        model: The quantized model.
        reference: The float model, converted; its weights have met no limit.
    """
    theirs = dict(reference.named_modules()) if reference is not None else {}
    for name, layer in model.named_modules():
        if name not in rows or not isinstance(layer, (Converted, RecurrentInt)):
            continue
        with switched_off():  # a layer that folds in every step does so without its limit
            originals = {key: w for key, w, _ in _weights(theirs.get(name, layer))}
        for key, weight, quantizer in _weights(layer):
            rows[name].weights.append(_row(layer, key, weight, quantizer, originals.get(key, weight), name in theirs))


def _weights(layer: Any) -> Iterator[tuple[str, Tensor, Quantizer]]:
    """The weights that a layer holds, as they enter the integers: name, float values, quantizer."""
    if isinstance(layer, RecurrentInt):
        for d in layer.directions():
            for kind in ("ih", "hh"):
                key = d.parameter(f"weight_{kind}")
                yield key, getattr(layer, key).detach().float(), getattr(layer, d.quantizer(f"weight{kind}"))
    elif isinstance(layer, _BATCH_NORM) and isinstance(layer, QuantLayer):
        if layer.running_var is not None:
            alpha = torch.rsqrt(layer.running_var + layer.eps)
            alpha = alpha * layer.weight.detach() if layer.weight is not None else alpha
            yield FACTOR, alpha.float(), layer.weight_quantizer
    elif getattr(layer, "weight", None) is not None and hasattr(layer, "weight_quantizer"):
        weight = layer._folded()[0] if hasattr(layer, "_folded") else layer.weight
        yield "weight", weight.detach().float(), layer.weight_quantizer


def _row(layer: Any, key: str, weight: Tensor, quantizer: Quantizer, wanted: Tensor, referred: bool) -> WeightRow:
    codes, scale, *_ = ops.quantize_weight(weight, quantizer.output()._replace(observe=False), grad=False)
    wanted = wanted if wanted.shape == weight.shape else weight
    row = WeightRow(key, float(wanted.min()), float(wanted.max()), quantizer.bits, float(scale), Energy(0))
    row.energy.add(wanted, codes / scale)
    row.saturated = float((wanted * scale > (1 << (quantizer.bits - 1)) - 0.5).float().mean())
    size = wanted.abs().flatten(1).amax(1) if wanted.dim() > 1 else wanted.abs()
    middle = float(size.median())
    row.factors = [float(s) / middle for s in size] if middle > 0 else []
    if key != FACTOR:
        known = None if referred else quantizer.__dict__.get(WEIGHT_CUT)  # what this process has cut
        limits = getattr(layer, "fold_limits", None)
        clamp = layer.quant.clamp
        value, factor = (clamp.clamp_weight_value, clamp.clamp_factor_value) if limits is None else limits[:2]
        row.cut = known or weight_cut(wanted, value, factor)
    return row
