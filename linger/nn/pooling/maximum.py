"""Max pooling of quantized tensors in every spelling (read back in ``pool_nodes.py``).

A maximum may see an element twice, and padding never wins. So ceil mode is padding at the end, a kernel above the chip's is
several smaller ones in a row, and every other window (dilated, adaptive, a kernel below its stride) is a Gather of its
elements and a pooling whose stride is its kernel. All of them give the maxima that torch computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.chip import limits_of
from linger.nn.moves.register import named_arguments, record_float_move
from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import NAMES, Format, Tape, current_tape, handles, info, tag

from .average import adaptive_windows, from_four_axes, over_axes, pair, to_four_axes
from .windows import outputs


class _Axis(NamedTuple):
    """Windows of one axis.

    Attributes:
        windows: Elements of each, those in the padding left out.
        kernel, stride, padding: The plain pooling that gives these windows, or kernel 0 where there is none.
    """

    windows: list[list[int]]
    kernel: int = 0
    stride: int = 1
    padding: int = 0


def _plain(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> _Axis:
    count = outputs(size, kernel, stride, padding, ceil, dilation)
    starts = [i * stride - padding for i in range(count)]
    windows = [[e for e in range(s, s + kernel * dilation, dilation) if 0 <= e < size] for s in starts]
    regular = dilation == 1 and kernel >= stride
    return _Axis(windows, kernel if regular else 0, stride, padding)


def _listed(windows: list[tuple[int, int]], size: int) -> _Axis:
    """Windows from (start, end); a plain pooling where they have one length and one step."""
    length = windows[0][1] - windows[0][0]
    plain = all(w == (i * length, (i + 1) * length) for i, w in enumerate(windows))
    return _Axis([list(range(*w)) for w in windows], length if plain else 0, length)


def _write(in_file: FileTensor, rows: _Axis, cols: _Axis) -> FileTensor:
    """Both axes in one node where they are plain, else one after the other."""
    stages = [_stages(in_file, axis, part) for axis, part in ((2, rows), (3, cols))]
    if all(s is not None and len(s) == 1 for s in stages):
        return _node(in_file, *(s[0] for s in stages if s))
    for axis, part, steps in ((2, rows, stages[0]), (3, cols, stages[1])):
        for step in steps or ():
            in_file = _node(in_file, *((step, _ONCE) if axis == 2 else (_ONCE, step)))
        if steps is None:
            in_file = _gathered(in_file, axis, part)
    return in_file


_ONCE = (1, 1, 0, 0)
_Step = tuple[int, int, int, int]  # kernel, stride, padding before and behind


def _stages(in_file: FileTensor, axis: int, part: _Axis) -> list[_Step] | None:
    """The poolings in a row that one axis needs, or None: its elements must be gathered."""
    size, count, limits = in_file.shape[axis], len(part.windows), limits_of(in_file.tape.platform)
    if part.kernel == 0:
        return None
    most, border = limits.max_pool_kernel, limits.max_pool_pad or limits.max_pool_kernel
    before = part.padding
    behind = max((count - 1) * part.stride + part.kernel - size - before, 0)
    found: list[_Step] = []
    left = part.kernel
    while left > most:
        here = (min(before, border, most - 1), min(behind, border, most - 1))
        found.append((most, 1, *here))
        before, behind, left, size = before - here[0], behind - here[1], left - most + 1, size + sum(here) - most + 1
        if size < 1:
            return None
    if left < part.stride or max(before, behind) > min(border, left) or size + before + behind < left:
        return None
    if not found and behind < before and (size + 2 * before - left) // part.stride + 1 == count:
        behind = before  # as the user wrote it
    return [*found, (left, part.stride, before, behind)]


def _node(in_file: FileTensor, row: _Step, col: _Step) -> FileTensor:
    if row == col == _ONCE:
        return in_file
    n, c, h, w = in_file.shape
    size = [(s + p + q - k) // t + 1 for s, (k, t, p, q) in ((h, row), (w, col))]
    pads = [row[2], col[2], row[3], col[3]]
    attributes = {"kernel_shape": [row[0], col[0]], "strides": [row[1], col[1]], "pads": pads, "ceil_mode": 0}
    return in_file.node("MaxPool", (n, c, *size), attributes)


def _gathered(in_file: FileTensor, axis: int, part: _Axis) -> FileTensor:
    """The elements of every window behind one another, the first one again where it has fewer than the others."""
    most = limits_of(in_file.tape.platform).max_pool_kernel
    longest = max(len(w) for w in part.windows)
    kernels = []
    while longest > most:
        kernels.append(most)
        longest = -(-longest // most)
    kernels.append(longest)
    length = torch.Size(kernels).numel()
    in_file = in_file.gather(axis, [e for w in part.windows for e in [*w, *[w[0]] * (length - len(w))]])
    for kernel in kernels:
        step = (kernel, kernel, 0, 0)
        in_file = _node(in_file, *((step, _ONCE) if axis == 2 else (_ONCE, step)))
    return in_file


def _record(tape: Tape, x: Tensor, y: Tensor, axes: Sequence[_Axis]) -> None:
    """The nodes from ``x`` to its maxima ``y``."""
    fmt, n = info(x), len(axes)
    assert fmt is not None
    rows, cols = (_Axis([[0]], 1), axes[0]) if n == 1 else axes
    from_four_axes(_write(to_four_axes(tape, x, fmt, n, "max_pool"), rows, cols), y, n)


def _finish(x: Tensor, fmt: Format, y: Any, windows: Callable[[], Sequence[_Axis]], indices: bool) -> Any:
    """Tag the maxima and record them; where torch returns their places too, only a file that needs these is refused."""
    values = tag(y[0] if isinstance(y, tuple) else y, fmt.like(None))
    tape = current_tape()
    if tape is not None:
        _record(tape, x, values, windows())
        if indices:
            tape.poison(y[1], f"the places of a maximum (return_indices) have no form on the chips: {tape.where()}")
    return (values, y[1]) if indices else values


_MAX = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_WITH = "F.max_pool1d_with_indices F.max_pool2d_with_indices torch.max_pool1d_with_indices"


@handles("max_pool", f"torch.max_pool1d torch.max_pool2d F.max_pool1d F.max_pool2d {_WITH}")
def _max_pool(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = named_arguments(_MAX, args, kwargs)
    x = named["input"]
    fmt = info(x)
    n = 1 if "1d" in NAMES[func] else 2
    kernel = pair(named["kernel_size"], n)
    stride = pair(named.get("stride") or kernel, n)
    pad, dilation = pair(named.get("padding") or 0, n), pair(named.get("dilation") or 1, n)
    indices = bool(named.get("return_indices")) or "indices" in NAMES[func]
    ceil = bool(named.get("ceil_mode"))
    axes = [*zip(x.shape[x.dim() - n :], kernel, stride, pad, dilation, strict=True)]
    if fmt is None:
        return record_float_move(
            func, args, kwargs, x, lambda t, a, b: _record(t, a, b, [_plain(*g, ceil) for g in axes])
        )
    if indices:
        with_indices = F.max_pool1d_with_indices if n == 1 else F.max_pool2d_with_indices
        y: Any = with_indices(x, kernel, stride, pad, dilation, ceil)
    else:
        y = (torch.max_pool1d if n == 1 else torch.max_pool2d)(x, kernel, stride, pad, dilation, ceil)
    return _finish(x, fmt, y, lambda: [_plain(*axis, ceil) for axis in axes], indices)


_ADAPTIVE = """F.adaptive_max_pool1d F.adaptive_max_pool2d torch.adaptive_max_pool1d F.adaptive_max_pool1d_with_indices
    F.adaptive_max_pool2d_with_indices"""


@handles("adaptive_max_pool", _ADAPTIVE)
def _adaptive(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = named_arguments(("input", "output_size", "return_indices"), args, kwargs)
    x = named["input"]
    fmt = info(x)
    if fmt is None:
        return NotImplemented
    n = 1 if "1d" in NAMES[func] else 2
    indices = bool(named.get("return_indices")) or "indices" in NAMES[func] or func is torch.adaptive_max_pool1d
    axes = zip(adaptive_windows(x, named["output_size"], n), x.shape[x.dim() - n :], strict=True)
    return _finish(x, fmt, func(*args, **kwargs), lambda: [_listed(*axis) for axis in axes], indices)


def maximum_over(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """The maximum over axes (in order, without the batch) of a quantized tensor."""
    return over_axes(x, axes, keepdim, F.adaptive_max_pool2d)


__all__ = ["maximum_over"]
