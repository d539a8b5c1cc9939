"""Random chains of element-wise operators, numbers and parameters: the same integers in training, eval and file."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linger.nn import requant
from tests.nn.same import PLATFORMS, assert_same_everywhere

SHAPES = [(3, 4, 5), (4, 6), (7,), (2, 3, 4, 2)]
NUMBERS = [1.0, -0.37, 3, 0.001, 64.0, -100.0]


def in_place(x, y):
    x /= 4
    x += y
    return x


# name -> x, another tensor of its shape, a number, a parameter that broadcasts with them
STEPS = {
    "x + c": lambda x, y, c, p: x + c,
    "x - c": lambda x, y, c, p: x - c,
    "c - x": lambda x, y, c, p: c - x,
    "x * c": lambda x, y, c, p: x * c,
    "x / c": lambda x, y, c, p: x / c,
    "x + p": lambda x, y, c, p: x + p,
    "x - p": lambda x, y, c, p: x - p,
    "p - x": lambda x, y, c, p: p - x,
    "x * p": lambda x, y, c, p: x * p,
    "x + y": lambda x, y, c, p: x + y,
    "x - y": lambda x, y, c, p: x - y,
    "x * y": lambda x, y, c, p: x * y,
    "alpha": lambda x, y, c, p: torch.sub(x, y, alpha=0.3),
    "in place": lambda x, y, c, p: in_place(x, y),
    "broadcast": lambda x, y, c, p: x * y.narrow(x.dim() - 1, 0, 1),
    "sum": lambda x, y, c, p: x - x.sum(-1, keepdim=True),
    "leaky_relu": lambda x, y, c, p: F.leaky_relu(x, 0.2),
    "prelu": lambda x, y, c, p: F.prelu(x, p.reshape(-1)[:1]),
    "clamp": lambda x, y, c, p: x.clamp(-0.6, abs(c)),
    "abs": lambda x, y, c, p: abs(x),
    "hardswish": lambda x, y, c, p: F.hardswish(x),
    "hardsigmoid": lambda x, y, c, p: F.hardsigmoid(x),
    "-x": lambda x, y, c, p: -x,
    "x ** 2": lambda x, y, c, p: x**2,
    "requant": lambda x, y, c, p: requant(x),
}


class Chain(nn.Module):
    """Two linear layers, then 2 to 6 steps; its text is the program."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        self.shape = rng.choice(SHAPES)
        self.a, self.b = (nn.Linear(self.shape[-1], self.shape[-1]) for _ in range(2))
        self.names = [rng.choice(list(STEPS)) for _ in range(rng.randint(2, 6))]
        self.numbers = [rng.choice(NUMBERS) for _ in self.names]
        self.parameters_of = nn.ParameterList(self._parameter(rng) for _ in self.names)

    def _parameter(self, rng):
        sizes = [1, *(n if rng.random() < 0.5 else 1 for n in self.shape)]
        sizes = [] if rng.random() < 0.2 else sizes[rng.randint(0, len(sizes) - 1) :]
        return nn.Parameter(torch.randn(sizes) * rng.choice([0.1, 1, 4]))

    def forward(self, x):
        x = self.a(x)
        y = self.b(x)
        for name, number, parameter in zip(self.names, self.numbers, self.parameters_of, strict=True):
            x = STEPS[name](x, y, number, parameter)
        return x

    def extra_repr(self):
        return f"{self.shape}: " + ", ".join(
            f"{n} {c} {tuple(p.shape)}" for n, c, p in zip(self.names, self.numbers, self.parameters_of, strict=True)
        )


def run(seed, tmp_path):
    torch.manual_seed(seed)
    net = Chain(seed)
    batches = [(torch.randn(1, *net.shape),) for _ in range(3)]
    assert_same_everywhere(net, batches, tmp_path, PLATFORMS[seed % 4], ["MOM", "TQT"][seed // 4 % 2])


@pytest.mark.parametrize("seed", range(40))
def test_random_chains(seed, tmp_path):
    run(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 200))
def test_many_random_chains(first, tmp_path):
    for seed in range(first, first + 200):
        run(seed, tmp_path)
