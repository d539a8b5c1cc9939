"""The text ``input_shape``: deployment shapes, and inputs of zeros that have them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import torch
from torch import Tensor, nn

from linger.convert.neighbours import discover

__all__ = ["example", "parse"]


def parse(text: Any) -> dict[str, tuple[int, ...]]:
    """``"x:1,3,224,224;y:1,6"`` as a dict in its order.

    Raises:
        ValueError: Anything else, an empty name or a name twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    if not isinstance(text, str):
        raise ValueError(f"input_shape: expected a text such as 'x:1,3,224,224', got {text!r}")
    for part in text.strip().rstrip(";").split(";"):
        ok = re.fullmatch(r"\s*([\w.]+)\s*:\s*([1-9]\d*(?:\s*,\s*[1-9]\d*)*)\s*", part)
        if ok is None:
            raise ValueError(f"input_shape: expected 'name:1,3,224,224' (several: separated by ';'), got {text!r}")
        if ok[1] in found:
            raise ValueError(f"input_shape: the name '{ok[1]}' occurs twice in {text!r}")
        found[ok[1]] = tuple(int(d) for d in ok[2].split(","))
    return found


def example(call: str, model: nn.Module, text: Any) -> tuple[Tensor, ...]:
    """Zeros of the deployment shapes on which the model runs: floats, or where it wants numbers of tokens, int64.

    Raises:
        ValueError: The model does not run on them; with torch's message for floats.
    """
    shapes = parse(text)
    p = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    first: Exception | None = None
    for dtypes in itertools.islice(itertools.product((p.dtype, torch.int64), repeat=len(shapes)), 8):
        inputs = tuple(torch.zeros(s, device=p.device, dtype=t) for s, t in zip(shapes.values(), dtypes, strict=True))
        try:
            discover(model, inputs)  # an evaluation that leaves no trace
        except ValueError as e:
            first = first or e
        else:
            return inputs
    why = str(first).removeprefix("example_inputs: ").replace("on them", f"on input_shape {text!r}")
    raise ValueError(f"{call}: {why}") from first
