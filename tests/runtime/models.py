"""Small networks that call functional operators in ways that must not be confused."""

import torch
from torch import nn
from torch.nn import functional as F


class TwoAdds(nn.Module):
    """Two sums in one line, and one in a loop."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        a = self.a(x)
        y = a + self.b(a) + self.c(a)
        for _ in range(2):
            y = y + a
        return y


class Branch(nn.Module):
    """A sum that only some inputs reach, before one that all reach."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, extra=False):
        a = self.a(x)
        if extra:
            a = a + self.b(x)
        return a + self.b(a)


def helper(x, y):
    """One line, several callers."""
    return x + y


class Helper(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        a = self.a(x)
        b = helper(a, self.b(x))
        return helper(b, a)


class Residual(nn.Module):
    def __init__(self, spelling="+"):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)
        self.spelling = spelling

    def forward(self, x):
        a = F.relu(self.conv1(x))
        b = self.conv2(a)
        if self.spelling == "torch":
            b = torch.add(b, a)
        elif self.spelling == "in-place":
            b += a
        elif self.spelling == "method":
            b = b.add(other=a)
        else:
            b = b + a
        b = F.max_pool2d(torch.relu(b), 2)
        return self.fc(b.mean((2, 3)))
