"""Small forms of the networks that people train: what they are made of, not their size."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo import vision


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1, relu=True):
    """Convolution, BatchNorm and perhaps ReLU, padded to keep the size."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.one = conv_bn(inputs, outputs, 3, stride)
        self.two = conv_bn(outputs, outputs, relu=False)
        change = stride != 1 or inputs != outputs
        self.shortcut = conv_bn(inputs, outputs, 1, stride, relu=False) if change else nn.Identity()

    def forward(self, x):
        return F.relu(self.two(self.one(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, three basic blocks, global pooling, classifier."""

    shape = (3, 12, 12)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 4), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2), BasicBlock(8, 8, 1))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; added to the input where the shape stays."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        wide = inputs * 2
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.keeps = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.keeps else self.body(x)


class MobileNet(nn.Module):
    """Inverted residuals with ReLU6, mean over space, dropout."""

    shape = (3, 10, 10)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 4, 3, 2), InvertedResidual(4, 4, 1), InvertedResidual(4, 6, 2))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 4))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class CausalBlock(nn.Module):
    """Dilated convolution that looks back only."""

    def __init__(self, channels, dilation):
        super().__init__()
        self.conv, self.past = nn.Conv1d(channels, channels, 3, dilation=dilation), 2 * dilation

    def forward(self, x):
        return torch.relu(self.conv(F.pad(x, (self.past, 0))) + x)


class Tcn(nn.Module):
    """Causal dilated convolutions over a sequence."""

    shape = (4, 16)

    def __init__(self):
        super().__init__()
        self.inp = nn.Conv1d(4, 6, 1)
        self.blocks = nn.Sequential(*(CausalBlock(6, d) for d in (1, 2, 4)))
        self.out = nn.Conv1d(6, 3, 1)

    def forward(self, x):
        return self.out(self.blocks(self.inp(x)))


class Kws(nn.Module):
    """Keyword spotting: 1-D convolutions with BatchNorm over feature frames, depthwise separable, pooled over time."""

    shape = (10, 20)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(10, 8, 5, 2, 2, bias=False), nn.BatchNorm1d(8), nn.ReLU())
        self.depthwise, self.bn1 = nn.Conv1d(8, 8, 5, padding=2, groups=8, bias=False), nn.BatchNorm1d(8)
        self.point, self.bn2 = nn.Conv1d(8, 12, 1, bias=False), nn.BatchNorm1d(12)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.depthwise(self.stem(x))))
        x = F.relu(self.bn2(self.point(x)))
        return self.fc(F.avg_pool1d(x, x.shape[-1]).squeeze(-1))


class UNet(vision.UNet):
    """Down, up by transposed convolution, joined with the skipped features."""

    shape = (1, 8, 8)


class SqueezeExcite(nn.Module):
    """A gate per channel from the pooled features, multiplied back."""

    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv = conv_bn(3, 8)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.conv(x)
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gate)


class ShuffleUnit(nn.Module):
    """Split, one half through convolutions, joined and shuffled."""

    shape = (4, 6, 6)

    def __init__(self):
        super().__init__()
        self.stem = conv_bn(4, 8)
        self.branch = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, groups=4, relu=False), conv_bn(4, 4, 1))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x)


class Attention(nn.Module):
    """Attention written in linear layers, transposes, products and a softmax."""

    shape = (5, 8)
    islands = MappingProxyType({"venus": ["softmax"]})

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).view(x.size(0), 5, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(4)
        y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(x.size(0), 5, 8)) + x


class FeedForward(nn.Module):
    """Pre-norm transformer block without attention: LayerNorm, two linear layers, residual."""

    shape = (4, 8)

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm((4, 8))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        x = x + self.down(F.relu(self.up(self.norm1(x))))
        return self.norm2(x)


class Transformer(nn.Module):
    """torch's own encoder layer on embedded words."""

    shape = (6,)
    integers = 9
    islands = MappingProxyType({"venus": ["softmax"]})

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(9, 8), nn.Parameter(torch.randn(6, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(self.words(x) + self.places))


class Branches(nn.Module):
    """Three inputs of different shapes, nested outputs, a block used at two scales."""

    shapes = ((3, 6, 6), (4,), (2, 8))

    def __init__(self):
        super().__init__()
        self.image, self.block = nn.Conv2d(3, 4, 3, padding=1), conv_bn(4, 4)
        self.vector, self.sequence = nn.Linear(4, 4), nn.Conv1d(2, 4, 3)
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(12, 3)})

    def forward(self, image, vector, sequence):
        x = self.block(self.image(image))
        y = self.block(F.avg_pool2d(x, 2))
        x, y = x.mean((2, 3)), y.flatten(2).mean(2)
        s = F.max_pool1d(self.sequence(sequence), 6).squeeze(2)
        v = self.vector(vector) + s
        return {"a": self.heads["a"](x + v), "rest": [self.heads["b"](torch.cat([x, y, v], 1)), s]}


NETS = (
    ResNet, MobileNet, Tcn, Kws, UNet, SqueezeExcite, ShuffleUnit, Attention, FeedForward, Transformer, Branches,
)  # fmt: skip
