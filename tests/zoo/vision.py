"""Nets for images, written from their papers, a few channels wide."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1, act=nn.ReLU):
    """Convolution, BatchNorm and an activation (None: none), padded to keep the size."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """A gate per channel from the mean of the map (Hu et al., 2017)."""

    def __init__(self, channels: int, narrow: int, gate: type[nn.Module] = nn.Hardsigmoid) -> None:
        super().__init__()
        self.pool, self.down, self.up = (
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1),
            nn.Conv2d(narrow, channels, 1),
        )
        self.act, self.gate = nn.ReLU(), gate()

    def forward(self, x):
        return x * self.gate(self.up(self.act(self.down(self.pool(x)))))


class SeNet(nn.Module):
    """A residual block with squeeze and excitation, and a classifier."""

    def __init__(self, gate: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.conv, self.se = conv_bn(3, 8), conv_bn(8, 8, act=None), SqueezeExcite(8, 4, gate)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.se(self.conv(x)))
        return self.fc(x.mean((2, 3)))


class Bneck(nn.Module):
    """MobileNetV3's block: expand, depthwise, gate, project, residual."""

    def __init__(self, inputs, kernel, wide, outputs, se, act, stride) -> None:
        super().__init__()
        self.expand, self.depth = conv_bn(inputs, wide, 1, act=act), conv_bn(wide, wide, kernel, stride, wide, act)
        self.se = SqueezeExcite(wide, max(4, wide // 4)) if se else nn.Identity()
        self.project, self.add = conv_bn(wide, outputs, 1, act=None), stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.project(self.se(self.depth(self.expand(x))))
        return x + y if self.add else y


class MobileNetV3(nn.Module):
    """MobileNetV3-Small (Howard et al., 2019), five of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        relu, swish = nn.ReLU, nn.Hardswish
        self.stem = conv_bn(3, 8, 3, 2, act=swish)
        self.blocks = nn.Sequential(
            Bneck(8, 3, 8, 8, True, relu, 2), Bneck(8, 3, 24, 12, False, relu, 2), Bneck(12, 3, 24, 12, False, relu, 1),
            Bneck(12, 5, 32, 16, True, swish, 2), Bneck(16, 5, 32, 16, True, swish, 1),
        )  # fmt: skip
        self.last, self.pool = conv_bn(16, 48, 1, act=swish), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(48, 32), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x):
        return self.classifier(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))


class BlazeBlock(nn.Module):
    """5x5 depthwise and 1x1, a shortcut through a pooling and zeros for new channels; a second pair where it is double."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, middle: int | None = None) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        first = outputs if middle is None else middle
        pad = 0 if stride == 2 else 2
        self.conv = nn.Sequential(nn.Conv2d(inputs, inputs, 5, stride, pad, groups=inputs), nn.Conv2d(inputs, first, 1))
        double = [nn.ReLU(), nn.Conv2d(first, first, 5, 1, 2, groups=first), nn.Conv2d(first, outputs, 1)]
        self.second, self.pool = nn.Sequential(*(double if middle else [])), nn.MaxPool2d(2)

    def forward(self, x):
        y = self.second(self.conv(F.pad(x, (1, 2, 1, 2)) if self.stride == 2 else x))
        if self.stride == 2:
            x = self.pool(x)
        if self.more > 0:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more))
        return F.relu(y + x)


class BlazeFace(nn.Module):
    """BlazeFace (Bazarevsky et al., 2019): scores [N, A, 1] and boxes with key points [N, A, 16] of all anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 2)
        self.single = nn.Sequential(BlazeBlock(8, 8), BlazeBlock(8, 12), BlazeBlock(12, 16, 2), BlazeBlock(16, 16))
        self.double1 = nn.Sequential(BlazeBlock(16, 24, 2, 8), BlazeBlock(24, 24, 1, 8))
        self.double2 = nn.Sequential(BlazeBlock(24, 24, 2, 8), BlazeBlock(24, 24, 1, 8))
        self.scores = nn.ModuleList([nn.Conv2d(24, 2, 1), nn.Conv2d(24, 6, 1)])
        self.boxes = nn.ModuleList([nn.Conv2d(24, 32, 1), nn.Conv2d(24, 96, 1)])

    def forward(self, x):
        x = F.relu(self.stem(F.pad(x, (1, 2, 1, 2))))
        one = self.double1(self.single(x))
        maps, n = (one, self.double2(one)), x.shape[0]
        scores = [head(m).permute(0, 2, 3, 1).reshape(n, -1, 1) for head, m in zip(self.scores, maps, strict=True)]
        boxes = [head(m).permute(0, 2, 3, 1).reshape(n, -1, 16) for head, m in zip(self.boxes, maps, strict=True)]
        return torch.cat(scores, dim=1), torch.cat(boxes, dim=1)


class RepBlock(nn.Module):
    """RepVGG's block: 3x3, 1x1 and the input itself, each with a BatchNorm, summed."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense, self.point = (
            conv_bn(inputs, outputs, 3, stride, act=None),
            conv_bn(inputs, outputs, 1, stride, act=None),
        )
        self.same = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x):
        y = self.dense(x) + self.point(x)
        return F.relu(y if self.same is None else y + self.same(x))

    def folded(self) -> nn.Module:
        """The one 3x3 convolution that computes the same in evaluation, and the ReLU."""
        conv = self.dense[0]
        joined = nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride, 1)
        with torch.no_grad():
            kernel, bias = torch.zeros_like(joined.weight), torch.zeros_like(joined.bias)
            one = torch.zeros_like(kernel)
            for c in range(min(conv.in_channels, conv.out_channels)):
                one[c, c, 1, 1] = 1.0
            branches = [(conv.weight, self.dense[1]), (F.pad(self.point[0].weight, (1, 1, 1, 1)), self.point[1])]
            for weight, bn in branches + ([(one, self.same)] if self.same is not None else []):
                factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
                kernel += weight * factor[:, None, None, None]
                bias += bn.bias - bn.running_mean * factor
            joined.weight.copy_(kernel)
            joined.bias.copy_(bias)
        return nn.Sequential(joined, nn.ReLU())


class RepVgg(nn.Module):
    """RepVGG (Ding et al., 2021) in the form that is trained, or in the one that is deployed."""

    def __init__(self, deployed: bool = False) -> None:
        super().__init__()
        plan = ((3, 8, 2), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 16, 1))
        self.blocks = nn.Sequential(*(RepBlock(*row) for row in plan))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)
        if deployed:
            with torch.no_grad():
                for _ in range(20):
                    self(torch.randn(8, 3, 24, 24))
            self.blocks = nn.Sequential(*(block.folded() for block in self.blocks))

    def forward(self, x):
        return self.fc(self.pool(self.blocks(x)).flatten(1))


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015): two levels, transposed convolutions on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv_bn(1, 4), conv_bn(4, 6), conv_bn(6, 8)
        self.up2, self.up1 = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.back2, self.back1, self.head = conv_bn(12, 6), conv_bn(8, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = self.one(x)
        b = self.two(F.max_pool2d(a, 2))
        c = self.up2(self.three(F.max_pool2d(b, 2)))
        b = self.back2(torch.cat([c, b], 1))
        return self.head(self.back1(torch.cat((self.up1(b), a), dim=1)))


class ShuffleNet(nn.Module):
    """ShuffleNetV2's unit (Ma et al., 2018), its shuffle written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.branch = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, groups=4, act=None), conv_bn(4, 4, 1))
        self.mix, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, 5)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(self.mix(x)).mean((2, 3)))


class Siamese(nn.Module):
    """One net for two images of different brightness; both embeddings, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Conv2d(1, 1, 1)
        self.arm = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 6))

    def forward(self, x, y):
        return torch.cat([self.arm(x), self.arm(self.gain(y) * 4.0)], 1)
