"""Pooling on quantized tensors in every spelling (read back in ``pool_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linger import ops
from linger.chip import check_pool
from linger.runtime import NAMES, Format, Tape, Value, coded, current_tape, handles, info, scale_value, tag


def _pair(value: Any, n: int) -> tuple[int, ...]:
    """A size as ``n`` integers; torch takes an int or a sequence of 1 or n."""
    items = [int(value)] * n if isinstance(value, int) else [int(v) for v in value]
    return tuple(items * n if len(items) == 1 else items)


def _bind(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a torch pooling function by name."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _same_size(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]) -> bool:
    """Whether ceil mode gives the size that floor mode gives."""
    n = len(kernel)
    spans = [x.shape[x.dim() - n + i] + 2 * pad[i] - kernel[i] for i in range(n)]
    return all(span % s == 0 for span, s in zip(spans, stride, strict=True))


def _write(
    tape: Tape, x: Tensor, y: Tensor, op_type: str, geometry: dict[str, Any], n: int, squeeze: list[int]
) -> None:
    """Unsqueeze where the operand is not 4-D, the pooling node, Squeeze."""
    flat, one_d = x.dim() == n + 1, n == 1
    source: Tensor | Value = x
    for axis in ([0] if flat else []) + ([2] if one_d else []):
        lifted = tape.value("pool.in")
        tape.node("Unsqueeze", [source], [lifted], {"axes": [axis]}, hint="pool")
        source = lifted
    drops = [[a] for a in ([2] if one_d else []) + ([0] if flat else [])]
    if squeeze:
        drops.append(squeeze)
    target: Tensor | Value = tape.value("pool.out") if drops else y
    size = [1, x.shape[-1]] if one_d else list(x.shape[-2:])
    kernel, stride, pads = (geometry[k] for k in ("kernel_shape", "strides", "pads"))
    tape.violations += map(str, check_pool(tape.where(), tape.platform, op_type, kernel, stride, pads, size))
    domain = "" if op_type == "MaxPool" else "linger"
    tape.node(op_type, [source], [target], geometry, domain=domain, hint="pool")
    for i, axes in enumerate(drops):
        following: Tensor | Value = y if i == len(drops) - 1 else tape.value("pool.out")
        tape.node("Squeeze", [target], [following], {"axes": axes}, hint="pool")
        target = following


def _geometry(kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]) -> dict[str, Any]:
    if len(kernel) == 1:
        kernel, stride, pad = (1, *kernel), (1, *stride), (0, *pad)
    return {"kernel_shape": [*kernel], "strides": [*stride], "pads": [*pad, *pad], "ceil_mode": 0}


def _average(
    x: Tensor, fmt: Format, kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], squeeze: list[int]
) -> Any:
    """Average pooling with the chip's reciprocal; ``squeeze`` lists axes of the result that are dropped (of size 1)."""
    n = len(kernel)
    geometry = _geometry(kernel, stride, pad)
    if fmt.exact:
        if fmt.bits != 8:
            return NotImplemented
        operand = coded(x, fmt)
        four = ops.Coded(_lift(operand.value, n), _lift(operand.codes, n), operand.scale)
        pads = geometry["pads"]
        out = ops.avg_pool(four, tuple(geometry["kernel_shape"]), tuple(geometry["strides"]), tuple(pads))
        shape = [*x.shape[: x.dim() - n], *out.value.shape[4 - n :]]
        shape = [s for i, s in enumerate(shape) if i not in squeeze]
        y = tag(out.value.reshape(shape), fmt.like(out.codes.reshape(shape)))
    else:
        y = torch.nn.functional.avg_pool2d(
            _lift(x, n), geometry["kernel_shape"], geometry["strides"], geometry["pads"][:2]
        )
        shape = [*x.shape[: x.dim() - n], *y.shape[4 - n :]]
        y = tag(y.reshape([s for i, s in enumerate(shape) if i not in squeeze]), fmt.like(None))
    tape = current_tape()
    if tape is not None:
        scale = scale_value(fmt)
        attributes = {**geometry, "platform": tape.platform, "quant_mode": "floor_add", "platform_quant": "luna_quant"}
        attributes |= {"data_bits": 8, "o_bits": 8, "scale_x": scale, "scale_o": scale}
        _write(tape, x, y, "AvgPool2dInt", attributes, n, squeeze)
    return y


def _lift(t: Tensor, n: int) -> Tensor:
    """(N, C, L), (C, L) or (C, H, W) as (N, C, H, W)."""
    if n == 1:
        t = t.unsqueeze(-2)
    return t.unsqueeze(0) if t.dim() == 3 else t


_AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


@handles("avg_pool", "F.avg_pool1d F.avg_pool2d torch.avg_pool1d")
def _avg_pool(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = _bind(_AVERAGE, args, kwargs)
    x = named["input"]
    fmt = info(x)
    if fmt is None:
        return NotImplemented
    n = 1 if "1d" in NAMES[func] else 2
    kernel = _pair(named["kernel_size"], n)
    stride = _pair(named.get("stride") or kernel, n)
    pad = _pair(named.get("padding", 0), n)
    count = 1
    for k in kernel:
        count *= k
    padded = any(pad) and not named.get("count_include_pad", True)
    if padded or named.get("divisor_override") not in (None, count):
        return NotImplemented
    if named.get("ceil_mode") and not _same_size(x, kernel, stride, pad):
        return NotImplemented
    return _average(x, fmt, kernel, stride, pad, [])


@handles("adaptive_avg_pool", "F.adaptive_avg_pool1d F.adaptive_avg_pool2d torch.adaptive_avg_pool1d")
def _adaptive(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = _bind(("input", "output_size"), args, kwargs)
    x, size = named["input"], named["output_size"]
    fmt = info(x)
    if fmt is None:
        return NotImplemented
    n = 1 if "1d" in NAMES[func] else 2
    spatial = x.shape[x.dim() - n :]
    sizes = [size] * n if isinstance(size, int) or size is None else list(size) * (n if len(size) == 1 else 1)
    out = [int(s) if o is None else int(o) for o, s in zip(sizes, spatial, strict=True)]
    if any(s % o for s, o in zip(spatial, out, strict=True)):
        return NotImplemented
    kernel = tuple(int(s) // o for s, o in zip(spatial, out, strict=True))
    return _average(x, fmt, kernel, kernel, (0,) * n, [])


@handles("mean", "torch.mean Tensor.mean")
def _mean(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The mean over all spatial axes is a global average pooling."""
    named = _bind(("input", "dim", "keepdim"), args, kwargs)
    x, dim = named.get("input"), named.get("dim")
    fmt = info(x)
    if fmt is None or dim is None or set(named) - {"input", "dim", "keepdim"} or not isinstance(x, Tensor):
        return NotImplemented
    axes = sorted(int(d) % x.dim() for d in ([dim] if isinstance(dim, int) else dim))
    if x.dim() not in (3, 4) or axes != list(range(2, x.dim())):
        return NotImplemented
    n = len(axes)
    kernel = tuple(int(s) for s in x.shape[2:])
    return _average(x, fmt, kernel, kernel, (0,) * n, [] if named.get("keepdim") else axes)


_MAX = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")


@handles("max_pool", "torch.max_pool1d torch.max_pool2d F.max_pool1d F.max_pool2d")
def _max_pool(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = _bind(_MAX, args, kwargs)
    x = named["input"]
    fmt = info(x)
    if fmt is None or named.pop("return_indices", False):
        return NotImplemented
    n = 1 if "1d" in NAMES[func] else 2
    kernel = _pair(named["kernel_size"], n)
    stride = _pair(named.get("stride") or kernel, n)
    pad = _pair(named.get("padding", 0), n)
    if set(_pair(named.get("dilation", 1), n)) != {1}:
        return NotImplemented
    if named.get("ceil_mode") and not _same_size(x, kernel, stride, pad):
        return NotImplemented
    pool = torch.max_pool1d if n == 1 else torch.max_pool2d
    y = tag(pool(x, kernel, stride, pad), fmt.like(None))
    tape = current_tape()
    if tape is not None:
        _write(tape, x, y, "MaxPool", _geometry(kernel, stride, pad), n, [])
    return y
