"""ReLU and ReLU6 on quantized tensors (read back in ``add_nodes.py`` and ``norm_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.runtime import NAMES, Format, Tape, Value, coded, current_tape, handles, info, scale_value, tag

from .functional import store


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


def _bounds(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Lower bound, upper bound and in-place flag of a clamp-like call; None for an open side."""
    name = NAMES[func]
    rest = list(args[1:])
    if name == "relu6":
        return 0, 6, bool(rest[0] if rest else kwargs.get("inplace", False))
    if name.startswith("clamp_min"):
        return (rest[0] if rest else kwargs.get("min")), None, name.endswith("_")
    low = rest[0] if rest else kwargs.get("min_val", kwargs.get("min", -1 if "hardtanh" in name else None))
    high = rest[1] if len(rest) > 1 else kwargs.get("max_val", kwargs.get("max", 1 if "hardtanh" in name else None))
    in_place = bool(rest[2] if len(rest) > 2 else kwargs.get("inplace", False))
    return low, high, in_place or name.endswith("_")


_CLAMPS = """F.relu6 F.hardtanh F.hardtanh_ torch.clamp Tensor.clamp torch.clip Tensor.clip torch.clamp_ Tensor.clamp_
    Tensor.clip_ torch.clamp_min Tensor.clamp_min torch.clamp_min_ Tensor.clamp_min_"""


@handles("relu6", _CLAMPS)
def _clamp_call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """[0, high] with a whole ``high`` runs in integers: a ReLU, and a saturation moved to the wanted limit."""
    x = args[0] if args else kwargs.get("input")
    fmt = info(x)
    low, high, in_place = _bounds(func, args, kwargs)
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (low, high) if v is not None)
    if fmt is None or not isinstance(x, Tensor) or not plain or low != 0 or fmt.bits != 8:
        return NotImplemented
    if high is not None and (high <= 0 or high != int(high)):
        return NotImplemented
    if high is None:
        return _relu(x, fmt, in_place)
    y = F.hardtanh(x, 0.0, float(high))
    tape = current_tape()
    if tape is not None:
        _write_clip(tape, x, y, int(high), fmt)
    return _finish(x, y, None, fmt, in_place)


def _write_clip(tape: Tape, x: Tensor, y: Tensor, high: int, fmt: Format) -> None:
    """min(x, c) as saturate(x + (127 - c)) - (127 - c): two BatchNorm2dInt with weight 1; no chip has Clip."""
    scale = scale_value(fmt)
    limit = int(high * scale)
    if limit >= 127:
        tape.node("Relu", [x], [y])
        return
    value: Tensor | Value = tape.value("relu")
    tape.node("Relu", [x], [value])
    four = y.dim() == 4
    if not four:
        channels = y.shape[1] if y.dim() > 1 else 1
        shaped = tape.value("clip.in")
        tape.node("Reshape", [value, np.array([y.shape[0], channels, 1, -1], np.int64)], [shaped], hint="clip")
        value = shaped
    channels = y.shape[1] if y.dim() > 1 else 1
    ones = np.ones(channels, np.int8)
    for i, shift in enumerate((127 - limit, limit - 127)):
        out: Tensor | Value = y if four and i == 1 else tape.value("clip")
        attributes = {
            "platform": tape.platform,
            "quant_mode": "floor_add",
            "platform_quant": "luna_quant",
            "data_bits": 8,
            "parameter_bits": 8,
            "o_bits": 8,
            "scale_x": scale,
            "scale_w": 1.0,
            "scale_o": scale,
        }
        bias = np.full(channels, shift, np.int32)
        tape.node("BatchNorm2dInt", [value, ones, bias], [out], attributes, domain="linger", hint="clip")
        value = out if isinstance(out, Value) else value
    if not four:
        tape.node("Reshape", [value, np.array(y.shape, np.int64)], [y], hint="clip")
