"""Broadcasts between quantized tensors: no chip has them, but constants can be stored at full size, and Gather copies exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.nn.functional import common_attributes
from linger.runtime import Tape, Value

from .file_tensor import FileTensor

Array = np.ndarray[Any, np.dtype[Any]]


def common_shape(x: Tensor, y: Tensor) -> tuple[int, ...] | None:
    """Shape of an element-wise result, or None where the shapes do not broadcast."""
    if x.shape == y.shape:  # torch.broadcast_shapes takes longer than a small addition
        return tuple(x.shape)
    try:
        return tuple(torch.broadcast_shapes(x.shape, y.shape))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None


def broadcast_to(x: ops.Coded, shape: Sequence[int]) -> ops.Coded:
    """The operand at the shape of the result; the gradient is summed over what was repeated."""
    if tuple(x.codes.shape) == tuple(shape):
        return x
    return ops.Coded(x.value.expand(*shape), x.codes.expand(*shape), x.scale)


def broadcast_both(x: ops.Coded, y: ops.Coded) -> tuple[ops.Coded, ops.Coded]:
    """Both operands at the shape of their result."""
    shape = common_shape(x.codes, y.codes)
    assert shape is not None  # the call was refused otherwise
    return broadcast_to(x, shape), broadcast_to(y, shape)


def _aligned(shape: Sequence[int], rank: int) -> list[int]:
    return [1] * (rank - len(shape)) + [int(s) for s in shape]


def write_operand(tape: Tape, x: ops.Coded, shape: Sequence[int], name: str) -> Tensor | Value:
    """The operand of a node that takes equal shapes: itself, an initializer at full size, or copies by Gather."""
    if tuple(x.codes.shape) == tuple(shape):
        return x.value
    known = tape.constant_of(x.value)
    if known is not None:
        full = np.ascontiguousarray(np.broadcast_to(known, tuple(shape)))
        return Value(tape.constant(full, f"{tape.name_of(x.value)}_full"))
    lead = len(shape) - x.codes.dim()
    in_file = FileTensor(tape, x.value, x.codes.shape, float(x.scale), name).unsqueeze(*range(lead))
    for axis, size in enumerate(shape):
        if in_file.shape[axis] != size:
            in_file = in_file.gather(axis, [0] * int(size))
    return in_file.value


def per_channel(codes: Array, shape: Sequence[int]) -> Array | None:
    """The values per channel (axis 1 of ``shape``) of a constant that varies along no other axis, else None."""
    if len(shape) < 2:
        return None
    sizes = _aligned(codes.shape, len(shape))
    if any(s != 1 for i, s in enumerate(sizes) if i != 1):
        return None
    values: Array = np.repeat(codes.reshape(-1), int(shape[1]) // max(codes.size, 1))
    return values


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
    rank, in_file = len(shape), FileTensor(tape, x, shape, scales[0], name)
    channels = int(shape[1]) if rank > 1 else 1
    weight, bias = (np.repeat(v.reshape(-1), channels // max(v.size, 1)) for v in (weight, bias))
    inner: Tensor | Value = target if rank == 4 else tape.value(f"{name}.four")
    if rank != 4:
        lead = shape[0] if rank > 1 else 1
        x = in_file.reshape(lead, channels, 1, math.prod(shape) // max(lead * channels, 1), batch=rank > 1).value
    attributes = common_attributes(tape) | {"data_bits": 8, "parameter_bits": 8, "o_bits": 8}
    attributes |= dict(zip(("scale_x", "scale_w", "scale_o"), scales, strict=True))
    arrays: list[Array] = [np.ascontiguousarray(weight, np.int8), np.ascontiguousarray(bias, np.int32)]
    tape.node("BatchNorm2dInt", [x, *arrays], [inner], attributes, domain="linger", hint=name)
    if rank != 4:
        goal = [0, *shape[1:]] if rank > 1 else shape
        tape.node("Reshape", [inner, np.array(goal, np.int64)], [target], hint=name)


__all__ = ["broadcast_both", "broadcast_to", "common_shape", "per_channel", "write_channels", "write_operand"]
