"""The float models: ResNet-20, a MobileNet-like net and an MLP, with and without BatchNorm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def conv(i: int, o: int, k: int = 3, s: int = 1, groups: int = 1, *, bn: bool) -> nn.Module:
    """A convolution with BatchNorm, or with a bias instead of it."""
    first = nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=not bn)
    return nn.Sequential(first, nn.BatchNorm2d(o)) if bn else first


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, i: int, o: int, s: int, bn: bool) -> None:
        super().__init__()
        self.a, self.relu1, self.b = conv(i, o, 3, s, bn=bn), nn.ReLU(), conv(o, o, bn=bn)
        self.short = conv(i, o, 1, s, bn=bn) if s != 1 or i != o else None
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Residual sum, then ReLU."""
        y = self.b(self.relu1(self.a(x)))
        return self.relu2(y + (x if self.short is None else self.short(x)))


class ResNet20(nn.Module):
    """ResNet-20 for 32 x 32 images."""

    def __init__(self, bn: bool = True) -> None:
        super().__init__()
        plan = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.stem, self.relu = conv(3, 16, bn=bn), nn.ReLU()
        self.blocks = nn.Sequential(*[Block(*row, bn) for row in plan])
        self.pool, self.fc = nn.AvgPool2d(8), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.fc(torch.flatten(self.pool(self.blocks(self.relu(self.stem(x)))), 1))


class Inverted(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, i: int, o: int, s: int, t: int, bn: bool) -> None:
        super().__init__()
        h = i * t
        expand = [conv(i, h, 1, bn=bn), nn.ReLU()] if t != 1 else []
        self.m = nn.Sequential(*expand, conv(h, h, 3, s, h, bn=bn), nn.ReLU(), conv(h, o, 1, bn=bn))
        self.add = s == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        """With the shortcut where shapes allow."""
        return x + self.m(x) if self.add else self.m(x)


class MobileNetLike(nn.Module):
    """Depthwise-separable net for 64 x 64 images."""

    def __init__(self, bn: bool = True) -> None:
        super().__init__()
        plan = [(16, 16, 1, 1), (16, 24, 2, 6), (24, 24, 1, 6), (24, 32, 2, 6), (32, 32, 1, 6), (32, 64, 2, 6)]
        self.stem, self.relu1 = conv(3, 16, 3, 2, bn=bn), nn.ReLU()
        self.body = nn.Sequential(*[Inverted(*row, bn) for row in [*plan, (64, 64, 1, 6)]])
        self.head, self.relu2 = conv(64, 256, 1, bn=bn), nn.ReLU()
        self.pool, self.fc = nn.AvgPool2d(4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.body(self.relu1(self.stem(x)))
        return self.fc(torch.flatten(self.pool(self.relu2(self.head(x))), 1))


class Mlp(nn.Sequential):
    """784-512-512-10; there is no BatchNorm to leave out."""

    def __init__(self, bn: bool = True) -> None:
        super().__init__(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "resnet20": (ResNet20, (32, 3, 32, 32)),
    "mobilenet": (MobileNetLike, (16, 3, 64, 64)),
    "mlp": (Mlp, (128, 784)),
}
