"""Broadcasts between quantized tensors: no chip has them, but a constant can be stored at full size, and iqCat copies exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.runtime import Tape, Value

from .functional import common

Array = np.ndarray[Any, np.dtype[Any]]


def common_shape(x: Tensor, y: Tensor) -> tuple[int, ...] | None:
    """Shape of an element-wise result, or None where the shapes do not broadcast."""
    try:
        return tuple(torch.broadcast_shapes(x.shape, y.shape))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None


def expanded(x: ops.Coded, shape: Sequence[int]) -> ops.Coded:
    """The operand at the shape of the result; the gradient is summed over what was repeated."""
    if tuple(x.codes.shape) == tuple(shape):
        return x
    return ops.Coded(x.value.expand(*shape), x.codes.expand(*shape), x.scale)


def alike(x: ops.Coded, y: ops.Coded) -> tuple[ops.Coded, ops.Coded]:
    """Both operands at the shape of their result."""
    shape = common_shape(x.codes, y.codes)
    assert shape is not None  # the call was refused otherwise
    return expanded(x, shape), expanded(y, shape)


def _aligned(shape: Sequence[int], rank: int) -> list[int]:
    return [1] * (rank - len(shape)) + [int(s) for s in shape]


def write_operand(tape: Tape, x: ops.Coded, shape: Sequence[int], name: str) -> Tensor | Value:
    """The operand of a node that takes equal shapes: itself, an initializer at full size, or copies joined by iqCat."""
    if tuple(x.codes.shape) == tuple(shape):
        return x.value
    known = tape.constant_of(x.value)
    if known is not None:
        full = np.ascontiguousarray(np.broadcast_to(known, tuple(shape)))
        return Value(tape.constant(full, f"{tape.name_of(x.value)}_full"))
    return write_expand(tape, x.value, x.codes.shape, shape, float(x.scale), name)


def write_expand(
    tape: Tape,
    source: Tensor | Value,
    before: Sequence[int],
    after: Sequence[int],
    scale: float,
    name: str,
    target: Tensor | None = None,
) -> Tensor | Value:
    """Repeat axes of size one: neighbouring ones together, by iqCat nodes of equal scales that double the copies.

    Args:
        tape: Where the nodes go.
        source, before: int8 tensor of the file and its shape.
        after: Shape of the result.
        scale: Of ``source`` and result.
        name: Hint for names.
        target: The tensor that the result is; None: it exists only in the file.
    """
    now, goal = _aligned(before, len(after)), [int(s) for s in after]
    axis, value = 0, source
    while axis < len(goal):
        if now[axis] == goal[axis]:
            axis += 1
            continue
        end = axis
        while end < len(goal) and now[end] == 1:
            end += 1
        n, behind = int(np.prod(goal[axis:end])), int(np.prod(now[end:]))
        rows = int(np.prod(now[:axis]))
        ahead = -1 if axis > 0 and now[0] == goal[0] else rows  # another batch may run the file
        value = _reshaped(tape, value, [ahead, 1] + ([behind] if end < len(goal) else []), name)
        value = _copies(tape, value, n, scale, name)
        now[axis:end] = goal[axis:end]
        axis = end
    if _aligned(before, len(after))[:1] == goal[:1] and len(goal) > 1 and 0 not in goal:
        goal[0] = -1
    return _reshaped(tape, value, goal, name, target)


def _reshaped(
    tape: Tape, source: Tensor | Value, shape: list[int], name: str, target: Tensor | None = None
) -> Tensor | Value:
    out: Tensor | Value = tape.value(f"{name}.shaped") if target is None else target
    tape.node("Reshape", [source, np.array(shape, np.int64)], [out], hint=name)
    return out


def _copies(tape: Tape, source: Tensor | Value, n: int, scale: float, name: str) -> Tensor | Value:
    """``n`` copies side by side on axis 1: powers of two by doubling, then those that n is the sum of."""
    powers: list[Tensor | Value] = [source]
    while 2 ** len(powers) <= n:
        powers.append(_joined(tape, [powers[-1]] * 2, scale, name))
    parts = [p for i, p in enumerate(powers) if n >> i & 1]
    return parts[0] if len(parts) == 1 else _joined(tape, parts, scale, name)


def _joined(tape: Tape, parts: list[Tensor | Value], scale: float, name: str) -> Value:
    out = tape.value(f"{name}.copies")
    attributes = common(tape) | {"dim": 1, "o_bits": 8, "scale_o": scale}
    for i in range(len(parts)):
        attributes |= {f"x_{i}_bits": 8, f"scale_x_{i}": scale}
    tape.node("iqCat", parts, [out], attributes, domain="linger", hint=name)
    return out


def per_channel(codes: Array, shape: Sequence[int]) -> Array | None:
    """The values per channel (axis 1 of ``shape``) of a constant that varies along no other axis, else None."""
    if len(shape) < 2:
        return None
    sizes = _aligned(codes.shape, len(shape))
    if any(s != 1 for i, s in enumerate(sizes) if i != 1):
        return None
    return np.broadcast_to(codes.reshape(-1), (int(shape[1]),)).copy()


def write_channels(
    tape: Tape,
    x: Tensor | Value,
    shape: Sequence[int],
    weight: Array,
    bias: Array,
    scales: tuple[float, float, float],
    target: Tensor | Value,
    name: str,
) -> None:
    """Record ``sat_8(RSH(x * w_c + b_c, q_x + q_w - q_o))`` as BatchNorm2dInt; other ranks are reshaped, the node takes four.

    Args:
        tape: Where the nodes go.
        x, shape: int8 operand of the file and its shape.
        weight, bias: int8 and int32 codes, one per channel (axis 1), or one for all.
        scales: Of x, weight and result.
        target: The result.
        name: Hint for names.
    """
    rank = len(shape)
    channels = int(shape[1]) if rank > 1 else 1
    weight, bias = (np.broadcast_to(v.reshape(-1), (channels,)) for v in (weight, bias))
    inner: Tensor | Value = target if rank == 4 else tape.value(f"{name}.four")
    if rank != 4:
        x = _reshaped(tape, x, [1 if rank < 2 else -1, channels, 1, int(np.prod(shape[2:])) if rank > 1 else -1], name)
    attributes = common(tape) | {"data_bits": 8, "parameter_bits": 8, "o_bits": 8}
    attributes |= dict(zip(("scale_x", "scale_w", "scale_o"), scales, strict=True))
    arrays = [np.ascontiguousarray(weight, np.int8), np.ascontiguousarray(bias, np.int32)]
    tape.node("BatchNorm2dInt", [x, *arrays], [inner], attributes, domain="linger", hint=name)
    if rank != 4:
        goal = [int(s) for s in shape]
        if rank > 1 and 0 not in goal:
            goal[0] = -1
        tape.node("Reshape", [inner, np.array(goal, np.int64)], [target], hint=name)


__all__ = ["alike", "common_shape", "expanded", "per_channel", "write_channels", "write_expand", "write_operand"]
