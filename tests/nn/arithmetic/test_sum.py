"""Sums over axes, on every chip, from module to file."""

import pytest
import torch
from torch import nn

import linger
from linger.runtime import SPELLINGS, is_quantized, islands_of, resolve
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Linear(6, 5)

    def forward(self, x):
        x = self.a(x)
        y = self.b(x.sum(2)) - torch.sum(x, (2, 3), keepdim=True).squeeze(-1)
        y = y * x.sum(dim=1)[:, :4, :5]
        return y.sum(-1).sum(axis=1, keepdim=True)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_sums(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Sums(), batches((3, 5, 6)), tmp_path, platform, method)
    assert (
        nodes.count("LinearInt") + nodes.count("Conv2dInt") == 6 + 1
    )  # the layer; sums over rows are 1x1 ones on some chips
    assert "ReduceSum" not in nodes


@pytest.mark.parametrize("spelling", SPELLINGS["sum"])
@pytest.mark.parametrize("dim", [1, -1, (1, 2), [2]])
@pytest.mark.parametrize("keepdim", [False, True])
def test_spellings_and_shapes(spelling, dim, keepdim):
    func = resolve(spelling)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return func(self.a(x), dim, keepdim)

    torch.manual_seed(0)
    model = linger.init(Net())
    x = torch.randn(3, 5, 4, requires_grad=True)
    with linger.calibration(model):
        calibrated = model(x)
    for _ in range(30):
        y = model(x)
    want = model.a(x).sum(dim, keepdim)
    assert is_quantized(y)
    assert calibrated.shape == y.shape == want.shape
    assert torch.isclose(y, want, atol=0.2, rtol=0.1).sum() >= y.numel() * 2 // 3  # the largest may saturate
    y.sum().backward()
    assert x.grad.abs().sum() > 0


def test_what_stays_in_float():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            y = self.a(x)
            return y.sum(), y.sum(0), y.sum(1, dtype=torch.float64)

    model = linger.init(Net())
    model(torch.randn(2, 4))
    assert {i.operator for i in islands_of(model)} == {"sum"}
