"""Average pooling of quantized tensors in every spelling (read back in ``pool_nodes.py``).

The chips divide by the size of the window, padding included, and round sizes down. Windows that differ from that (at the
border in ceil mode or without counting the padding, adaptive sizes that do not divide) are computed in pieces of one
window size each: Slice or Gather, AvgPool2dInt, iqCat of one scale. Training computes the same pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from linger import ops
from linger.chip import coarse_average
from linger.nn.arithmetic.sums import reduced
from linger.nn.base import accept
from linger.nn.functional import FunctionalLayer, common_attributes, engine_here, own_average_here, platform_here
from linger.nn.moves.register import named_arguments
from linger.nn.nodes.file_tensor import FileTensor
from linger.quantizers import in_float
from linger.runtime import (
    HANDLERS,
    LEFT_FLOAT,
    NAMES,
    Dim,
    Format,
    Tape,
    Value,
    coded,
    current_tape,
    factory,
    handles,
    info,
    operator_at_site,
    state,
    tag,
)

from .product import write_products
from .windows import Run, adaptive, average_runs, outputs, runs, starts


def pair(value: Any, n: int) -> tuple[int, ...]:
    """A size as ``n`` integers; torch takes an int or a sequence of 1 or n."""
    items = [int(value)] * n if isinstance(value, int) else [int(v) for v in value]
    return tuple(items * n if len(items) == 1 else items)


def with_four_axes(t: Tensor, n: int) -> Tensor:
    """(N, C, L), (C, L) or (C, H, W) as (N, C, H, W)."""
    if n == 1:
        t = t.unsqueeze(-2)
    return t.unsqueeze(0) if t.dim() == 3 else t


def to_four_axes(tape: Tape, x: Tensor, fmt: Format, n: int, name: str) -> FileTensor:
    """:func:`with_four_axes` in the file."""
    in_file = FileTensor.of(tape, x, fmt, name)
    if x.dim() == n + 1:
        in_file = in_file.unsqueeze(0)
    return in_file.unsqueeze(2) if n == 1 else in_file


def from_four_axes(in_file: FileTensor, y: Tensor, n: int) -> None:
    """The 4-D result in the file as the forward's result ``y``."""
    if n == 1:
        in_file = in_file.squeeze(2)
    if y.dim() == n + 1:
        in_file = in_file.squeeze(0)
    in_file.done(y)


# ---- pieces


def _average(x: ops.Coded, rows: Sequence[Run], cols: Sequence[Run]) -> ops.Coded:
    """The average of every window: one kernel call per pair of runs, side by side."""
    bands = []
    for row in rows:
        band, top, bottom = _take_run(x, 2, row)
        parts = []
        for col in cols:
            part, left, right = _take_run(band, 3, col)
            kernel = (row.length, col.length)
            pads = [top, left, bottom, right]
            parts.append(ops.avg_pool(part, kernel, [row.step, col.step], pads, coarse=_coarse(kernel)))
        bands.append(_join(parts, 3))
    return _join(bands, 2)


def _coarse(kernel: tuple[int, int]) -> bool:
    """Whether the engine of the running model averages such windows by a product only."""
    return coarse_average(engine_here(), platform_here(), kernel)


def _take_run(x: ops.Coded, axis: int, run: Run) -> tuple[ops.Coded, int, int]:
    """The part of an axis that a run needs, and its padding."""
    if run.rows is not None:
        index = torch.tensor(run.rows, device=x.codes.device)
        return ops.Coded(x.value.index_select(axis, index), x.codes.index_select(axis, index), x.scale), 0, 0
    low, high, before, after = run.part(x.codes.shape[axis])
    if (low, high) == (0, x.codes.shape[axis]):
        return x, before, after
    part = (axis, low, high - low)
    return ops.Coded(x.value.narrow(*part), x.codes.narrow(*part), x.scale), before, after


def _join(parts: Sequence[ops.Coded], axis: int) -> ops.Coded:
    if len(parts) == 1:
        return parts[0]
    value, codes = (torch.cat([part[i] for part in parts], axis) for i in (0, 1))
    return ops.Coded(value, codes, parts[0].scale)


def _write(in_file: FileTensor, rows: Sequence[Run], cols: Sequence[Run]) -> FileTensor:
    """The nodes of :func:`_average`."""
    bands = []
    for row in rows:
        band, top, bottom = _cut(in_file, 2, row)
        parts = []
        for col in cols:
            part, left, right = _cut(band, 3, col)
            parts.append(_node(part, (row.length, col.length), (row.step, col.step), (top, left, bottom, right)))
        bands.append(parts[0].cat(parts[1:], 3))
    return bands[0].cat(bands[1:], 2)


def _cut(in_file: FileTensor, axis: int, run: Run) -> tuple[FileTensor, int, int]:
    if run.rows is not None:
        return in_file.gather(axis, run.rows), 0, 0
    low, high, before, after = run.part(in_file.shape[axis])
    return in_file.slice(axis, low, high), before, after


def _node(
    in_file: FileTensor, kernel: tuple[int, int], stride: tuple[int, int], pads: tuple[int, int, int, int]
) -> FileTensor:
    """One AvgPool2dInt, or the products that the forward has computed instead of it."""
    if kernel == (1, 1) and not any(pads) and stride == (1, 1):
        return in_file
    if _coarse(kernel):
        return _marked(write_products(in_file, kernel, stride, pads), kernel)
    n, channels, h, w = in_file.shape
    size = [(s + pads[i] + pads[i + 2] - kernel[i]) // stride[i] + 1 for i, s in enumerate((h, w))]
    attributes = common_attributes(in_file.tape) | {
        "data_bits": 8,
        "o_bits": 8,
        "scale_x": in_file.scale,
        "scale_o": in_file.scale,
    }
    attributes |= {"kernel_shape": [*kernel], "strides": [*stride], "pads": [*pads], "ceil_mode": 0}
    return _marked(in_file.node("AvgPool2dInt", (n, channels, *size), attributes, chip=True), kernel)


def _marked(in_file: FileTensor, kernel: tuple[int, int]) -> FileTensor:
    """Remember the window that a result averages: engines round some of them otherwise."""
    assert isinstance(in_file.value, Value)
    in_file.tape.windows[in_file.value.name] = kernel
    return in_file


def _pooled(
    x: Tensor,
    fmt: Format,
    real: Callable[[], Tensor],
    plan: Sequence[Sequence[Run]],
) -> Any:
    """The average of the windows of the last axes, as runs; ``real`` is the float operator."""
    if not fmt.exact:
        return tag(real(), fmt.like(None))
    if fmt.bits != 8:
        return NotImplemented
    n = len(plan)
    rows, cols = ([Run(0, 1, 1, 1)], plan[0]) if n == 1 else plan
    operand = coded(x, fmt)
    out = _average(
        ops.Coded(with_four_axes(operand.value, n), with_four_axes(operand.codes, n), operand.scale), rows, cols
    )
    shape = [*x.shape[: x.dim() - n], *out.value.shape[4 - n :]]
    y = tag(out.value.reshape(shape), fmt.like(out.codes.reshape(shape)))
    tape = current_tape()
    if tape is not None:
        from_four_axes(_write(to_four_axes(tape, x, fmt, n, "avg_pool"), rows, cols), y, n)
    return y


# ---- layers

_LAYERS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


class AvgPoolInt(FunctionalLayer):
    """Input quantizer of an average pooling layer whose operand is float; the average keeps its scale.

    Shape:
        x any -> the same shape, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "AvgPool2dInt".
    """

    operator = "avg_pool"
    row = "AvgPool2dInt"

    def __init__(self, n_inputs: int, quant: Any) -> None:
        super().__init__(n_inputs, quant)
        del self.output_quantizer

    def forward(self, x: Tensor) -> Tensor:
        """The operand in the chip's integers; gradient 1 where it does not saturate."""
        quantizer = self.operand_quantizer(0)
        with torch._C.DisableTorchFunction():
            if in_float():
                quantizer.observe_calibration(x)
                return tag(x.view_as(x), Format(quantizer.scale.detach(), quantizer.bits, exact=False))
            return accept(x, quantizer, widest=8).value


@factory("avg_pool")
def _make(n_inputs: int, quant: Any) -> AvgPoolInt:
    return AvgPoolInt(n_inputs, quant)


def _of_layer(handler: Callable[..., Any], func: Callable[..., Any], named: dict[str, Any]) -> Any:
    """A pooling of a float tensor: layers quantize it as a convolution does, functions leave it as it is."""
    owner, x = state.frames[-1].owner if state.frames else None, named["input"]
    switched_off = owner is None or LEFT_FLOAT in owner.__dict__
    if switched_off or not isinstance(owner, _LAYERS) or not (isinstance(x, Tensor) and x.is_floating_point()):
        return NotImplemented
    return handler(func, (operator_at_site("avg_pool", 1)(x),), {k: v for k, v in named.items() if k != "input"})


# ---- spellings

_AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


@handles("avg_pool", "F.avg_pool1d F.avg_pool2d torch.avg_pool1d")
def _avg_pool(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = named_arguments(_AVERAGE, args, kwargs)
    x = named["input"]
    fmt = info(x)
    if fmt is None:
        return _of_layer(_avg_pool, func, named)
    n = 1 if "1d" in NAMES[func] else 2
    kernel = pair(named["kernel_size"], n)
    stride = pair(named.get("stride") or kernel, n)
    pad = pair(named.get("padding") or 0, n)
    divisor = named.get("divisor_override")
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        return NotImplemented  # torch refuses it
    sizes = x.shape[x.dim() - n :]
    ceil, include = bool(named.get("ceil_mode")), bool(named.get("count_include_pad", True))
    axes = list(zip(sizes, kernel, stride, pad, strict=True))
    if tuple(sizes) == kernel and not any(pad) and divisor in (None, math.prod(kernel)) and _own_scale(x, fmt):
        return reduced("mean", x, _last(x, n), True)
    if divisor is None:
        return _pooled(x, fmt, lambda: func(*args, **kwargs), [average_runs(*axis, ceil, include) for axis in axes])
    plan = []
    for size, k, s, p in axes:  # whole windows, wherever they end: the divisor is the same for all
        first = starts(s, p, outputs(size, k, s, p, ceil))
        plan.append(runs([(start, start + k) for start in first], size, s))
    pixels = math.prod(kernel)
    y = _pooled(x, fmt, lambda: func(**named | {"divisor_override": pixels}), plan)
    if y is NotImplemented or divisor == pixels:
        return y
    return HANDLERS[torch.mul](torch.mul, (y, pixels / int(divisor)), {})


@handles("adaptive_avg_pool", "F.adaptive_avg_pool1d F.adaptive_avg_pool2d torch.adaptive_avg_pool1d")
def _adaptive(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = named_arguments(("input", "output_size"), args, kwargs)
    x = named["input"]
    fmt = info(x)
    if fmt is None:
        return _of_layer(_adaptive, func, named)
    n = 1 if "1d" in NAMES[func] else 2
    windows = adaptive_windows(x, named["output_size"], n)
    if all(len(w) == 1 for w in windows) and _own_scale(x, fmt):
        return reduced("mean", x, _last(x, n), True)
    plan = [runs(w, s, w[0][1]) for w, s in zip(windows, x.shape[x.dim() - n :], strict=True)]
    return _pooled(x, fmt, lambda: func(*args, **kwargs), plan)


def _own_scale(x: Tensor, fmt: Format) -> bool:
    """Whether a mean over whole axes of ``x`` is a linear layer with a scale of its own."""
    return fmt.bits == 8 and x.numel() > 0 and own_average_here()


def _last(x: Tensor, n: int) -> list[int]:
    """The last ``n`` axes."""
    return list(range(x.dim() - n, x.dim()))


def adaptive_windows(x: Tensor, size: Any, n: int) -> list[list[tuple[int, int]]]:
    """Windows of the last ``n`` axes of an adaptive pooling; None as a size keeps that of the input."""
    sizes = [size] * n if isinstance(size, int) or size is None else list(size) * (n if len(size) == 1 else 1)
    spatial = x.shape[x.dim() - n :]
    return [adaptive(int(s), int(s) if o is None else int(o)) for o, s in zip(sizes, spatial, strict=True)]


@handles("mean", "torch.mean Tensor.mean")
def _mean(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The mean over axes without the batch: a window over all of their elements."""
    named = named_arguments(("input", "dim", "keepdim"), args, kwargs)
    x, dim = named.get("input"), named.get("dim")
    fmt = info(x)
    extra = {k for k, v in named.items() if v is not None} - {"input", "dim", "keepdim"}
    if fmt is None or dim is None or extra or not isinstance(x, Tensor):
        return NotImplemented
    axes = sorted(int(d) % x.dim() for d in ([dim] if isinstance(dim, int) else dim))
    if not axes or axes[0] == 0 or fmt.bits != 8:
        return NotImplemented
    if _own_scale(x, fmt):
        return reduced("mean", x, axes, bool(named.get("keepdim")))
    return over_axes(x, axes, bool(named.get("keepdim")), torch.nn.functional.adaptive_avg_pool2d)


def over_axes(x: Tensor, axes: list[int], keepdim: bool, pool: Callable[..., Any]) -> Tensor:
    """A reduction over ``axes`` by an adaptive pooling of two dimensions.

    Args:
        x: Quantized tensor.
        axes: Those that are reduced, in order, without the batch.
        keepdim: Whether they stay, with one element.
        pool: ``F.adaptive_avg_pool2d`` or ``F.adaptive_max_pool2d``.
    """
    rank, shape = x.dim(), list(x.shape)
    kept = [a for a in range(rank) if a not in axes]
    if current_tape() is not None:
        shape[0] = Dim(shape[0], 0)  # files follow the batch
    final = [1 if a in axes else s for a, s in enumerate(shape)] if keepdim else [shape[a] for a in kept]
    if rank == 4 and axes == [2, 3]:
        y = call_handler(pool, x, 1)
    else:
        if axes[-1] - axes[0] >= len(axes):  # apart: bring them to the end
            x = call_handler(torch.permute, x, [*kept, *axes])
            axes = list(range(len(kept), rank))
        lead, block, tail = (math.prod(x.shape[a:b]) for a, b in _three(axes, rank))
        four = call_handler(torch.reshape, x, [shape[0], lead, block, tail])
        y = call_handler(pool, four, (1, tail))
    return y if list(y.shape) == final else call_handler(torch.reshape, y, final)


def _three(axes: list[int], rank: int) -> list[tuple[int, int]]:
    """Axes in front of the reduced ones, these, and those behind them."""
    return [(1, axes[0]), (axes[0], axes[-1] + 1), (axes[-1] + 1, rank)]


def call_handler(func: Callable[..., Any], x: Tensor, *args: Any) -> Tensor:
    """A torch function on a quantized tensor by its handler, which records itself."""
    result: Tensor = HANDLERS[func](func, (x, *args), {})
    return result


__all__ = [
    "AvgPoolInt",
    "adaptive_windows",
    "call_handler",
    "from_four_axes",
    "over_axes",
    "pair",
    "to_four_axes",
    "with_four_axes",
]
