"""The first float operator of a forward that makes a NaN or an infinity of finite numbers is named, with its line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import Tensor

from linger.quantizers import layer_of

from . import sites
from .state import state
from .tag import info, tensors

_log = logging.getLogger("linger")
_INFINITE = frozenset(
    """sqrt rsqrt log log2 log10 log1p reciprocal div divide true_divide __truediv__ __rtruediv__ __rdiv__ truediv pow __pow__
    __rpow__ exp exp2 expm1 float_power norm std var normalize tan atanh logit logsumexp mul __mul__ matmul square acos asin
    erfinv""".split()
)  # others make infinities on purpose, as masks do
_QUOTIENT = frozenset(
    "div divide true_divide truediv __truediv__ floor_divide".split()
)  # the second operand may not be 0
_POWER = frozenset("pow __pow__ float_power".split())
_AT_ZERO = frozenset("sqrt rsqrt log log2 log10 reciprocal __rtruediv__ __rdiv__ atan2 arctan2 norm".split())
_CURE = "keep the operand away from 0 with a clamp or a small constant inside this operator's argument"


def watch(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, frame: FrameType | None
) -> None:
    """Look at operands and result of a float operator, on a CPU: other devices would have to wait for it.

    Args:
        func: What ran.
        args, kwargs: As they were given.
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
    name = getattr(func, "__name__", str(func))
    name = name if name.endswith("__") else name.removesuffix("_")
    if result.requires_grad:
        _all_zero(name, args, kwargs, frame)
    total = result.detach().sum()
    if bool(total.isfinite()):
        return
    plain = result.detach()
    bad = plain.isnan() if name not in _INFINITE else ~plain.isfinite()
    operands = tensors([*args, *kwargs.values()])
    if not bool(bad.any()) or not all(bool(t.detach().isfinite().all()) for t in operands if t.is_floating_point()):
        return
    where = _new_place(name, frame)
    if where is not None:
        _log.warning(
            "linger: %s made %d of %d values NaN or infinite, of finite operands: what is quantized behind it is NaN; %s",
            where,
            int(bad.sum()),
            plain.numel(),
            _CURE,
        )


def _all_zero(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType | None) -> None:
    """Name the layer whose result is 0 in every place and enters an operator that has no finite gradient there."""
    operands = [*args, *kwargs.values()]
    if name in _QUOTIENT:
        operands = operands[1:2]
    elif name in _POWER:
        exponent = operands[1] if len(operands) > 1 else None
        operands = operands[:1] if isinstance(exponent, (int, float)) and exponent < 1 else []
    elif name not in _AT_ZERO:
        return
    known = [(t, fmt) for t in tensors(operands) if (fmt := info(t)) is not None and fmt.maker is not None]
    if not known or any(bool(t.detach().any()) for t in tensors(operands)):
        return
    layer, _ = layer_of(str(known[0][1].maker))
    where = _new_place(name, frame)
    if where is not None:
        _log.warning(
            "linger: %s gets nothing but 0 from '%s', too small for the scale %g of its result: the gradient is infinite or "
            "NaN; %s, or give '%s' more bits",
            where,
            layer,
            float(known[0][1].scale),
            _CURE,
            layer,
        )


def _new_place(name: str, frame: FrameType | None) -> str | None:
    """Owner, operator and line; None where they were named before."""
    owner = state.frames[-1].owner
    file, line = sites.where(frame)
    place = (owner.__dict__.get("_linger_name", ""), name, file, line)
    said: dict[Any, None] = owner.__dict__.setdefault("_linger_non_finite", {})
    if place in said:
        return None
    said[place] = None
    return f"{place[0] or '(root)'}: `{name}` ({file}:{line})"


__all__ = ["watch"]
