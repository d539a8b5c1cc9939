"""Operators under random shapes: torch's shape and a finite gradient, or a refusal in one sentence; under ASan no fault.

Two seconds here; ``make test-asan ASAN_TESTS=tests/fuzz LINGER_FUZZ_SECONDS=600`` looks longer, with the sanitizers.
"""

import os
import random
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger

SECONDS = float(os.environ.get("LINGER_FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("LINGER_FUZZ_SEED", "0"))
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33)


class Call(nn.Module):
    """An operator of user code on one or two tensors."""

    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, *xs):
        return self.func(*xs)


def conv(r, n):
    groups = r.choice((1, 1, 2, 3))
    c_in, c_out = groups * r.choice((1, 2, 5)), groups * r.choice((1, 3, 8))
    kernel = tuple(r.choice((1, 2, 3, 5)) for _ in range(n))
    options = {
        "stride": r.choice((1, 2, 3)),
        "padding": r.choice((0, 1, 2)),
        "groups": groups,
        "bias": r.random() < 0.7,
    }
    if r.random() < 0.3:
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d)[n - 1]
    else:
        kind, options["dilation"] = (nn.Conv1d, nn.Conv2d)[n - 1], r.choice((1, 1, 2))
    return kind(c_in, c_out, kernel, **options), [(r.choice((1, 2, 3)), c_in, *(r.choice(SIZES) for _ in range(n)))]


def linear(r):
    k = r.choice(SIZES)
    return nn.Linear(k, r.choice(SIZES), bias=r.random() < 0.7), [
        (*(r.choice(SIZES[:7]) for _ in range(r.choice((0, 1, 2)))), k)
    ]


def recurrent(r):
    k, kind = r.choice(SIZES), r.choice((nn.LSTM, nn.GRU))
    layer = kind(k, r.choice(SIZES), r.choice((1, 2)), batch_first=r.random() < 0.5, bidirectional=r.random() < 0.3)
    call = Call(lambda x: call.layer(x)[0])
    call.layer = layer
    return call, [(r.choice(SIZES[:8]), r.choice(SIZES[:8]), k)]


def norm(r):
    n = r.choice(SIZES)
    return nn.LayerNorm(n), [(r.choice(SIZES[:6]), r.choice(SIZES[:6]), n)]


def pool(r):
    kernel = r.choice((1, 2, 3))
    kind = r.choice((nn.AvgPool2d, nn.MaxPool2d))
    return kind(kernel, r.choice((1, 2)), ceil_mode=r.random() < 0.3), [
        (r.choice((1, 2)), r.choice(SIZES), *r.choices(SIZES[3:], k=2))
    ]


def pair(r):
    shape = [r.choice(SIZES) for _ in range(r.choice((1, 2, 3, 4)))]
    other = [1 if r.random() < 0.2 else s for s in shape][r.choice((0, 0, 1)) :]
    func = r.choice((torch.add, torch.sub, torch.mul, torch.maximum, lambda a, b: a + 2 * b))
    return Call(func), [tuple(shape), tuple(other)]


def joined(r):
    shape = [r.choice(SIZES) for _ in range(r.choice((2, 3, 4)))]
    axis = r.randrange(len(shape))
    other = [r.choice(SIZES) if i == axis else s for i, s in enumerate(shape)]
    return Call(lambda a, b: torch.cat((a, b), axis)), [tuple(shape), tuple(other)]


def product(r):
    b, m, k, n = (r.choice(SIZES) for _ in range(4))
    return Call(torch.matmul), [(b, m, k), (b, k, n)]


def curve(r):
    func = r.choice((torch.sigmoid, torch.tanh, F.gelu, F.silu, lambda x: torch.softmax(x, -1), lambda x: x.mean(-1)))
    return Call(func), [tuple(r.choice(SIZES) for _ in range(r.choice((1, 2, 3, 4))))]


MAKERS = {
    "conv1d": lambda r: conv(r, 1),
    "conv2d": lambda r: conv(r, 2),
    **{f.__name__: f for f in (linear, recurrent, norm, pool, pair, joined, product, curve)},
}


def attempt(maker, r):
    net, shapes = MAKERS[maker](r)
    if type(net).__module__.startswith("torch.nn"):
        net = nn.Sequential(net)
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(r.randrange(1 << 30))) for shape in shapes]
    try:
        want = net(*inputs)
    except RuntimeError:
        return  # torch refuses the shape
    chip = r.choice(("venus", "mars", "arcs", "venusA"))
    linger.settings.use(linger.settings.loads(f"platform: {chip}\n"))
    try:
        model = linger.init(net)
        xs = [x.requires_grad_() for x in inputs]
        y = model.train()(*xs)
        assert y.shape == want.shape
        if y.requires_grad:
            y.square().sum().backward()
            assert all(x.grad is None or bool(x.grad.isfinite().all()) for x in xs)
        assert model.eval()(*inputs).shape == want.shape
    except (linger.UnsupportedError, ValueError) as error:
        assert str(error) and "\n\n" not in str(error)


@pytest.mark.filterwarnings("ignore")
def test_operators_of_random_shapes():
    r, before = random.Random(SEED), linger.settings.current()
    end, runs, makers = time.monotonic() + SECONDS, 0, list(MAKERS)
    try:
        while time.monotonic() < end or runs < len(makers):
            maker = makers[runs % len(makers)]
            state = r.getstate()
            try:
                attempt(maker, r)
            except Exception as error:
                r.setstate(state)
                made = MAKERS[maker](r)
                raise AssertionError(f"{maker}, seed {SEED}, run {runs}: {made[0]} on {made[1]}") from error
            runs += 1
    finally:
        linger.settings.use(before)
