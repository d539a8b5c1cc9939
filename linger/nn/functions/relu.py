"""ReLU on quantized tensors (read back in ``shape_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linger import ops
from linger.nn.functional import store
from linger.runtime import NAMES, Format, coded, current_tape, handles, info, tag


def _finish(x: Tensor, y: Tensor, codes: Tensor | None, fmt: Format, in_place: bool) -> Tensor:
    y = tag(y, fmt.like(codes))
    return store(x, y) if in_place else y


def _relu(x: Tensor, fmt: Format, in_place: bool) -> Tensor:
    if fmt.relu:
        return x  # the producer has applied it
    y, codes = ops.relu(coded(x, fmt))[:2] if fmt.exact else (torch.relu(x), None)
    tape = current_tape()
    if tape is not None:
        tape.node("Relu", [x], [y])
    return _finish(x, y, codes, fmt, in_place)


@handles("relu", "torch.relu Tensor.relu F.relu torch.relu_ Tensor.relu_ F.relu_")
def _relu_call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0] if args else kwargs.get("input")
    fmt = info(x)
    if fmt is None or not isinstance(x, Tensor):
        return NotImplemented
    in_place = NAMES[func].endswith("_") or bool(args[1] if len(args) > 1 else kwargs.get("inplace", False))
    return _relu(x, fmt, in_place)
