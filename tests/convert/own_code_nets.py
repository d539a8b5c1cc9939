"""Subclasses of torch's layers whose own code calls the layer's function, and small nets of them."""

import torch
import torch.nn.functional as F
from torch import nn


class NormAct(nn.BatchNorm2d):
    """As written out in many model zoos: the code of torch, then drop and activation."""

    def __init__(self, width):
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected 4D input")
        average = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                average = 1.0 / float(self.num_batches_tracked)
        batch = True if self.training else self.running_mean is None and self.running_var is None
        x = F.batch_norm(
            x,
            self.running_mean if not self.training or self.track_running_stats else None,
            self.running_var if not self.training or self.track_running_stats else None,
            self.weight,
            self.bias,
            batch,
            average,
            self.eps,
        )
        return self.act(self.drop(x))


class NormSilu(nn.BatchNorm2d):
    def __init__(self, width):
        super().__init__(width)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(super().forward(x))


class NormCounts(nn.BatchNorm2d):
    """Counts batches without asking whether there is a counter."""

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


class NormRelu(nn.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


class SameConv(nn.Conv2d):
    """Pads as another framework does, then convolves without padding."""

    def forward(self, x):
        x = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class CausalConv(nn.Conv1d):
    def forward(self, x):
        return super().forward(F.pad(x, (2, 0)))


class ConvRelu(nn.Conv2d):
    def forward(self, x):
        return torch.relu(self._conv_forward(x, self.weight, self.bias))


class LinearRelu(nn.Linear):
    def forward(self, x):
        return super().forward(x).relu()


class LowRank(nn.Linear):
    def __init__(self, n, out, rank=2):
        super().__init__(n, out)
        self.down, self.up = nn.Parameter(torch.randn(rank, n) / 4), nn.Parameter(torch.randn(out, rank) / 4)

    def forward(self, x):
        return F.linear(x, self.weight, bias=self.bias) + F.linear(F.linear(x, self.down), self.up)


IMAGE, ROWS, SOUND = (4, 3, 8, 8), (8, 6), (4, 3, 12)
OWN = {
    "norm": (lambda: [nn.Conv2d(3, 8, 3, bias=False), NormAct(8), nn.Conv2d(8, 2, 1)], IMAGE),
    "norm, silu": (lambda: [nn.Conv2d(3, 8, 3), NormSilu(8), nn.Conv2d(8, 2, 1)], IMAGE),
    "norm, counts": (lambda: [nn.Conv2d(3, 8, 3), NormCounts(8), nn.ReLU(), nn.Conv2d(8, 2, 1)], IMAGE),
    "norm, super": (lambda: [nn.Conv2d(3, 8, 3), NormRelu(8), nn.Conv2d(8, 2, 1)], IMAGE),
    "norm alone": (lambda: [nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), NormAct(8), nn.Conv2d(8, 2, 1)], IMAGE),
    "conv": (lambda: [SameConv(3, 8, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)], IMAGE),
    "both": (lambda: [SameConv(3, 8, 2), NormAct(8), SameConv(8, 4, 2, stride=2), NormRelu(4)], IMAGE),
    "conv1d": (lambda: [CausalConv(3, 8, 3), nn.BatchNorm1d(8), CausalConv(8, 2, 3)], SOUND),
    "conv, relu": (lambda: [ConvRelu(3, 8, 3), ConvRelu(8, 2, 1)], IMAGE),
    "linear": (lambda: [LinearRelu(6, 8), nn.Dropout(0.0), LinearRelu(8, 4)], ROWS),
    "linear, norm": (lambda: [LowRank(6, 8), nn.ReLU(), LowRank(8, 8)], ROWS),
}


def trained(kind):
    make, shape = OWN[kind]
    torch.manual_seed(0)
    m, x = nn.Sequential(*make()).train(), torch.randn(shape)
    for _ in range(3):
        m(x)
    return m, x
