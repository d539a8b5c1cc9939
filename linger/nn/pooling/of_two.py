"""The larger or smaller of two tensors, element by element: both side by side, and the maximum over the pair.

No chip has it as one node. iqCat brings both to the scale of the result, where the comparison is exact; MaxPool picks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linger.nn.functional import both_operands, real_operands
from linger.nn.nodes.broadcast import common_shape
from linger.runtime import HANDLERS, NAMES, handles, info

from .average import call_handler


def of_two(x: Tensor, y: Tensor, lowest: bool) -> Tensor:
    """``max(x, y)`` or, ``lowest``, ``min(x, y)`` of operands that :func:`fit`; gradients as torch's, ties share theirs."""
    shape = list(torch.broadcast_shapes(x.shape, y.shape))  # type: ignore[no-untyped-call]
    x, y = (t if list(t.shape) == shape else call_handler(Tensor.expand, t, shape) for t in (x, y))
    rows = [shape[0], 1, torch.Size(shape[1:]).numel()]  # iqCat takes four axes at most
    both = HANDLERS[torch.cat](torch.cat, ([_reshaped(t, rows) for t in (x, y)], 1), {})
    return _reshaped(call_handler(torch.amin if lowest else torch.amax, both, 1), shape)


def _reshaped(x: Tensor, shape: list[int]) -> Tensor:
    """A float operand has no format to keep, and the quantizer of the pair takes it as it comes."""
    return x.reshape(shape) if info(x) is None else call_handler(torch.reshape, x, shape)


def fit(x: Any, y: Any) -> bool:
    """Whether a pair can run in integers: tensors, one at least quantized, to 8 bits at most, and each that is repeated."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and real_operands(x, y)):
        return False
    shape = common_shape(x, y)
    return bool(shape) and all(info(t) is not None or tuple(t.shape) == shape for t in (x, y))


@handles("maximum", "torch.maximum Tensor.maximum torch.minimum Tensor.minimum")
def _maximum(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = both_operands(args, kwargs)
    if found is None or not fit(*found[:2]):
        return NotImplemented
    return of_two(found[0], found[1], NAMES[func] == "minimum")


__all__ = ["fit", "of_two"]
