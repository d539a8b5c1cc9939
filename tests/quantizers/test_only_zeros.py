"""Ranges that were all zero: what starts at zero trains, whatever the method, the branch and the checkpoint."""

import copy
import math

import numpy as np
import pytest
import torch
from quantizers_seen import METHODS, range_of
from torch import nn
from torch.nn import functional as F

import linger
from linger.quantizers import Quantizer, calibration


def at_floor(method):
    quantizer = Quantizer(8, method=method).train()
    with calibration():
        quantizer.observe_calibration(torch.zeros(20))
    return quantizer


@pytest.mark.parametrize("peak", [2e-6, 0.003, 0.7, 5.0, 90.0])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loaded", [False, True])
def test_the_first_real_range_replaces_zeros(method, peak, loaded):
    quantizer = at_floor(method)
    assert float(quantizer.scale) == 2.0**23
    if loaded:
        fresh = Quantizer(8, method=method).train()
        fresh.load_state_dict(copy.deepcopy(quantizer.state_dict()))
        quantizer = fresh
    x = torch.tensor([peak, -peak / 3])
    quantizer(torch.zeros(3))
    assert float(quantizer.scale) == 2.0**23
    out = quantizer(x)
    quantizer.state_dict()
    assert range_of(quantizer) == pytest.approx(peak, rel=1e-5)
    assert float(out.scale) == float(quantizer.scale) == min(2.0 ** (7 - round(math.log2(peak))), 2.0**23)


def test_after_the_first_real_range_mom_averages():
    quantizer, running = at_floor("MOM"), None
    for m in [0.5, 0.7, 0.6, 0.9, 0.0, 9.0]:
        quantizer(torch.tensor([m]))
        m = np.float32(max(m, 1e-6))
        running = m if running is None else np.float32(0.9) * running + np.float32(0.1) * m
        assert float(quantizer.running_data) == float(running)
    assert int(quantizer.is_init) == 1


@pytest.mark.parametrize("method", METHODS)
def test_zeros_after_real_data_are_averaged(method):
    quantizer = Quantizer(8, method=method).train()
    quantizer(torch.tensor([4.0]))
    before = range_of(quantizer)
    quantizer(torch.zeros(2))
    want = float(np.float32(0.9) * np.float32(4) + np.float32(0.1) * np.float32(1e-6)) if method == "MOM" else before
    assert range_of(quantizer) == want


class Lora(nn.Module):
    """A frozen layer and a product of two small ones, the second of which starts at zero."""

    def __init__(self, n, m):
        super().__init__()
        self.base = nn.Linear(n, m).requires_grad_(False)
        self.a, self.b = nn.Linear(n, 4, bias=False), nn.Linear(4, m, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Residual(nn.Module):
    """A branch whose last layer starts at zero."""

    def __init__(self, n, m):
        super().__init__()
        self.base, self.up, self.down = nn.Linear(n, m).requires_grad_(False), nn.Linear(n, 16), nn.Linear(16, m)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x):
        return self.base(x) + self.down(F.relu(self.up(x)))


class Gate(nn.Module):
    """A branch behind a gate that is closed at first (ReZero)."""

    def __init__(self, n, m):
        super().__init__()
        self.base, self.branch = nn.Linear(n, m).requires_grad_(False), nn.Linear(n, m)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.base(x) + self.gate * self.branch(x)


class Controlled(nn.Module):
    """A 1x1 convolution that starts at zero (ControlNet)."""

    def __init__(self, n, m):
        super().__init__()
        self.base, self.up = nn.Linear(n, m).requires_grad_(False), nn.Conv2d(n, 8, 1)
        self.zero = nn.Conv2d(8, m, 1)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, x):
        return self.base(x) + self.zero(F.relu(self.up(x[:, :, None, None]))).flatten(1)


class Added(nn.Module):
    """A table that starts at zero (position embeddings)."""

    def __init__(self, n, m):
        super().__init__()
        self.base, self.table = nn.Linear(n, m).requires_grad_(False), nn.Parameter(torch.zeros(64, m))

    def forward(self, x):
        return self.base(x) + self.table


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("branch", [Lora, Residual, Gate, Controlled, Added])
def test_a_branch_that_starts_at_zero_trains(branch, method, tmp_path):
    """All that trains is behind zeros. Without their replacement, or with averages alone, the loss stands still."""
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: venusA\nquant_info: {{qat_method: {method}}}\n")
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    wanted = torch.tanh(2 * x[:, :4] + x[:, 4:])
    model = linger.init(branch(8, 4), str(config))
    with linger.calibration(model):
        model(x)
    optimizer = torch.optim.Adam([p for p in model.train().parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0], (losses[0], losses[-1])
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        want = model.eval()(x)
    again = linger.init(branch(8, 4), str(config))
    again(x)
    again.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), want)
