"""The parameter file beside a final model. Weights need no codes there: they are the model file's values / scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import config

__all__ = ["NAME", "layer", "write"]

NAME = "quant_params.json"


def layer(
    op_type: str, node: str, inputs: list[tuple[str, int]], weight: tuple[str, int, Any] | None
) -> dict[str, Any]:
    """One layer's entry: ``value = code * scale``, symmetric, ``scale = 2**-exp2`` or, where a BatchNorm was folded, a list.

    Args:
        op_type: As in the configuration.
        node: The node in the model file.
        inputs: Tensor and exponent of each quantized operand that is no weight.
        weight: Tensor, exponent and scale (a number, or one per output channel) of the weight.
    """
    entry: dict[str, Any] = {"op_type": op_type, "quant_strategy": config.INT8, "node": node}
    for key, (tensor, exp2) in zip(("input", "input_1"), inputs, strict=False):
        entry[key] = {"tensor": tensor, "bits": 8, "exp2": exp2, "scale": 2.0**-exp2, "zero_point": 0}
    if weight is not None:
        tensor, exp2, scale = weight
        entry["weight"] = {"tensor": tensor, "bits": 8, "exp2": exp2, "scale": scale, "zero_point": 0}
    return entry


def write(folder: Path, framework: str, model: str, layers: dict[str, Any]) -> Path:
    """Writes the file; equal content gives equal bytes."""
    path = folder / NAME
    content = {
        "format": "dopt quantization parameters",
        "version": 1,
        "framework": framework,
        "model": model,
        "layers": layers,
    }
    config.replace(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path
