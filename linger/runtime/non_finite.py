"""The first float operator of a forward that makes a NaN or an infinity of finite numbers is named, with its line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from torch import Tensor

from . import sites
from .state import state

_log = logging.getLogger("linger")
_INFINITE = frozenset(
    """sqrt rsqrt log log2 log10 log1p reciprocal div divide true_divide __truediv__ __rtruediv__ truediv pow __pow__ __rpow__
    exp exp2 expm1 float_power norm std var normalize tan atanh logit logsumexp mul __mul__ matmul square acos asin
    erfinv""".split()
)  # others make infinities on purpose, as masks do


def watch(func: Callable[..., Any], operands: Iterable[Tensor], result: Any, frame: FrameType | None) -> None:
    """Look at the result of a float operator, on a CPU: other devices would have to wait for it.

    Args:
        func: What ran.
        operands: Its tensors, as they were given.
        result: What came out.
        frame: Where user code called it.
    """
    if (
        not isinstance(result, Tensor)
        or result.device.type != "cpu"
        or not result.is_floating_point()
        or not state.frames
    ):
        return
    total = result.detach().sum()
    if bool(total.isfinite()):
        return
    name = getattr(func, "__name__", str(func))
    plain = result.detach()
    bad = plain.isnan() if name.rstrip("_") not in _INFINITE else ~plain.isfinite()
    if not bool(bad.any()) or not all(bool(t.detach().isfinite().all()) for t in operands if t.is_floating_point()):
        return
    owner = state.frames[-1].owner
    file, line = sites.where(frame)
    place = (owner.__dict__.get("_linger_name", ""), name, file, line)
    said: dict[Any, None] = owner.__dict__.setdefault("_linger_non_finite", {})
    if place not in said:
        said[place] = None
        _log.warning(
            "linger: %s: `%s` (%s:%d) made %d of %d values NaN or infinite, of finite operands: what is quantized behind it is "
            "NaN; keep the operand away from 0 with a clamp or a small constant inside this operator's argument",
            place[0] or "(root)",
            name,
            file,
            line,
            int(bad.sum()),
            plain.numel(),
        )


__all__ = ["watch"]
