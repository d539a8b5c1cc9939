"""The layers that model libraries write for themselves, as timm and peft have them, each in a small net."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class BatchNormAct2d(nn.BatchNorm2d):
    """A BatchNorm whose forward calls the function and then an activation."""

    def __init__(self, channels: int, apply_act: bool = True, act_layer: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act_layer() if apply_act else nn.Identity()

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return self.act(self.drop(x))


class Conv2dSame(nn.Conv2d):
    """TensorFlow's padding: computed from the input's size, more of it at the end."""

    def forward(self, x):
        sides = []
        for size, k, s, d in zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True):
            pad = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            sides = [pad // 2, pad - pad // 2, *sides]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class StdConv2d(nn.Conv2d):
    """The weight is standardised in every forward (NF-Nets, BiT)."""

    def forward(self, x):
        mean, var = self.weight.mean((1, 2, 3), keepdim=True), self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(var + 1e-6)
        return F.conv2d(x, weight * 0.1, self.bias, self.stride, self.padding, self.dilation, self.groups)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map (ConvNeXt)."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class LoraLinear(nn.Linear):
    """A frozen layer and a low-rank correction that starts at zero (Hu et al., 2021)."""

    def __init__(self, inputs: int, outputs: int, rank: int = 2, alpha: float = 4.0) -> None:
        super().__init__(inputs, outputs)
        self.lora_a, self.lora_b = (
            nn.Parameter(torch.randn(rank, inputs) * 0.3),
            nn.Parameter(torch.zeros(outputs, rank)),
        )
        self.scaling = alpha / rank
        self.weight.requires_grad_(False)

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        return y + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scaling


class DropPath(nn.Module):
    """A residual branch that rests for some samples while training."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = p

    def forward(self, x):
        if self.p == 0.0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)


class SelectAdaptivePool2d(nn.Module):
    """timm's pooling in front of the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten(1)

    def forward(self, x):
        return self.flatten(self.pool(x))


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite as timm has it: BatchNormAct2d, Conv2dSame, DropPath."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = Conv2dSame(3, 8, 3, 2, bias=False), BatchNormAct2d(8, act_layer=nn.ReLU6)
        self.conv_pw, self.bn2 = nn.Conv2d(8, 24, 1, bias=False), BatchNormAct2d(24, act_layer=nn.ReLU6)
        self.conv_dw = Conv2dSame(24, 24, 5, 2, groups=24, bias=False)
        self.bn3, self.conv_pwl = BatchNormAct2d(24, act_layer=nn.ReLU6), nn.Conv2d(24, 12, 1, bias=False)
        self.bn4, self.again = BatchNormAct2d(12, apply_act=False), nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.bn5, self.drop_path = BatchNormAct2d(12, apply_act=False), DropPath()
        self.global_pool, self.classifier = SelectAdaptivePool2d(), nn.Linear(12, 6)

    def forward(self, x):
        x = self.bn2(self.conv_pw(self.bn1(self.conv_stem(x))))
        x = self.bn4(self.conv_pwl(self.bn3(self.conv_dw(x))))
        x = x + self.drop_path(self.bn5(self.again(x)))
        return self.classifier(self.global_pool(x))


class ConvNeXt(nn.Module):
    """ConvNeXt's block (Liu et al., 2022): depthwise 7x7, LayerNorm, GELU, a scale per channel that starts small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 4, 4), LayerNorm2d(8)
        self.conv_dw, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
        self.fc1, self.act, self.fc2 = nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)
        self.gamma, self.drop_path = nn.Parameter(torch.full((8,), 0.1)), DropPath()
        self.global_pool, self.head_norm, self.head = nn.AdaptiveAvgPool2d(1), LayerNorm2d(8), nn.Linear(8, 6)

    def forward(self, x):
        x = self.stem_norm(self.stem(x))
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        y = self.fc2(self.act(self.fc1(y))).mul(self.gamma).permute(0, 3, 1, 2)
        x = x + self.drop_path(y)
        return self.head(self.head_norm(self.global_pool(x)).flatten(1))


class Lora(nn.Module):
    """Two corrected layers on features that rest."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = LoraLinear(12, 16), LoraLinear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.one(x))
        return self.head(x + self.two(x))


class NfNet(nn.Module):
    """Standardised weights instead of BatchNorm, activations with a gain, a residual with a learned gain of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = StdConv2d(3, 8, 3, 2, 1), StdConv2d(8, 8, 3, 1, 1), StdConv2d(8, 8, 3, 1, 1)
        self.gain, self.head = nn.Parameter(torch.zeros(())), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.stem(x)) * 1.7
        y = self.two(F.relu(self.one(x)) * 1.7) * self.gain
        return self.head((x + y).mean((2, 3)))


class TiedHead(nn.Module):
    """A decoder on its encoder's transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.bias = nn.Linear(12, 6), nn.Parameter(torch.zeros(12))

    def forward(self, x):
        return F.linear(F.relu(self.encode(x)), self.encode.weight.t(), self.bias)


class GhostModule(nn.Module):
    """GhostNet's half of cheap features (Han et al., 2020), cut to the wanted number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.cheap = nn.Sequential(
            nn.Conv2d(5, 5, 3, 1, 1, groups=5, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(9, 5)

    def forward(self, x):
        one = self.primary(x)
        x = torch.cat([one, self.cheap(one)], dim=1)[:, :9, :, :]
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class MobileOne(nn.Module):
    """MobileOne's branches (Vasu et al., 2022): a scale branch and copies of the convolution, summed in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.identity, self.scale = nn.BatchNorm2d(3), self._branch(1)
        self.copies = nn.ModuleList(self._branch(3) for _ in range(3))
        self.act, self.head = nn.ReLU(), nn.Conv2d(3, 5, 1)

    @staticmethod
    def _branch(kernel: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 3, kernel, padding=kernel // 2, groups=3, bias=False), nn.BatchNorm2d(3))

    def forward(self, x):
        y = self.identity(x) + self.scale(x)
        for branch in self.copies:
            y += branch(x)
        return self.head(self.act(y)).mean((2, 3))
