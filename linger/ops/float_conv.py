"""Float convolutions that training uses: torch's, kept clear of a fault in oneDNN's gradients.

oneDNN, as torch 2.13 has it, computes one weight gradient wrongly on processors without AVX-512: that of a channels-last
convolution with a 1x1 kernel, a stride above 1, no padding, one group and fewer than 8 input channels. It reads and writes
past its memory: with one thread the process dies sooner or later, with more the gradient is wrong or never comes. Such a
convolution reads every ``stride``-th pixel only, so its gradients are those of a convolution of stride 1 on these pixels,
which oneDNN computes well. The forward stays torch's own: its bits do not depend on who asks for gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks

_backward = torch.ops.aten.convolution_backward.default
Numbers = int | Sequence[int]


def is_faulty(x: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int) -> bool:
    """Whether oneDNN must not be asked for the weight gradient of this convolution (in whatever memory order)."""
    return (
        w.dim() == 4
        and w.shape[1] < 8
        and max(stride) > 1
        and groups == 1
        and w.shape[2] == w.shape[3] == 1
        and max(padding) == 0
        and x.device.type == "cpu"
    )


def conv2d_gradients(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    want: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Any, Tensor | None]:
    """Gradients of a float 2-D convolution at x, w and bias, those that are wanted. Can be differentiated again.

    Args:
        grad: Of the result.
        x: ``(N, C, H, W)``.
        w: ``(O, C / groups, kh, kw)``.
        stride, padding, dilation: Two numbers each.
        groups: Divides input and output channels.
        want: Which of the three.
    """
    clear = is_faulty(x, w, stride, padding, groups)
    size = x.shape
    if clear:
        across, down = stride[1], stride[0]
        x, stride = x[:, :, ::down, ::across].contiguous(memory_format=torch.channels_last), (1, 1)
    bias = [w.shape[0]]
    gx, gw, gb = _backward(
        grad, x, w, bias, list(stride), list(padding), list(dilation), False, [0, 0], groups, list(want)
    )
    if clear and gx is not None:
        n, c, height, width = size
        full = gx.new_zeros((n, height, width, c)).permute(0, 3, 1, 2)
        full[:, :, ::down, ::across] = gx
        gx = full
    return gx, gw, gb


class _Conv2d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor | None, *window: Any) -> Tensor:
        return F.conv2d(x, w, bias, *window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, bias, *ctx.window = inputs
        ctx.save_for_backward(x, w)
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.window
        with checks.no_autocast(grad):  # in its region the forward ran in the type of `grad`
            real, weight = x.to(grad.dtype), w.to(grad.dtype)
            gx, gw, gb = conv2d_gradients(
                grad, real, weight, stride, padding, dilation, groups, ctx.needs_input_grad[:3]
            )
        gx, gw = (g if g is None else g.to(t.dtype) for g, t in ((gx, x), (gw, w)))
        return gx, gw, gb if gb is None else gb.to(ctx.bias_dtype), *(None,) * 4


def conv2d(
    input: Tensor,  # noqa: A002  # torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: str | Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.nn.functional.conv2d``: the same arguments, the same bits, and gradients that are right on every processor."""
    window = _pair(stride), (0, 0) if padding == "valid" else padding, _pair(dilation), groups
    plain = isinstance(window[1], str) or not checks.needs_grad(input, weight, bias)
    if plain or not is_faulty(input, weight, window[0], _pair(window[1]), groups):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    flat = input.dim() == 3
    x = input.unsqueeze(0) if flat else input
    y: Tensor = checks.plain_apply(_Conv2d)(x, weight, bias, window[0], _pair(window[1]), window[2], groups)
    return y.squeeze(0) if flat else y


def _pair(n: Any) -> tuple[int, ...]:
    if isinstance(n, int):
        return (n, n)
    numbers = tuple(n)
    return numbers * 2 if len(numbers) == 1 else numbers


__all__ = ["conv2d", "conv2d_gradients", "is_faulty"]
