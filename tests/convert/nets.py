"""Small networks and helpers of the conversion tests."""

import torch
from torch import nn


class Net(nn.Module):
    """Conv+BN+ReLU, a residual `+`, Linear+BN: everything a fusion has to find."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8, eps=1e-3)
        self.relu = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 10)
        self.norm = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = torch.relu(x + self.body(x))
        return self.head(self.norm(self.fc(x.mean((2, 3)))))


class Plain(nn.Module):
    """No BatchNorm, no functional operator."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
        self.classifier = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x):
        return self.classifier(self.encoder(self.relu(self.conv(x)).mean((2, 3))))


class Dynamic(nn.Module):
    """Control flow on values: nothing can be read without running it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return x if x.sum() > 0 else -x


def images(n=4, seed=0):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def warm(model, seed=0, steps=4):
    """Give the BatchNorms statistics and affine parameters that matter."""
    torch.manual_seed(seed)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine:
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)
    with torch.no_grad():
        for i in range(steps):
            model(images(8, i))
    return model


def trained(cls=Net, seed=0):
    torch.manual_seed(seed)
    return warm(cls(), seed)


def no_limits(model):
    """Switch every clamp of a constrained model off."""
    for m in model.modules():
        if hasattr(m, "normalize_data"):
            m.normalize_data = m.normalize_weight = m.normalize_bias = m.normalize_factor = None
    return model
