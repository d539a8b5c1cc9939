"""Average pooling with the accelerator's divider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linger.ops import checks
from linger.ops.spec import Coded

_avg_pool = checks.native("avg_pool")
_avg_pool_codes = checks.native("avg_pool_codes")
_max_pool_codes = checks.native("max_pool_codes")
_float_backward = torch.ops.aten.avg_pool2d_backward.default


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codes: Tensor,
        scale: Tensor,
        kernel: list[int],
        stride: list[int],
        padding: list[int],
        coarse: bool,
    ) -> tuple[Tensor, Tensor]:
        value, out = _avg_pool(codes, scale, kernel, stride, padding, coarse)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(out)
        ctx.window = (kernel, stride, padding)
        ctx.shape, ctx.interleaved = codes.shape, not value.is_contiguous()
        return value, out

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        none = (None,) * 6
        if grad is None:
            return None, *none
        kernel, stride, (top, left, bottom, right) = ctx.window
        n, c, h, w = ctx.shape
        memory = torch.channels_last if ctx.interleaved else torch.contiguous_format
        padded = torch.empty(  # torch wants a tensor of the input's shape; its values are not read
            (n, c, h + top + bottom, w + left + right), dtype=grad.dtype, device=grad.device, memory_format=memory
        )
        wide = _float_backward(grad, padded, kernel, stride, [0, 0], False, True, None)
        return wide[:, :, top : top + h, left : left + w], *none


def _check_window(op: str, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> None:
    if x.dim() != 4:
        raise ValueError(f"{op}: x must have 4 dimensions, got {x.dim()}")
    for name, values, length in (("kernel", kernel, 2), ("stride", stride, 2), ("padding", padding, 4)):
        if len(values) != length:
            raise ValueError(f"{op}: {name} must have {length} values, got {len(values)}")
    if min(*kernel, *stride) < 1:
        raise ValueError(f"{op}: kernel and stride must be positive, got {list(kernel)} and {list(stride)}")
    for i, pad in enumerate(padding):
        if not 0 <= pad <= kernel[i % 2]:
            raise ValueError(f"{op}: padding must be in [0, kernel], got {list(padding)} for kernel {list(kernel)}")
    for axis in (0, 1):
        room = x.shape[2 + axis] + padding[axis] + padding[axis + 2]
        if room < kernel[axis]:
            raise ValueError(f"{op}: kernel {kernel[axis]} is larger than the padded input, {room}")


def avg_pool(
    x: Coded, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], *, coarse: bool = False
) -> Coded:
    """The chip's average pooling: window sum times the divider's reciprocal; padding counts as 0 and is counted.

    Args:
        x: ``(N, C, H, W)``; codes int8 or int32, contiguous or channels_last (kept).
        kernel, stride: ``[height, width]``.
        padding: ``[top, left, bottom, right]``, each at most the kernel.
        coarse: The reciprocal has 7 bits, as the weight of a linear layer that adds up the window.

    Returns:
        value and codes ``(N, C, floor((H + pads - kernel) / stride) + 1, ...)``, the scale of ``x``. The gradient is that of
        the float average pool.

    Raises:
        TypeError: ``x`` is not Coded.
        ValueError: A window that does not fit.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "AvgPool2dInt".
    """
    checks.check_coded("avg_pool", "x", x)
    _check_window("avg_pool", x.codes, kernel, stride, padding)
    checks.check_device("avg_pool", x.codes)
    window = (list(kernel), list(stride), list(padding))
    real = checks.as_float32(x.value)
    if checks.needs_grad(real):
        value, codes = _AvgPool.apply(real, x.codes, x.scale, *window, coarse)  # type: ignore[no-untyped-call]
    else:
        value, codes = _avg_pool(x.codes, x.scale, *window, coarse)
    return Coded(value if x.value.dtype == torch.float32 else value.to(x.value.dtype), codes, x.scale)


def avg_pool_codes(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """:func:`avg_pool` on codes alone.

    Args:
        x: int8, int16 or int32 ``(N, C, H, W)``.
        kernel, stride: ``[height, width]``.
        padding: ``[top, left, bottom, right]``.

    Returns:
        Codes of the dtype of ``x``.

    Raises:
        TypeError: ``x`` of another dtype.
        ValueError: A window that does not fit.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "AvgPool2dInt".
    """
    checks.check_codes("avg_pool_codes", "x", x)
    _check_window("avg_pool_codes", x, kernel, stride, padding)
    checks.check_device("avg_pool_codes", x)
    out: Tensor = _avg_pool_codes(checks.widened(x), list(kernel), list(stride), list(padding))
    return out.to(x.dtype)


def max_pool_codes(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """The largest code of each window; padding never wins.

    Args:
        x: int8, int16 or int32 ``(N, C, H, W)``, contiguous or channels_last (kept).
        kernel, stride: ``[height, width]``.
        padding: ``[top, left, bottom, right]``.

    Returns:
        Codes of the dtype of ``x``.

    Raises:
        TypeError: ``x`` of another dtype.
        ValueError: A window that does not fit.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Operators that keep codes".
    """
    checks.check_codes("max_pool_codes", "x", x)
    _check_window("max_pool_codes", x, kernel, stride, padding)
    checks.check_device("max_pool_codes", x)
    out: Tensor = _max_pool_codes(checks.widened(x), list(kernel), list(stride), list(padding))
    return out if out.dtype == x.dtype else out.clamp_min(torch.iinfo(x.dtype).min).to(x.dtype)


@checks.fake("linger::max_pool_codes")
@checks.fake("linger::avg_pool_codes")
def _fake_avg_pool_codes(x: Tensor, kernel: list[int], stride: list[int], padding: list[int]) -> Tensor:
    n, c, h, w = x.shape
    oh = (h + padding[0] + padding[2] - kernel[0]) // stride[0] + 1
    ow = (w + padding[1] + padding[3] - kernel[1]) // stride[1] + 1
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        steps = (oh * ow * c, 1, ow * c, c)
        return torch.empty_strided((n, c, oh, ow), steps, dtype=x.dtype, device=x.device)
    return x.new_empty((n, c, oh, ow))


@checks.fake("linger::avg_pool")
def _fake_avg_pool(
    x: Tensor, scale: Tensor, kernel: list[int], stride: list[int], padding: list[int], coarse: bool = False
) -> tuple[Tensor, Tensor]:
    codes = _fake_avg_pool_codes(x, kernel, stride, padding)
    return torch.empty_like(codes, dtype=torch.float32), codes
