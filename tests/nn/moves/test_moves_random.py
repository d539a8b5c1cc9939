"""Random chains of moves, poolings and paddings: training, eval and file give the same integers, on every chip."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of
from tests.nn.same import PLATFORMS

INF = float("inf")


def _axis(g, x):
    return int(g.integers(1, x.dim()))


def _permute(g, x):
    perm = [0, *(1 + g.permutation(x.dim() - 1)).tolist()]
    return lambda x: x.permute(perm)


def _regroup(g, x):
    axis = _axis(g, x)
    size = x.shape[axis]
    parts = [d for d in range(1, size + 1) if size % d == 0]
    part = int(g.choice(parts))
    if x.dim() < 5:
        return lambda x: x.unflatten(axis, (part, size // part))
    return lambda x: x.flatten(x.dim() - 2)


def _slices(g, x):
    axis = _axis(g, x)
    start, step = int(g.integers(0, x.shape[axis])), int(g.integers(1, 4))
    return lambda x: x[(slice(None),) * axis + (slice(start, None, step),)]


def _rows(g, x):
    axis = _axis(g, x)
    rows = g.integers(0, x.shape[axis], int(g.integers(1, 6))).tolist()
    return lambda x: x[(slice(None),) * axis + (rows,)]


def _copies(g, x):
    axis = _axis(g, x)
    kind = int(g.integers(4))
    shift = int(g.integers(1, 4))
    return lambda x: (
        x.flip(axis),
        x.roll(shift, axis),
        x.repeat_interleave(2, axis),
        x.repeat([2 if a == axis else 1 for a in range(x.dim())]),
    )[kind]


def _pad(g, x):
    k = int(g.integers(1, min(x.dim(), 4)))
    pads = [int(v) for v in g.integers(0, 3, 2 * k)]
    fill = [0.0, 0.0, 0.3, -1.7, -INF][int(g.integers(5))]
    return lambda x: F.pad(x, pads, value=fill)


def _pool(g, x):
    if x.dim() != 4:
        return _permute(g, x)
    kernel = [int(g.integers(1, s + 1)) if s < 6 else int(g.integers(1, 7)) for s in x.shape[2:]]
    stride = [int(g.integers(1, 4)) for _ in kernel]
    pad = [int(g.integers(0, k // 2 + 1)) for k in kernel]
    ceil, include, average = (bool(v) for v in g.integers(0, 2, 3))
    if average:
        return lambda x: F.avg_pool2d(x, kernel, stride, pad, ceil, include)
    return lambda x: F.max_pool2d(x, kernel, stride, pad, 1, ceil)


def _reduce(g, x):
    if x.dim() < 4:
        return _copies(g, x)
    axes = sorted(int(a) for a in g.choice(np.arange(1, x.dim()), int(g.integers(1, 3)), replace=False))
    if g.integers(2):
        return lambda x: x.mean(axes, keepdim=True)
    return lambda x: x.amax(axes, keepdim=True)


def _adaptive(g, x):
    if x.dim() not in (3, 4):
        return _regroup(g, x)
    sizes = [int(v) for v in g.integers(1, 7, x.dim() - 2)]
    average = bool(g.integers(2))
    if x.dim() == 3:
        return lambda x: (F.adaptive_avg_pool1d if average else F.adaptive_max_pool1d)(x, sizes)
    return lambda x: (F.adaptive_avg_pool2d if average else F.adaptive_max_pool2d)(x, sizes)


STEPS = [_permute, _permute, _regroup, _slices, _rows, _copies, _pad, _pool, _pool, _reduce, _adaptive]


class Chain(nn.Module):
    def __init__(self, seed):
        super().__init__()
        g = np.random.default_rng(seed)
        shape = [int(v) for v in (g.integers(2, 7), g.integers(3, 9), g.integers(3, 9))]
        self.layer, self.shape, self.steps = nn.Conv2d(2, shape[0], 1), (2, *shape[1:]), []
        x = torch.zeros(1, *shape)
        for _ in range(int(g.integers(2, 6))):
            step = STEPS[int(g.integers(len(STEPS)))](g, x)
            y = step(x)
            if y.numel() and y.numel() < 4000 and y.dim() < 6:
                self.steps.append(step)
                x = y

    def forward(self, x):
        x = self.layer(x)
        for step in self.steps:
            x = step(x)
        return x


def _check(seed, tmp_path):
    torch.manual_seed(seed)
    net = Chain(seed)
    shape = net.shape
    path = tmp_path / "config.yaml"
    path.write_text(f"platform: {PLATFORMS[seed % 4]}\n")
    model = linger.init(net, str(path))
    x = torch.randn(1, *shape, requires_grad=True)
    for _ in range(2):
        model(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert islands_of(model) == []
    with torch.no_grad():
        want = model.eval()(x)
        linger.freeze_statistics(model)
        assert torch.equal(model.train()(x), want)
    model.eval()
    linger.onnx.export(model, x.detach(), tmp_path / "m.onnx")
    (codes,) = OnnxRunner(tmp_path / "m.onnx").run(x.detach(), integers=True).values()
    scale = info(want).scale
    assert np.array_equal(codes, (want * scale).round().to(torch.int64).numpy())


@pytest.mark.parametrize("seed", range(60))
def test_chains_of_moves(seed, tmp_path):
    _check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 1100, 50))
def test_many_chains_of_moves(first, tmp_path):
    for seed in range(first, first + 50):
        _check(seed, tmp_path)
