"""Longer nets for speech: GTCRN, Squeezeformer, a Transformer encoder."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class Bands(nn.Module):
    """Frequencies above the first ones in bands (a fixed matrix), and back: GTCRN's ERB filters."""

    def __init__(self, low: int, bins: int, bands: int) -> None:
        super().__init__()
        self.low = low
        self.merge, self.split = nn.Linear(bins - low, bands, bias=False), nn.Linear(bands, bins - low, bias=False)
        places = torch.arange(bins - low) * bands / (bins - low)
        filters = (1 - (places - torch.arange(bands)[:, None]).abs()).clamp(min=0)
        filters = filters / filters.sum(1, keepdim=True).clamp(min=0.5)
        self.merge.weight, self.split.weight = (nn.Parameter(w, False) for w in (filters, filters.t().contiguous()))

    def narrow(self, x):
        """[N, C, T, bins] -> [N, C, T, low + bands]."""
        return torch.cat([x[..., : self.low], self.merge(x[..., self.low :])], dim=-1)

    def widen(self, x):
        """Back to all bins."""
        return torch.cat([x[..., : self.low], self.split(x[..., self.low :])], dim=-1)


class ConvBlock(nn.Module):
    """Convolution (or a transposed one), BatchNorm, PReLU or tanh."""

    def __init__(self, inputs, outputs, kernel, stride, padding, up=False, last=False, groups=1) -> None:
        super().__init__()
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        self.conv = kind(inputs, outputs, kernel, stride, padding, groups=groups)
        self.bn, self.act = nn.BatchNorm2d(outputs), nn.Tanh() if last else nn.PReLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class TemporalAttention(nn.Module):
    """A gate per channel and frame from a GRU over the energies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru, self.fc = nn.GRU(channels, 2 * channels, batch_first=True), nn.Linear(2 * channels, channels)

    def forward(self, x):
        energy = x.pow(2).mean(-1)
        gate = torch.sigmoid(self.fc(self.gru(energy.transpose(1, 2))[0])).transpose(1, 2)
        return x * gate[..., None]


class GtConvBlock(nn.Module):
    """Half of the channels through three neighbours, a causal depthwise convolution and a gate; shuffled with the others."""

    def __init__(self, channels: int, dilation: int, up: bool = False) -> None:
        super().__init__()
        half, wide = channels // 2, channels
        self.past = 2 * dilation
        self.point1, self.bn1, self.act1 = nn.Conv2d(3 * half, wide, 1), nn.BatchNorm2d(wide), nn.PReLU()
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        padding = (self.past, 1) if up else (0, 1)
        self.depth = kind(wide, wide, 3, 1, padding, dilation=(dilation, 1), groups=wide)
        self.bn2, self.act2 = nn.BatchNorm2d(wide), nn.PReLU()
        self.point2, self.bn3, self.gate = nn.Conv2d(wide, half, 1), nn.BatchNorm2d(half), TemporalAttention(half)

    def forward(self, x):
        left, right = torch.chunk(x, 2, dim=1)
        wide = F.pad(left, (1, 1))
        left = torch.cat([wide[..., :-2], left, wide[..., 2:]], dim=1)
        left = self.act1(self.bn1(self.point1(left)))
        left = F.pad(left, (0, 0, self.past, 0))
        left = self.act2(self.bn2(self.depth(left)))
        left = self.gate(self.bn3(self.point2(left)))
        n, c, t, f = left.shape
        return torch.stack([left, right], dim=2).reshape(n, 2 * c, t, f)


class GroupedGru(nn.Module):
    """Two GRUs, each for half of the features."""

    def __init__(self, features: int, hidden: int, both: bool) -> None:
        super().__init__()
        self.left, self.right = (
            nn.GRU(features // 2, hidden // 2, batch_first=True, bidirectional=both) for _ in range(2)
        )

    def forward(self, x):
        left, right = torch.chunk(x, 2, dim=-1)
        return torch.cat([self.left(left)[0], self.right(right)[0]], dim=-1)


class DualPath(nn.Module):
    """A GRU over the frequencies of each frame, another over the frames of each frequency, both with LayerNorm."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.intra, self.inter = GroupedGru(channels, channels // 2, True), GroupedGru(channels, channels, False)
        self.fc1, self.fc2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.norm1, self.norm2 = (nn.LayerNorm((width, channels), eps=1e-5) for _ in range(2))

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        n, t, f, c = x.shape
        y = self.fc1(self.intra(x.reshape(n * t, f, c)))
        x = x + self.norm1(y.reshape(n, t, f, c))
        y = self.fc2(self.inter(x.permute(0, 2, 1, 3).reshape(n * f, t, c)))
        x = x + self.norm2(y.reshape(n, f, t, c).permute(0, 2, 1, 3))
        return x.permute(0, 3, 1, 2)


class Gtcrn(nn.Module):
    """GTCRN (Rong et al., 2024): the clean spectrum [N, 2, T, 17] from magnitude, real and imaginary parts [N, 3, T, 17]."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.bands = Bands(5, 17, 4)
        self.encoder = nn.ModuleList(
            [
                ConvBlock(9, channels, (1, 5), (1, 2), (0, 2)),
                ConvBlock(channels, channels, (1, 5), (1, 1), (0, 2), groups=2),
                *(GtConvBlock(channels, d) for d in (1, 2, 5)),
            ]
        )
        self.paths = nn.Sequential(DualPath(channels, 5), DualPath(channels, 5))
        self.decoder = nn.ModuleList(
            [
                *(GtConvBlock(channels, d, up=True) for d in (5, 2, 1)),
                ConvBlock(channels, channels, (1, 5), (1, 1), (0, 2), up=True, groups=2),
                ConvBlock(channels, 2, (1, 5), (1, 2), (0, 2), up=True, last=True),
            ]
        )

    def forward(self, x):
        y = F.pad(self.bands.narrow(x), (1, 1))
        y = torch.cat([y[..., :-2], y[..., 1:-1], y[..., 2:]], dim=1)
        seen = []
        for block in self.encoder:
            y = block(y)
            seen.append(y)
        y = self.paths(y)
        for block in self.decoder:
            y = block(y + seen.pop())
        mask = self.bands.widen(y)
        real, imaginary = x[:, 1], x[:, 2]
        clean = real * mask[:, 0] - imaginary * mask[:, 1], imaginary * mask[:, 0] + real * mask[:, 1]
        return torch.stack(clean, dim=1)


def positions(length: int, width: int) -> torch.Tensor:
    """Sinusoids of the distances length - 1 ... 1 - length, [2 * length - 1, width] (Dai et al., 2019)."""
    places = torch.arange(length - 1, -length, -1)[:, None]
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([(places * rates).sin(), (places * rates).cos()], dim=2).flatten(1)


class RelativeAttention(nn.Module):
    """Self-attention whose scores know how far apart two frames are (Transformer-XL)."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.place = nn.Linear(width, width, bias=False)
        self.u, self.w = (nn.Parameter(torch.randn(1, heads, 1, width // heads) * 0.1) for _ in range(2))
        self.register_buffer("distances", positions(length, width)[None])

    def split(self, x):
        """[N, T, width] -> [N, heads, T, width / heads]."""
        return x.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        far = self.split(self.place(self.distances))
        content = (q + self.u) @ k.transpose(-2, -1)
        distance = (q + self.w) @ far.transpose(-2, -1)
        distance = F.pad(distance, (1, 0)).view(n, self.heads, 2 * t, t)[:, :, 1:]
        distance = distance.reshape(n, self.heads, t, 2 * t - 1)[..., :t]
        scores = (content + distance) / math.sqrt(width / self.heads)
        y = torch.softmax(scores, dim=-1) @ v
        return self.out(y.transpose(1, 2).reshape(n, t, width))


class FeedForward(nn.Module):
    """Two linear layers and a swish."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.SiLU()

    def forward(self, x):
        return self.down(self.act(self.up(x)))


class ConvModule(nn.Module):
    """Squeezeformer's convolution module: pointwise, swish, depthwise, BatchNorm, swish, pointwise."""

    def __init__(self, width: int, kernel: int = 7) -> None:
        super().__init__()
        self.up, self.down = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(2 * width, width, 1)
        self.depth = nn.Conv1d(2 * width, 2 * width, kernel, padding=kernel // 2, groups=2 * width, bias=False)
        self.bn, self.act = nn.BatchNorm1d(2 * width), nn.SiLU()

    def forward(self, x):
        y = self.act(self.up(x.transpose(1, 2)))
        return self.down(self.act(self.bn(self.depth(y)))).transpose(1, 2)


class Scaled(nn.Module):
    """Squeezeformer's adaptive scale in front of a module, the residual, and the LayerNorm behind."""

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.inner, self.norm = inner, nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x + self.inner(x * self.scale + self.bias))


class SqueezeBlock(nn.Sequential):
    """Attention, feed-forward, convolution, feed-forward."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        parts = RelativeAttention(width, heads, length), FeedForward(width), ConvModule(width), FeedForward(width)
        super().__init__(*(Scaled(width, part) for part in parts))


class Squeezeformer(nn.Module):
    """Squeezeformer (Kim et al., 2022): scores per step for CTC from [N, 1, 48, 16] spectra; half the steps in the middle."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.sub = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 8, 1), nn.ReLU(),
        )  # fmt: skip
        self.project, self.norm = nn.Linear(32, width), nn.LayerNorm(width)
        self.first, self.middle, self.last = (SqueezeBlock(width, heads, t) for t in (12, 6, 12))
        self.reduce = nn.Conv1d(width, width, 3, 2, 1, groups=width)
        self.recover, self.head = nn.Linear(width, width), nn.Linear(width, 6)

    def forward(self, x):
        y = self.sub(x).permute(0, 2, 1, 3).flatten(2)
        y = self.first(self.norm(self.project(y)))
        z = self.middle(self.reduce(y.transpose(1, 2)).transpose(1, 2))
        z = self.recover(z.repeat_interleave(2, dim=1))
        return self.head(self.last(y + z))


class Encoder(nn.Module):
    """torch's own encoder layers between two linear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(10, 16), nn.Linear(16, 4)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
        )

    def forward(self, x):
        return self.out(self.layers(self.inner(x)))
