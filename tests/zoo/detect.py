"""YOLO in its nano size with the decoding inside, as detectors are shipped: version 8's distributions, version 5's anchors."""

from __future__ import annotations

import torch
from torch import nn

from .vision import conv_bn


class Bottleneck(nn.Module):
    """Two 3x3 convolutions and perhaps a shortcut."""

    def __init__(self, channels: int, add: bool) -> None:
        super().__init__()
        self.one, self.two, self.add = (
            conv_bn(channels, channels, act=nn.SiLU),
            conv_bn(channels, channels, act=nn.SiLU),
            add,
        )

    def forward(self, x):
        y = self.two(self.one(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """Split, bottlenecks in a row, everything joined."""

    def __init__(self, inputs: int, outputs: int, n: int = 1, add: bool = True) -> None:
        super().__init__()
        self.half = outputs // 2
        self.first = conv_bn(inputs, outputs, 1, act=nn.SiLU)
        self.last = conv_bn((2 + n) * self.half, outputs, 1, act=nn.SiLU)
        self.steps = nn.ModuleList(Bottleneck(self.half, add) for _ in range(n))

    def forward(self, x):
        y = list(self.first(x).split((self.half, self.half), 1))
        y.extend(step(y[-1]) for step in self.steps)
        return self.last(torch.cat(y, 1))


class Sppf(nn.Module):
    """Three max poolings of 5x5 in a row, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels // 2, 1, act=nn.SiLU)
        self.last, self.pool = conv_bn(channels * 2, channels, 1, act=nn.SiLU), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.first(x)
        one = self.pool(x)
        two = self.pool(one)
        return self.last(torch.cat((x, one, two, self.pool(two)), 1))


class Body(nn.Module):
    """Backbone and a path up and down: maps of stride 8 and 16."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        act = nn.SiLU
        self.stem = nn.Sequential(conv_bn(3, c, 3, 2, act=act), conv_bn(c, 2 * c, 3, 2, act=act), C2f(2 * c, 2 * c))
        self.p3 = nn.Sequential(conv_bn(2 * c, 2 * c, 3, 2, act=act), C2f(2 * c, 2 * c))
        self.p4 = nn.Sequential(conv_bn(2 * c, 4 * c, 3, 2, act=act), C2f(4 * c, 4 * c), Sppf(4 * c))
        self.up, self.join3 = nn.Upsample(scale_factor=2, mode="nearest"), C2f(6 * c, 2 * c, add=False)
        self.down, self.join4 = conv_bn(2 * c, 2 * c, 3, 2, act=act), C2f(6 * c, 4 * c, add=False)

    def forward(self, x):
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p3 = self.join3(torch.cat([self.up(p4), p3], 1))
        return p3, self.join4(torch.cat([self.down(p3), p4], 1))


class YoloV8(nn.Module):
    """Boxes (centre and size in units of the stride's cells) and class scores, [N, 4 + classes, places].

    Each side's distance is the mean of a distribution over bins: a softmax and a fixed 1x1 convolution.
    """

    bins = 8

    def __init__(self, classes: int = 3, size: int = 32) -> None:
        super().__init__()
        self.classes, widths = classes, (16, 32)
        self.body = Body()
        self.boxes = nn.ModuleList(
            nn.Sequential(conv_bn(w, 16, act=nn.SiLU), nn.Conv2d(16, 4 * self.bins, 1)) for w in widths
        )
        self.scores = nn.ModuleList(nn.Sequential(conv_bn(w, 8, act=nn.SiLU), nn.Conv2d(8, classes, 1)) for w in widths)
        self.mean = nn.Conv2d(self.bins, 1, 1, bias=False).requires_grad_(False)
        self.mean.weight.data = torch.arange(float(self.bins)).view(1, self.bins, 1, 1)
        cells = [torch.arange(size // s) + 0.5 for s in (8, 16)]
        grids = [torch.stack(torch.meshgrid(c, c, indexing="xy")).flatten(1) for c in cells]
        self.register_buffer("anchors", torch.cat(grids, 1)[None])

    def forward(self, x):
        found = [
            torch.cat((b(m), s(m)), 1).flatten(2) for b, s, m in zip(self.boxes, self.scores, self.body(x), strict=True)
        ]
        boxes, scores = torch.cat(found, 2).split((4 * self.bins, self.classes), 1)
        n, _, places = boxes.shape
        sides = self.mean(boxes.view(n, 4, self.bins, places).transpose(2, 1).softmax(1)).view(n, 4, places)
        near, far = sides.chunk(2, 1)
        near, far = self.anchors - near, self.anchors + far
        return torch.cat(((near + far) / 2, far - near, scores.sigmoid()), 1)


class YoloV5(nn.Module):
    """Version 5's head: three anchors per cell, sigmoids everywhere, [N, places, 5 + classes]."""

    def __init__(self, classes: int = 3, size: int = 32) -> None:
        super().__init__()
        self.body, self.each = Body(), 5 + classes
        self.heads = nn.ModuleList(nn.Conv2d(w, 3 * self.each, 1) for w in (16, 32))
        sizes = torch.tensor([[[1.2, 1.6], [2.0, 3.8], [4.1, 2.9]], [[1.9, 3.8], [3.9, 2.8], [3.7, 7.4]]])
        for i, stride in enumerate((8, 16)):
            cell = torch.arange(size // stride) - 0.5
            grid = torch.stack(torch.meshgrid(cell, cell, indexing="xy"), 2)
            self.register_buffer(f"grid{i}", grid[None, None])
            self.register_buffer(f"size{i}", sizes[i].view(1, 3, 1, 1, 2))

    def forward(self, x):
        found = []
        for i, (head, m) in enumerate(zip(self.heads, self.body(x), strict=True)):
            n, _, h, w = m.shape
            y = head(m).view(n, 3, self.each, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            xy = y[..., 0:2] * 2 + getattr(self, f"grid{i}")
            wh = (y[..., 2:4] * 2) ** 2 * getattr(self, f"size{i}")
            found.append(torch.cat((xy, wh, y[..., 4:]), -1).view(n, -1, self.each))
        return torch.cat(found, 1)
