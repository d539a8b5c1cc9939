"""Nets for speech and sound, written from their papers, a few channels wide."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class SqueezeExcite1d(nn.Module):
    """A gate per channel from the mean over time."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(channels, narrow, 1), nn.Conv1d(narrow, channels, 1)

    def forward(self, x):
        s = F.relu(self.down(x.mean(2, keepdim=True)))
        return x * torch.sigmoid(self.up(s))


class ConvReluBn(nn.Module):
    """ECAPA's order: the ReLU comes in front of the BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x):
        return self.bn(F.relu(self.conv(x)))


class SERes2Block(nn.Module):
    """Groups of channels, each convolved after the group in front was added; a gate; a residual."""

    def __init__(self, channels: int, dilation: int, scale: int = 4) -> None:
        super().__init__()
        self.first, self.last = ConvReluBn(channels, channels), ConvReluBn(channels, channels)
        width = channels // scale
        self.steps = nn.ModuleList(ConvReluBn(width, width, 3, dilation) for _ in range(scale - 1))
        self.gate = SqueezeExcite1d(channels, channels // 2)

    def forward(self, x):
        first, *rest = self.first(x).chunk(len(self.steps) + 1, dim=1)
        done = [first]
        for step, part in zip(self.steps, rest, strict=True):
            done.append(step(part if len(done) == 1 else part + done[-1]))
        return x + self.gate(self.last(torch.cat(done, dim=1)))


class AttentiveStatistics(nn.Module):
    """Mean and deviation over time, weighted per channel by an attention that sees the whole utterance's statistics."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.down = ConvReluBn(3 * channels, narrow)
        self.up = nn.Conv1d(narrow, channels, 1)

    def forward(self, x):
        mean = x.mean(2, keepdim=True)
        deviation = torch.sqrt((x - mean).pow(2).mean(2, keepdim=True).clamp(min=1e-4))
        context = torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1)
        weights = torch.softmax(self.up(torch.tanh(self.down(context))), dim=2)
        mean = (weights * x).sum(2)
        deviation = torch.sqrt(((weights * x * x).sum(2) - mean * mean).clamp(min=1e-4))
        return torch.cat([mean, deviation], dim=1)


class EcapaTdnn(nn.Module):
    """ECAPA-TDNN (Desplanques et al., 2020): an embedding of the speaker from [N, 24, T] features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvReluBn(24, 16, 5)
        self.blocks = nn.ModuleList(SERes2Block(16, d) for d in (2, 3, 4))
        self.join = nn.Conv1d(48, 24, 1)
        self.pool, self.bn = AttentiveStatistics(24, 8), nn.BatchNorm1d(48)
        self.fc, self.bn_out = nn.Linear(48, 12), nn.BatchNorm1d(12)

    def forward(self, x):
        x, seen = self.stem(x), []
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        x = F.relu(self.join(torch.cat(seen, dim=1)))
        return self.bn_out(self.fc(self.bn(self.pool(x))))


class SubSpectralNorm(nn.Module):
    """A BatchNorm of its own for each band of frequencies (Chang et al., 2021)."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.bands, self.bn = bands, nn.BatchNorm2d(channels * bands)

    def forward(self, x):
        n, c, f, t = x.shape
        return self.bn(x.view(n, c * self.bands, f // self.bands, t)).view(n, c, f, t)


class BroadcastBlock(nn.Module):
    """Frequency-wise depthwise convolution, mean over frequency, temporal convolution, broadcast back."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1, bands: int = 4) -> None:
        super().__init__()
        change = inputs != outputs
        first = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()] if change else []
        self.first, self.same = nn.Sequential(*first), not change
        self.frequency = nn.Conv2d(outputs, outputs, (3, 1), (stride, 1), (1, 0), groups=outputs, bias=False)
        self.norm = SubSpectralNorm(outputs, bands)
        self.time = nn.Sequential(
            nn.Conv2d(outputs, outputs, (1, 3), 1, (0, dilation), (1, dilation), groups=outputs, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 1),
            nn.Dropout2d(0.1),
        )

    def forward(self, x):
        y = self.norm(self.frequency(self.first(x)))
        z = self.time(y.mean(2, keepdim=True)) + y
        return F.relu(z + x if self.same else z)


class BcResNet(nn.Module):
    """BC-ResNet (Kim et al., 2021): keywords from [N, 1, 40, T] spectra."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 5, (2, 1), 2), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(
            BroadcastBlock(16, 8), BroadcastBlock(8, 8), BroadcastBlock(8, 12, 2, 2, 2), BroadcastBlock(12, 12, 1, 2, 2)
        )
        self.last = nn.Conv2d(12, 12, 5, padding=(0, 2), groups=12)
        self.wide = nn.Sequential(nn.Conv2d(12, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Conv2d(32, 12, 1)

    def forward(self, x):
        x = self.last(self.blocks(self.stem(x))).mean(2, keepdim=True)
        return self.head(self.wide(x).mean(3, keepdim=True)).flatten(1)


class DsCnn(nn.Module):
    """DS-CNN (Zhang et al., 2017): keywords from 49 frames of 40 bands."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 64, (5, 4), 2, (2, 1)), nn.BatchNorm2d(64), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64), nn.ReLU()]
            layers += [nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU()]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(64, 12)

    def forward(self, x):
        y = self.body(x)
        return self.fc(F.avg_pool2d(y, y.shape[2:]).flatten(1))


class Crnn(nn.Module):
    """Convolutions, an LSTM (or two layers of both directions) over the columns, a score per step for CTC (Shi et al., 2015)."""

    def __init__(self, both: bool = False, hidden: int = 24) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d((2, 1)),
        )  # fmt: skip
        self.rnn = nn.LSTM(8 * 3, hidden, 2 if both else 1, batch_first=True, bidirectional=both)
        self.fc = nn.Linear(hidden * (1 + both), 6)

    def forward(self, x):
        y = self.conv(x).permute(0, 3, 1, 2).flatten(2)
        return self.fc(self.rnn(y)[0])


class BiLstm(nn.Module):
    """Two layers of both directions over [N, T, 12] features."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


class Fsmn(nn.Module):
    """Feed-forward memory (Zhang et al., 2015): a depthwise filter over the past and future of hidden vectors."""

    def __init__(self, taps: int = 9) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(10, 16), nn.Linear(16, 10)
        self.memory = nn.Conv1d(16, 16, taps, padding=taps // 2, groups=16)

    def forward(self, x):
        y = F.relu(self.inner(x))
        return self.out(y + self.memory(y.transpose(1, 2)).transpose(1, 2))


class RnNoise(nn.Module):
    """RNNoise (Valin, 2018): voice activity, noise and gains from three GRUs over [N, T, 42] features."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(42, 12)
        self.voice, self.noise = nn.GRU(12, 8, batch_first=True), nn.GRU(62, 12, batch_first=True)
        self.denoise = nn.GRU(62, 16, batch_first=True)
        self.active, self.gains = nn.Linear(8, 1), nn.Linear(16, 22)

    def forward(self, x):
        dense = torch.tanh(self.dense(x))
        voice = self.voice(dense)[0]
        noise = self.noise(torch.cat([dense, voice, x], dim=-1))[0]
        gains = self.denoise(torch.cat([voice, noise, x], dim=-1))[0]
        return torch.sigmoid(self.gains(gains)), torch.sigmoid(self.active(voice))


class InstantLayerNorm(nn.Module):
    """DTLN's normalisation, written by hand, over the channels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).square().mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-7) * self.gamma + self.beta


class DtlnCore(nn.Module):
    """Two LSTMs and a mask."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.rnn1, self.rnn2 = (
            nn.LSTM(features, hidden, batch_first=True),
            nn.LSTM(hidden, hidden, batch_first=True),
        )
        self.drop, self.mask = nn.Dropout(0.25), nn.Linear(hidden, features)

    def forward(self, x):
        x = self.rnn2(self.drop(self.rnn1(x)[0]))[0]
        return torch.sigmoid(self.mask(x))


class Dtln(nn.Module):
    """DTLN (Westhausen, Meyer, 2020): a mask on magnitudes, back to samples, a mask on learned features, samples.

    Inputs: magnitudes and the cosine and sine of the phase, each [N, T, 17]. Output: frames of samples [N, T, 32].
    """

    def __init__(self, frame: int = 32, hidden: int = 16, features: int = 24) -> None:
        super().__init__()
        bins = frame // 2 + 1
        self.one, self.two = DtlnCore(bins, hidden), DtlnCore(features, hidden)
        angle = 2 * math.pi * torch.arange(bins)[:, None] * torch.arange(frame) / frame
        once = torch.full((bins, 1), 2.0 / frame)
        once[0] = once[-1] = 1.0 / frame  # bins without a mirror image
        self.register_buffer("cosines", angle.cos() * once)
        self.register_buffer("sines", -angle.sin() * once)
        self.encode, self.decode = nn.Conv1d(frame, features, 1, bias=False), nn.Conv1d(features, frame, 1, bias=False)
        self.norm = InstantLayerNorm(features)

    def forward(self, magnitude, cosine, sine):
        clean = magnitude * self.one(magnitude)
        frames = (clean * cosine) @ self.cosines + (clean * sine) @ self.sines
        code = self.encode(frames.transpose(1, 2)).transpose(1, 2)
        return self.decode((code * self.two(self.norm(code))).transpose(1, 2)).transpose(1, 2)
