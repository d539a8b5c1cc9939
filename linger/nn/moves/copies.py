"""Operators that repeat, reorder or leave out elements along axes: constant Gather nodes in files, exact on every chip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.chip import OPERATORS
from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import HANDLERS, NAMES, Tape, handles, info

from .pieces import take_rows
from .register import MoveCall, named_arguments, register_move
from .shape import write_shuffle


def write_copies(tape: Tape, call: MoveCall) -> None:
    """One Gather per axis that changes.

    The operator itself, run on the numbers of the elements of one axis, says where each result comes from.
    """
    x, y = call.x, call.result
    lead = y.dim() - x.dim()
    in_file = FileTensor.of(tape, x, info(x), NAMES.get(call.func, "copy"), 32).unsqueeze(*range(lead))
    for axis, size in enumerate(x.shape):
        shape = [1] * x.dim()
        shape[axis] = size
        numbers = torch.arange(size, dtype=torch.float32).view(shape).expand(x.shape)
        source = call.func(numbers, *call.args, **call.kwargs)
        at = [0] * lead + [slice(None) if a == axis else 0 for a in range(x.dim())]
        in_file = in_file.gather(lead + axis, source[tuple(at)].tolist())
    for axis in range(lead):
        in_file = in_file.gather(axis, [0] * y.shape[axis])
    in_file.done(y)


register_move("flip", "torch.flip Tensor.flip torch.fliplr Tensor.fliplr torch.flipud Tensor.flipud", write_copies)
register_move(
    "expand",
    "Tensor.expand Tensor.expand_as torch.broadcast_to Tensor.broadcast_to Tensor.repeat torch.tile Tensor.tile",
    write_copies,
)


def _names_dims(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a roll names its axes; over all elements at once it has no form along axes."""
    dims = args[1] if len(args) > 1 else kwargs.get("dims")
    return dims is not None and dims != ()


register_move("roll", "torch.roll Tensor.roll", write_copies, takes=_names_dims)


def _repeats_rows(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return isinstance(args[0] if args else kwargs.get("repeats"), int) and dim is not None


register_move(
    "repeat_interleave",
    "torch.repeat_interleave Tensor.repeat_interleave",
    write_copies,
    takes=_repeats_rows,
)


def _write_index_select(tape: Tape, call: MoveCall) -> None:
    named = call.bound("dim", "index")
    in_file = FileTensor.of(tape, call.x, info(call.x), "index_select", 32)
    take_rows(in_file, int(named["dim"]) % call.x.dim(), named["index"]).done(call.result)


register_move("index_select", "torch.index_select Tensor.index_select", _write_index_select)


def _is_nearest(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "nearest")
    return mode in ("nearest", "nearest-exact") and not kwargs.get("antialias", False)


register_move("interpolate", "F.interpolate F.upsample", write_copies, takes=_is_nearest, codes=False)
register_move("upsample_nearest", "F.upsample_nearest", write_copies, codes=False)


@handles("unfold", "Tensor.unfold")
def _unfold(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Windows along one axis: their elements, a new axis, moved to the end."""
    x = args[0]
    if info(x) is None:
        return NotImplemented
    named = {**dict(zip(("dimension", "size", "step"), args[1:], strict=False)), **kwargs}
    dim, size, step = (int(named[key]) for key in ("dimension", "size", "step"))
    dim %= x.dim()
    count = (x.shape[dim] - size) // step + 1
    index = torch.arange(count).mul(step).unsqueeze(1) + torch.arange(size)
    rows = _handled(torch.index_select, x, dim, index.reshape(-1).to(x.device))
    split = [*x.shape[:dim], count, size, *x.shape[dim + 1 :]]
    return _handled(torch.movedim, _handled(torch.reshape, rows, split), dim + 1, -1)


def _two(value: Any) -> tuple[int, int]:
    a, b = (value, value) if isinstance(value, int) else value
    return int(a), int(b)


@handles("im2col", "F.unfold")
def _im2col(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Patches as columns: the elements of the windows of both axes, then a change of axes."""
    named = named_arguments(("input", "kernel_size", "dilation", "padding", "stride"), args, kwargs)
    x = named["input"]
    if info(x) is None or x.dim() != 4:
        return NotImplemented
    kernel, dilation = _two(named["kernel_size"]), _two(named.get("dilation", 1))
    pad, stride = _two(named.get("padding", 0)), _two(named.get("stride", 1))
    if any(pad):
        x = _handled(F.pad, x, (pad[1], pad[1], pad[0], pad[0]))
    n, c = x.shape[:2]
    counts = []
    for axis, k, d, s in zip((2, 3), kernel, dilation, stride, strict=True):
        counts.append((x.shape[axis] - d * (k - 1) - 1) // s + 1)
        index = torch.arange(k).mul(d).unsqueeze(1) + torch.arange(counts[-1]).mul(s)
        x = _handled(torch.index_select, x, axis, index.reshape(-1).to(x.device))
    six = _handled(torch.reshape, x, (n, c, kernel[0], counts[0], kernel[1], counts[1]))
    turned = _handled(torch.permute, six, (0, 1, 2, 4, 3, 5))
    return _handled(torch.reshape, turned, (n, c * kernel[0] * kernel[1], counts[0] * counts[1]))


def _handled(func: Callable[..., Any], *args: Any) -> Any:
    return HANDLERS[func](func, args, {})


def _write_rotation(tape: Tape, call: MoveCall) -> None:
    """A quarter turn is a change of axes and a reversal."""
    named = call.bound("k", "dims")
    turns, dims = int(named.get("k", 1)) % 4, [int(d) % call.x.dim() for d in named.get("dims", (0, 1))]
    in_file = FileTensor.of(tape, call.x, info(call.x), "rot90", 32)
    if turns % 2:
        perm = list(range(call.x.dim()))
        perm[dims[0]], perm[dims[1]] = dims[1], dims[0]
        in_file = in_file.permute(*perm)
    for axis in {0: [], 1: dims[:1], 2: dims, 3: dims[1:]}[turns]:
        in_file = in_file.gather(axis, range(in_file.shape[axis] - 1, -1, -1))
    in_file.done(call.result)


register_move("rot90", "torch.rot90 Tensor.rot90", _write_rotation)


# ---- channels and pixels


def _write_shuffle(tape: Tape, call: MoveCall) -> None:
    """The channels of every group in turn: ShuffleChannel where the chip has it, else a change of axes."""
    groups, x = int(call.bound("groups")["groups"]), call.x
    n, channels = int(x.shape[0]), int(x.shape[1])
    if OPERATORS["ShuffleChannel"][tape.platform].kind == "native" and x.dim() == 4:
        write_shuffle(tape, x, call.result, groups)
        return
    in_file = FileTensor.of(tape, x, info(x), "shuffle")
    grouped = in_file.reshape(n, groups, channels // groups, *x.shape[2:])
    perm = (0, 2, 1, *range(3, x.dim() + 1))
    grouped.permute(*perm).reshape(*(int(s) for s in x.shape)).done(call.result)


register_move("channel_shuffle", "F.channel_shuffle torch.channel_shuffle", _write_shuffle, codes=False)


def _has_batch(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return x.dim() == 4


def _write_pixel_shuffle(tape: Tape, call: MoveCall) -> None:
    r = int(call.bound("upscale_factor")["upscale_factor"])
    n, c, h, w = (int(s) for s in call.x.shape)
    in_file = FileTensor.of(tape, call.x, info(call.x), "pixel_shuffle")
    in_file = in_file.reshape(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3)
    in_file.reshape(n, c // r**2, h * r, w * r).done(call.result)


def _write_pixel_unshuffle(tape: Tape, call: MoveCall) -> None:
    r = int(call.bound("downscale_factor")["downscale_factor"])
    n, c, h, w = (int(s) for s in call.x.shape)
    in_file = FileTensor.of(tape, call.x, info(call.x), "pixel_unshuffle")
    in_file = in_file.reshape(n, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4)
    in_file.reshape(n, c * r**2, h // r, w // r).done(call.result)


_PIXELS = "F.pixel_shuffle torch.pixel_shuffle"
register_move("pixel_shuffle", _PIXELS, _write_pixel_shuffle, takes=_has_batch, codes=False)
register_move(
    "pixel_unshuffle",
    "F.pixel_unshuffle torch.pixel_unshuffle",
    _write_pixel_unshuffle,
    takes=_has_batch,
    codes=False,
)

__all__ = ["write_copies"]
