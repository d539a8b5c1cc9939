"""Padding of quantized tensors in every spelling and mode, as an operator of its own and inside convolutions.

Only venus has a node that pads right, with zeros. Elsewhere, and for everything else, slices of the tensor itself and an
iqCat of one scale are exact; a constant border is a slice times zero. A padding with zeros in front of a convolution
becomes the convolution's own where the chip takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.chip import OPERATORS, limits_of, pads_wrongly
from linger.nn.functional import common_attributes
from linger.nn.nodes.broadcast import write_channels
from linger.nn.nodes.file_tensor import FileTensor
from linger.nn.nodes.scalar_product import write_scalar_product
from linger.runtime import Format, NodeReader, Tape, Value, current_tape, handles, info, reads, tag

from .register import named_arguments, record_float_move


def pad_coded(x: ops.Coded, pads: tuple[int, int, int, int], mode: str, bits: int) -> ops.Coded:
    """Pad a quantized 4-D tensor by (top, left, bottom, right) with torch's ``reflect``, ``replicate`` or ``circular``."""
    top, left, bottom, right = pads
    value = F.pad(x.value, (left, right, top, bottom), mode=mode)
    return ops.Coded(value, ops.codes_of(value.detach(), x.scale, bits), x.scale)


# ---- files


def write_padding(
    tape: Tape,
    source: Tensor | Value,
    shape_of: Tensor,
    pads: tuple[int, ...],
    mode: str,
    scale: Tensor,
    name: str,
) -> Tensor | Value:
    """Write the padding of the last axes (begins, then ends) by a mode that repeats elements; returns the padded tensor."""
    n = len(pads) // 2
    shape = [*([1] if shape_of.dim() == n + 1 else []), *shape_of.shape]
    in_file = FileTensor(tape, source, shape, float(scale), f"{name}.pad")
    for k in range(n):
        in_file = _repeated(in_file, len(shape) - n + k, pads[k], pads[n + k], mode)
    return in_file.value


def _repeated(in_file: FileTensor, axis: int, before: int, after: int, mode: str) -> FileTensor:
    """One axis longer by slices of itself."""
    if not before and not after:
        return in_file
    size = in_file.shape[axis]
    if mode == "circular":
        first, last = [(size - before, size)], [(0, after)]
    elif mode == "replicate":
        first, last = [(0, 1)] * before, [(size - 1, size)] * after
    else:
        first = [(i, i + 1) for i in range(before, 0, -1)]
        last = [(size - 1 - i, size - i) for i in range(1, after + 1)]
    parts = [in_file.slice(axis, *p) for p in [*first, (0, size), *last] if p[1] > p[0]]
    return parts[0].cat(parts[1:], axis)


def _constant(in_file: FileTensor, axis: int, before: int, after: int, code: int) -> FileTensor:
    """One axis longer by elements of one code; negative numbers cut."""
    size = in_file.shape[axis]
    in_file = in_file.slice(axis, max(-before, 0), size - max(-after, 0))
    parts = [_border(in_file, axis, before, code), in_file, _border(in_file, axis, after, code)]
    kept = [part for part in parts if part is not None]
    return kept[0].cat(kept[1:], axis)


def _border(in_file: FileTensor, axis: int, size: int, code: int) -> FileTensor | None:
    """``size`` elements along ``axis``, all of one code: a part of the tensor times zero, plus the code."""
    if size <= 0:
        return None
    rows = [i % in_file.shape[axis] for i in range(size)]
    part, tape, name = in_file.gather(axis, rows), in_file.tape, in_file.name
    assert part.scale is not None
    out = tape.value(f"{name}.border")
    if code == 0:
        write_scalar_product(tape, part.value, part.scale, 0, 1.0, out, part.scale, name)
    else:
        weight, bias = np.array(0, np.int8), np.array(code, np.int32)
        write_channels(tape, part.value, part.shape, weight, bias, (part.scale, 1.0, part.scale), out, name)
    return FileTensor(tape, out, part.shape, part.scale, name)


def _filled_chain(in_file: FileTensor, pads: Sequence[tuple[int, int]], code: int) -> FileTensor:
    for axis, (before, after) in enumerate(pads):
        in_file = _constant(in_file, axis, before, after, code)
    return in_file


def write_zeros(in_file: FileTensor, pads: Sequence[tuple[int, int]]) -> FileTensor:
    """The tensor with zeros around it, ``pads`` (before, after) per axis: the node of the chip that has one, or slices."""
    spatial = len(in_file.shape) == 4 and all(p == (0, 0) for p in pads[:2]) and min(map(min, pads)) >= 0
    if not spatial or OPERATORS["iqPad"][in_file.tape.platform].kind != "native":
        return _filled_chain(in_file, pads, 0)
    shape = [s + sum(p) for s, p in zip(in_file.shape, pads, strict=True)]
    widths = np.array([p[0] for p in pads] + [p[1] for p in pads], np.int64)
    attributes = common_attributes(in_file.tape) | {
        "mode": "constant",
        "scale_x": in_file.scale,
        "scale_o": in_file.scale,
    }
    return in_file.node("iqPad", shape, attributes, widths, np.zeros(1, np.int8), chip=True)


class _Padded(NamedTuple):
    """What a tensor of the file was padded from: with zeros, by (begins, ends) of its axes behind the channels."""

    source: Tensor
    pads: list[int]


def absorb_padding(tape: Tape, x: Tensor, form: dict[str, Any]) -> Tensor:
    """The tensor that a convolution can take in the place of its padded input ``x``; its ``pads`` in ``form`` grow.

    Args:
        tape: The recording.
        x: Input of the layer.
        form: Attributes of its node.
    """
    padded = tape.noted(x)
    if not isinstance(padded, _Padded):
        return x
    kernel, pads = form["kernel_shape"], [*form["pads"]]
    more = padded.pads
    if len(more) < len(pads):  # a sequence in the 2-D node of height 1
        more = [0, more[0], 0, more[1]]
    total = [a + b for a, b in zip(pads, more, strict=True)]
    most = limits_of(tape.platform).max_pad
    wrong = pads_wrongly(tape.platform, x.shape[1], form["group"], kernel)
    if wrong or any(p > min(most, kernel[i % len(kernel)]) for i, p in enumerate(total)):
        return x
    form["pads"] = total
    return padded.source


def _write(tape: Tape, x: Tensor, y: Tensor, pads: Sequence[tuple[int, int]], mode: str, fill: float) -> None:
    """``pads``: (before, after) of the last axes, in order."""
    in_file = FileTensor.of(tape, x, info(x), "pad")
    first = x.dim() - len(pads)
    spatial = first >= 2 or all(p == (0, 0) for p in pads[: 2 - first])
    if mode != "constant":
        for k, (before, after) in enumerate(pads):
            in_file = _repeated(in_file, first + k, before, after, mode)
        in_file.done(y)
        return
    scale = in_file.scale
    assert scale is not None
    code = int(np.clip(np.floor(np.float32(fill) * np.float32(scale) + np.float32(0.5)), -128, 127))
    every = [(0, 0)] * first + list(pads)
    (write_zeros(in_file, every) if code == 0 else _filled_chain(in_file, every, code)).done(y)
    if code == 0 and x.dim() in (3, 4) and spatial and min(map(min, pads)) >= 0:
        tape.note(y, _Padded(x, [p[0] for p in every[2:]] + [p[1] for p in every[2:]]), x)


# ---- forward


def _filled(x: Tensor, pad: Sequence[int], fill: float, fmt: Format) -> tuple[Tensor, Tensor | None]:
    """Value and codes padded with a constant, which is rounded to the tensor's grid."""
    if fill == 0 or not fmt.exact:
        return F.pad(x, pad, value=fill), None if fmt.codes is None else F.pad(fmt.codes, pad)
    limit = 2 ** (fmt.bits - 1)
    number = torch.floor(torch.full_like(fmt.scale, fill) * fmt.scale + 0.5).clamp(-limit, limit - 1) / fmt.scale
    border = F.pad(torch.zeros(x.shape, dtype=torch.bool, device=x.device), pad, value=True)
    return torch.where(border, number.to(x.dtype), F.pad(x, pad)), None


@handles("padding", "F.pad _nn.pad torch.constant_pad_nd")  # dynamo looks into F.pad: it shows what that calls
def _pad(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("input", "pad", "value") if func is torch.constant_pad_nd else ("input", "pad", "mode", "value")
    named = named_arguments(names, args, kwargs)
    x, pad = named["input"], [int(p) for p in named["pad"]]
    fmt = info(x)
    fill, mode = named.get("value"), named.get("mode") or "constant"
    fill = 0.0 if fill is None else fill
    if not pad or len(pad) % 2 or isinstance(fill, Tensor) or math.isnan(fill):
        return NotImplemented
    widths = list(zip(pad[0::2], pad[1::2], strict=True))[::-1]
    if fmt is None:
        if mode == "constant" and fill != 0:
            return NotImplemented
        return record_float_move(func, args, kwargs, x, lambda t, a, b: _write(t, a, b, widths, mode, 0.0))
    codes = None
    if mode == "constant":
        y, codes = _filled(x, pad, float(fill), fmt)
    else:
        y = F.pad(x, pad, mode=mode)
    y = tag(y, fmt.like(codes))
    tape = current_tape()
    if tape is not None:
        _write(tape, x, y, widths, mode, float(fill))
    return y


@reads("iqPad")
def read_pad(node: NodeReader) -> None:
    """Zeros around height and width; the engines name their other modes wrongly, and venus alone pads right."""
    value = node.codes(0)
    x = value.codes
    if OPERATORS["iqPad"][node.platform].kind != "native":
        raise node.error(f"{node.platform} scrambles the result of iqPad")
    if value.bits != 8 or x.dim() != 4:
        raise node.error(f"needs an int8 input of 4 dimensions, got int{value.bits} {tuple(x.shape)}")
    if node.text("mode", "constant") != "constant":
        raise node.error(
            f"mode {node.text('mode')!r} is not what the engine computes under this name; write 'constant'"
        )
    listed = node.constant(1)
    if listed.dtype != torch.int64 or listed.dim() != 1 or listed.numel() not in (4, 6, 8):
        raise node.error(f"the widths must be 4, 6 or 8 int64 numbers, got {listed.dtype} {tuple(listed.shape)}")
    widths = [int(v) for v in listed]
    half = len(widths) // 2
    begins, ends = [0] * (4 - half) + widths[:half], [0] * (4 - half) + widths[half:]
    if any(begins[:2] + ends[:2]) or min(begins + ends) < 0:
        raise node.error(f"only height and width are padded, got {widths}")
    if node.has_input(2) and bool((node.constant(2) != 0).any()):
        raise node.error("the value must be 0")
    node.room(tuple(s + b + e for s, b, e in zip(x.shape, begins, ends, strict=True)))
    padded = F.pad(x, (begins[3], ends[3], begins[2], ends[2]))
    if node.has("scale_x"):
        node.match(0, node.scale("scale_x"))
    if node.has("scale_o") and value.exp2 is not None and node.scale("scale_o") != value.exp2:
        raise node.error("scale_o must be the scale of the input")
    node.put_like(0, padded, 0)


__all__ = ["absorb_padding", "pad_coded", "write_padding"]
