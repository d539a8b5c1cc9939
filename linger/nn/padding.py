"""Padding modes other than zeros. No chip pads by reflection; slices and a concatenation of equal scales are exact."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.runtime import Tape, Value


def pad_coded(x: ops.Coded, pads: tuple[int, int, int, int], mode: str, bits: int) -> ops.Coded:
    """Pad a quantized 4-D tensor by (top, left, bottom, right) with torch's ``reflect``, ``replicate`` or ``circular``."""
    top, left, bottom, right = pads
    value = F.pad(x.value, (left, right, top, bottom), mode=mode)
    return ops.Coded(value, ops.codes_of(value.detach(), x.scale, bits), x.scale)


def _pieces(size: int, before: int, after: int, mode: str) -> list[tuple[int, int]]:
    """(start, end) of the slices that make up a padded axis, in order."""
    if mode == "circular":
        first, last = [(size - before, size)], [(0, after)]
    elif mode == "replicate":
        first, last = [(0, 1)] * before, [(size - 1, size)] * after
    else:
        first = [(i, i + 1) for i in range(before, 0, -1)]
        last = [(size - 1 - i, size - i) for i in range(1, after + 1)]
    return [p for p in [*first, (0, size), *last] if p[1] > p[0]]


def write_padding(
    tape: Tape,
    source: Tensor | Value,
    shape_of: Tensor,
    pads: tuple[int, ...],
    mode: str,
    scale: Tensor,
    name: str,
) -> Tensor | Value:
    """Write the padding of the last axes as Slice nodes and one iqCat per axis; returns the padded tensor."""
    n = len(pads) // 2
    value: Tensor | Value = source
    rank = shape_of.dim() + (1 if shape_of.dim() == n + 1 else 0)
    for k in range(n):
        before, after, axis = pads[k], pads[n + k], rank - n + k
        if not before and not after:
            continue
        size = int(shape_of.shape[shape_of.dim() - n + k])
        parts: list[Tensor | Value] = []
        for start, end in _pieces(size, before, after, mode):
            if (start, end) == (0, size):
                parts.append(value)
                continue
            part = tape.value(f"{name}.pad")
            bounds = [np.array([v], np.int64) for v in (start, end, axis)]
            tape.node("Slice", [value, *bounds], [part], hint=f"{name}.pad")
            parts.append(part)
        out = tape.value(f"{name}.padded")
        attributes: dict[str, object] = {f"scale_x_{i}": float(scale) for i in range(len(parts))}
        attributes |= {"dim": axis, "scale_o": float(scale), "platform": tape.platform}
        attributes |= {"quant_mode": "floor_add", "platform_quant": "luna_quant", "data_bits": 8, "o_bits": 8}
        tape.node("iqCat", parts, [out], attributes, domain="linger", hint=f"{name}.pad")
        value = out
    return value
