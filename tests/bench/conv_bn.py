"""Constrained convolution + BatchNorm, forward and backward, against ``Conv2d`` + ``BatchNorm2d``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from linger.nn.constrained.fused import NormalizeConvBN2d

from .memory import peak_bytes, saved_bytes
from .rows import Row, Settings
from .timing import compare

# channels in, out, kernel, groups, input
SHAPES = {
    "3x3 16-16": (16, 16, 3, 1, (32, 16, 32, 32)),
    "3x3 64-64": (64, 64, 3, 1, (32, 64, 8, 8)),
    "1x1 32-192": (32, 192, 1, 1, (16, 32, 16, 16)),
    "dw 3x3 192": (192, 192, 3, 192, (16, 192, 16, 16)),
}


def _pair(i: int, o: int, k: int, g: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, groups=g, bias=False), nn.BatchNorm2d(o))


def _fused(a: float, i: int, o: int, k: int, g: int) -> nn.Module:
    layer, bn = _pair(i, o, k, g)
    return NormalizeConvBN2d.fuse(layer, bn, blend=a)


def rows(settings: Settings) -> Iterator[Row]:
    """Every shape, with the fold of the batch's statistics at weight a = 1.0 and a = 0.1."""
    for title, (i, o, k, g, shape) in SHAPES.items():
        x = torch.randn(shape, requires_grad=True)
        models = {"float Conv2d + BatchNorm2d": _pair(i, o, k, g)} | {
            f"linger a={a}": _fused(a, i, o, k, g) for a in (1.0, 0.1)
        }
        want = models["float Conv2d + BatchNorm2d"](x)
        torch.testing.assert_close(models["linger a=1.0"](x), want, rtol=1e-3, atol=1e-3)
        grad = torch.randn(want.shape)
        steps: dict[str, Callable[[], object]] = {}
        bytes_of = {}
        for who, model in models.items():

            def step(model: nn.Module = model, x: Tensor = x, grad: Tensor = grad) -> None:
                x.grad = None
                model.zero_grad()
                model(x).backward(grad)

            step()
            steps[who] = step
            bytes_of[who] = saved_bytes(lambda m=model, x=x: m(x)), peak_bytes(step)
        reference = "float Conv2d + BatchNorm2d"
        times = compare(steps, reference, rounds=settings.rounds, block_s=0.01, budget_s=settings.budget_s / 2)
        for who, t in times.items():
            yield Row(f"constrained {title}", who, t, *bytes_of[who])
