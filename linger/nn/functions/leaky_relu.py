"""LeakyReLU, PReLU and absolute value: ``relu(x) - slope * relu(-x)`` in iqMul, Relu and iqAdd, at the scale of ``x``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.nn.arithmetic.constants import code_of, codes_of_parameters, product_with_number
from linger.nn.functional import is_number, pair_attributes, store
from linger.nn.nodes.broadcast import per_channel, write_channels
from linger.nn.nodes.scalar_product import write_scalar_product
from linger.runtime import NAMES, Format, Tape, Value, coded, current_tape, fixed_output, handles, info, tag


def leaky(x: Tensor, fmt: Format, slope: ops.Coded | float) -> Tensor:
    """``x`` where it is positive, ``slope * x`` elsewhere; -128 counts as -127.

    Args:
        x, fmt: An 8-bit tensor and its format.
        slope: A number, or int8 codes: one, or one per channel (axis 1) with the rank of ``x``.

    Source: docs/numerics.md, "LeakyReLU and PReLU".
    """
    a, here = coded(x, fmt), fixed_output(fmt.scale)
    positive = ops.Coded(torch.relu(a.value), a.codes.clamp_min(0), a.scale)
    negative = product_with_number(a, -1.0, here._replace(relu=True))
    if isinstance(slope, ops.Coded):
        part = ops.mul(negative, ops.Coded(-slope.value, -slope.codes, slope.scale), here)
    else:
        part = product_with_number(negative, -slope, here)
    out = ops.add(positive, part, here)
    y = tag(out.value, Format(out.scale, 8, out.codes))
    tape = current_tape()
    if tape is not None:
        _write(tape, x, slope, float(fmt.scale), y)
    return y


def _write(tape: Tape, x: Tensor, slope: ops.Coded | float, scale: float, y: Tensor) -> None:
    name = "leaky"
    minus, negative, part, positive = (tape.value(f"{name}.{k}") for k in ("minus", "negative", "part", "positive"))
    write_scalar_product(tape, x, scale, -64, 64.0, minus, scale, name)
    tape.node("Relu", [minus], [negative], hint=name)
    if isinstance(slope, ops.Coded):
        codes, scale_w = -slope.codes.cpu().numpy(), float(slope.scale)
    else:
        code, exp2 = code_of(-slope)
        codes, scale_w = np.array(code, np.int8), 2.0**exp2
    if codes.ndim == 0:
        write_scalar_product(tape, negative, scale, int(codes), scale_w, part, scale, name)
    else:
        weight, none = per_channel(codes, x.shape), np.zeros(1, np.int32)
        assert weight is not None
        write_channels(tape, negative, x.shape, weight, none, (scale, scale_w, scale), part, name)
    tape.node("Relu", [x], [positive], hint=name)
    both: list[Tensor | Value] = [positive, part]
    tape.node("iqAdd", both, [y], pair_attributes(tape, (8, 8, 8), (scale,) * 3), domain="linger", hint=name)


def _accepted(x: Any) -> Format | None:
    fmt = info(x)
    return fmt if fmt is not None and fmt.bits <= 8 else None


@handles("leaky_relu", "F.leaky_relu F.leaky_relu_")
def _leaky_relu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = {**dict(zip(("input", "negative_slope", "inplace"), args, strict=False)), **kwargs}
    x, slope = named["input"], named.get("negative_slope", 0.01)
    fmt = _accepted(x)
    if fmt is None or not is_number(slope) or abs(slope) > 1:
        return NotImplemented
    y = leaky(x, fmt, slope) if fmt.exact else tag(F.leaky_relu(x, slope), fmt.like(None))
    return store(x, y) if named.get("inplace") or NAMES[func].endswith("_") else y


@handles("abs", "torch.abs torch.absolute Tensor.abs Tensor.absolute Tensor.__abs__ operator.abs")
def _abs(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0] if args else kwargs.get("input")
    fmt = _accepted(x)
    if fmt is None or not isinstance(x, Tensor) or kwargs.get("out") is not None:
        return NotImplemented
    return leaky(x, fmt, -1.0) if fmt.exact else tag(x.abs(), fmt.like(None))


@handles("prelu", "torch.prelu Tensor.prelu F.prelu")
def _prelu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Slopes are parameters: quantized as one tensor, with gradient 1 through the rounding."""
    named = {**dict(zip(("input", "weight"), args, strict=False)), **kwargs}
    x, w = named.get("input", named.get("self")), named["weight"]
    fmt, tape = _accepted(x), current_tape()
    if fmt is None or not isinstance(x, Tensor) or info(w) is not None or tape is not None and tape.has(w):
        return NotImplemented
    if not fmt.exact:
        return tag(torch.prelu(x, w), fmt.like(None))
    channels = x.dim() > 1 and w.numel() > 1
    return leaky(x, fmt, codes_of_parameters(w.reshape([1, -1] + [1] * (x.dim() - 2)) if channels else w.reshape(())))


__all__ = ["leaky"]
