"""Networks as users write them; each must give the same integers in train (frozen), eval and the exported file."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.nn.zoo_gates import GATES
from tests.nn.zoo_nets import NETS


class ConvNet(nn.Module):
    """Conv+BN+ReLU, residual, depthwise, pools, flatten."""

    shape = (1, 12, 12)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.2)
        self.fc = nn.Linear(8 * 9, 10)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.bn(self.point(self.depthwise(x))))
        x = F.avg_pool2d(self.pool(x), 2)
        return self.fc(self.drop(x.view(x.size(0), -1)))


class Relu6Net(nn.Module):
    """ReLU6 after convolution and linear, global pooling by mean."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.act, self.fc, self.head = nn.ReLU6(), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.act(self.b(F.relu6(self.a(x))))
        return self.head(F.relu6(self.fc(x.mean([2, 3]))))


class Sequence1d(nn.Module):
    """1-D convolutions (dilated, depthwise), 1-D pools, permute, a linear layer on every step, slices."""

    shape = (6, 20)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(6, 8, 5, padding=2)
        self.b = nn.Conv1d(8, 8, 3, padding=2, dilation=2)
        self.c = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.pool, self.relu = nn.MaxPool1d(2), nn.ReLU(inplace=True)
        self.fc, self.out = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.a(x))
        x = self.relu(self.b(x) + x)
        x = F.avg_pool1d(self.pool(self.c(x)), 2)
        x = self.fc(x.permute(0, 2, 1)).transpose(1, 2)
        first, second = x[:, :, 1:3].chunk(2, dim=-1)
        both = (first + second).squeeze(-1)
        return self.out(torch.flatten(torch.unsqueeze(x[..., -1], 1) + both[:, None], 1))


class Paddings(nn.Module):
    """Reflection, replication and circular padding, in 1-D and 2-D."""

    shape = (2, 9, 10)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=(1, 1), padding_mode="reflect")
        self.b = nn.Conv2d(4, 4, (3, 3), padding=1, padding_mode="replicate")
        self.c = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), padding_mode="circular")
        self.d = nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect")

    def forward(self, x):
        x = self.c(F.relu(self.b(self.a(x))))
        return self.d(x.flatten(2))


class Shapes(nn.Module):
    """Shape operators in many spellings between layers; nothing may fall out of the integers."""

    shape = (4, 6, 8)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        x = self.a(x)
        x = x.swapaxes(2, 3).contiguous().transpose(-1, -2)
        x = torch.permute(x, (0, 2, 3, 1)).movedim(-1, 1)
        x = x.reshape(x.shape[0], 4, -1).view(-1, 4, 6, 8).clone()
        x = self.b(x)[:, :, 1:, ...]
        left, right = torch.split(x, [3, 5], dim=3)
        x = left[..., :3] + right.narrow(3, 0, 3)
        y = x.unsqueeze(1).squeeze(1).select(2, 1)
        one, *_ = torch.unbind(y, 1)
        z = y.flatten(1).unflatten(1, (4, 3)).mT.to(torch.float32).float()
        return self.fc(torch.flatten(x, 1)[:, :8]), z, one[:, None]


class Two(nn.Module):
    """Two inputs, two outputs, a shared layer and a module used twice."""

    shape = (5,)
    inputs = 2

    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(5, 7)
        self.alias = self.enc
        self.inner = nn.Sequential(nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 7))
        self.out = nn.Linear(7, 2)

    def forward(self, x, y):
        a, b = self.enc(x), self.alias(y)
        a = self.inner(self.inner(a)) + a
        return {"sum": self.out(a + b), "first": a}


class PreActivation(nn.Module):
    """BatchNorms that stand alone, on every rank; one with a ReLU behind it, one without parameters."""

    shape = (3, 6, 8)

    def __init__(self):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 1)
        self.bn3, self.fc, self.bn4 = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None)

    def forward(self, x):
        x = self.conv1(F.relu(self.bn1(x)))
        x = self.conv2(self.bn2(x) + x) + x
        x = self.bn3(x.flatten(2)).mean(2)
        return self.bn4(self.fc(x) + x)


class UpSample(nn.Module):
    """Transposed convolutions: stride, output padding, output_size, a kernel below its stride, BatchNorm and ReLU behind, 1-D."""

    shape = (3, 5, 6)

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.up2 = nn.ConvTranspose2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0))
        self.up3 = nn.ConvTranspose2d(4, 2, 1, stride=2)
        self.up4 = nn.ConvTranspose1d(2, 3, 5, stride=2, padding=3)

    def forward(self, x):
        x = F.relu(self.bn(self.up1(self.down(x))))
        x = torch.relu(self.up2(x))
        x = self.up3(x, output_size=[2 * x.shape[2], 2 * x.shape[3] - 1])
        return self.up4(x.flatten(2))


class Words(nn.Module):
    """An embedding, its sum with a projection, and a linear layer."""

    shape = (6,)
    integers = 11

    def __init__(self):
        super().__init__()
        self.table, self.project, self.out = nn.Embedding(11, 8, padding_idx=0), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        e = self.table(x)
        return self.out(torch.relu(self.project(e) + e))


_SPELLED = (ConvNet, Relu6Net, Sequence1d, Paddings, Shapes, Two, PreActivation, UpSample, Words)
ZOO = {cls.__name__: cls for cls in (*_SPELLED, *NETS, *GATES)}
# A network may say: refused = {platform: text of the export error}, islands = {platform: operators that run in float}


def batch(cls, n=2, seed=0):
    """Inputs of a zoo network."""
    generator = torch.Generator().manual_seed(seed)
    if hasattr(cls, "integers"):
        return (torch.randint(0, cls.integers, (n, *cls.shape), generator=generator),)
    shapes = getattr(cls, "shapes", None) or (cls.shape,) * getattr(cls, "inputs", 1)
    return tuple(torch.randn(n, *shape, generator=generator) for shape in shapes)


def tensors(result):
    """Tensors of a result in the order in which they are exported."""
    if isinstance(result, torch.Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else result
    return [t for v in values for t in tensors(v)]
