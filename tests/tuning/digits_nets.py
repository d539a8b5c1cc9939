"""Nets in the manner of MobileNetV2, EfficientNet-lite and BC-ResNet, small enough to be trained on the digits in seconds."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def conv(i, o, k=1, stride=1, groups=1, act=nn.ReLU6):
    pads = k // 2 if isinstance(k, int) else tuple(n // 2 for n in k)
    layers = [nn.Conv2d(i, o, k, stride, pads, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Inverted(nn.Module):
    def __init__(self, i, o, kernel=3, stride=1, expand=4):
        super().__init__()
        wide, self.skip = i * expand, stride == 1 and i == o
        self.body = nn.Sequential(conv(i, wide), conv(wide, wide, kernel, stride, wide), conv(wide, o, act=None))

    def forward(self, x):
        y = self.body(x)
        return x + y if self.skip else y


def mobilenet_v2():
    blocks = [Inverted(8, 12), Inverted(12, 12), Inverted(12, 16, stride=2), Inverted(16, 16)]
    return nn.Sequential(conv(1, 8, 3), *blocks, conv(16, 48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


def efficientnet_lite():
    blocks = [Inverted(8, 8, 3, 1, 1), Inverted(8, 12, 5, 2, 6), Inverted(12, 12, 5, 1, 6), Inverted(12, 16, 3, 1, 6)]
    return nn.Sequential(conv(1, 8, 3), *blocks, conv(16, 48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


class Broadcast(nn.Module):
    """A block of BC-ResNet: features of the plane, and of time alone, broadcast over the frequencies."""

    def __init__(self, i, o, stride=1):
        super().__init__()
        self.same = i == o and stride == 1
        self.enter = nn.Identity() if self.same else conv(i, o, act=nn.ReLU)
        self.plane = conv(o, o, (3, 1), (stride, 1), o, None)
        self.time = nn.Sequential(conv(o, o, (1, 3), 1, o, nn.SiLU), conv(o, o, act=nn.ReLU))

    def forward(self, x):
        plane = self.plane(self.enter(x))
        y = plane + self.time(plane.mean(2, keepdim=True))
        return F.relu(x + y if self.same else y)


def bc_resnet():
    blocks = [Broadcast(8, 8), Broadcast(8, 12, 2), Broadcast(12, 12), Broadcast(12, 16)]
    return nn.Sequential(conv(1, 8, 3, act=nn.ReLU), *blocks, conv(16, 32, act=nn.ReLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(32, 10))  # fmt: skip


NETS = {"MobileNetV2": mobilenet_v2, "EfficientNet-lite": efficientnet_lite, "BC-ResNet": bc_resnet}


def digits():
    """Images (N, 1, 8, 8) in 0..1 and their labels."""
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


def trained(name, epochs=8):
    """A net trained in float on the first 1,500 digits, in eval mode."""
    torch.manual_seed(0)
    model, (x, y) = NETS[name](), digits()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()
