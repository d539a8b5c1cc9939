"""Networks of chip functions: gates, gated linear units, smooth activations, probabilities."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F


class WaveNet(nn.Module):
    """Dilated convolutions whose tanh is gated by a sigmoid, with residual and skip connections; gates inside a Sequential."""

    shape = (4, 16)

    def __init__(self):
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=d, dilation=d) for d in (1, 2))
        self.gates = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=d, dilation=d) for d in (1, 2))
        self.gain = nn.Sequential(nn.Conv1d(4, 4, 1), nn.Tanh(), nn.Conv1d(4, 4, 1), nn.Sigmoid())

    def forward(self, x):
        skip = None
        for f, g in zip(self.filters, self.gates, strict=True):
            y = f(x).tanh() * torch.sigmoid(g(x))
            skip = y if skip is None else skip + y
            x = self.gain(y) + x
        return skip


class GatedConv(nn.Module):
    """Gated linear units over channels and over the last axis."""

    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GLU(1), nn.Conv2d(4, 8, 3, padding=1), nn.GLU(1))
        self.head = nn.Linear(4, 6)

    def forward(self, x):
        return F.glu(self.head(self.block(x).mean((2, 3))))


class SmoothNet(nn.Module):
    """GELU and SiLU, functions and modules."""

    shape = (6,)
    islands = MappingProxyType({p: ["gelu"] for p in ("arcs", "mars", "venus")})

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.GELU()

    def forward(self, x):
        return self.c(F.silu(self.b(self.act(self.a(x)))))


class Probabilities(nn.Module):
    """Softmax over channels as attention over places, and scores of logarithms."""

    shape = (3, 4, 5)
    islands = MappingProxyType({"arcs": ["log_softmax"], "mars": ["log_softmax"], "venus": ["softmax", "log_softmax"]})

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 4)
        self.scores = nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x) * F.softmax(self.b(x), dim=1)
        return self.scores(self.head(x.mean((2, 3))).log_softmax(-1))


GATES = (WaveNet, GatedConv, SmoothNet, Probabilities)
