"""What operators keep for backward: codes and bits, never floats (at most 2 bytes per operand element, 1/2 per result)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import linger


class Chain(nn.Module):
    """A layer that quantizes, then the operator under test."""

    def __init__(self, call, layer=None):
        super().__init__()
        self.first, self.call, self.layer = nn.Conv2d(4, 8, 3, padding=1), call, layer

    def forward(self, x):
        return self.call(self, self.first(x))


class Saved:
    """Bytes that autograd keeps inside the context, each storage once."""

    def __enter__(self):
        self.bytes = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda t: t)
        self.hooks.__enter__()
        return self

    def pack(self, t: Tensor) -> Tensor:
        self.bytes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    def __exit__(self, *_):
        self.hooks.__exit__(*_)

    @property
    def total(self):
        return sum(self.bytes.values())


CALLS = {
    "conv": (lambda m, x: m.layer(x), nn.Conv2d(8, 8, 3)),
    "pointwise": (lambda m, x: m.layer(x), nn.Conv2d(8, 3, 1)),
    "depthwise": (lambda m, x: m.layer(x), nn.Conv2d(8, 8, 3, groups=8)),
    "conv relu": (lambda m, x: torch.relu(m.layer(x)), nn.Conv2d(8, 8, 3)),
    "transposed": (lambda m, x: m.layer(x), nn.ConvTranspose2d(8, 8, 3)),
    "transposed strided": (lambda m, x: m.layer(x), nn.ConvTranspose2d(8, 8, 4, 4)),
    "transposed depthwise": (lambda m, x: m.layer(x), nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=8)),
    "linear": (lambda m, x: m.layer(x), nn.Linear(16, 16)),
    "add": (lambda m, x: x + x.flip(1), None),
    "add relu": (lambda m, x: F.relu(x + x), None),
    "relu": (lambda m, x: F.relu(x), None),
    "relu6": (lambda m, x: F.relu6(x), None),
    "in place": (lambda m, x: F.relu(x + x, inplace=True), None),
    "sub": (lambda m, x: x - x.flip(1), None),
    "mul": (lambda m, x: x * x.flip(1), None),
    "cat": (lambda m, x: torch.cat([x, x], 1), None),
}


@pytest.mark.parametrize("name", CALLS)
def test_saved_bytes(name: str) -> None:
    call, layer = CALLS[name]
    torch.manual_seed(0)
    x = torch.randn(2, 4, 16, 16)
    model = linger.init(Chain(call, layer), example_inputs=(x,)).train()
    model(x)
    tape: dict[str, Tensor] = {}
    first = model.call

    def around(m: nn.Module, q: Tensor) -> Tensor:
        with Saved() as saved:
            y = first(m, q)
        tape.update(x=q, y=y)
        tape["saved"] = torch.tensor(saved.total)
        return y

    model.call = around
    y = model(x)
    operands = tape["x"].numel() * (2 if name in ("sub", "mul", "add", "cat") else 1)
    operands += 0 if layer is None else sum(p.numel() for p in model.layer.parameters())
    assert int(tape["saved"]) <= 2 * operands + 0.5 * tape["y"].numel(), f"{int(tape['saved'])} bytes"
    y.sum().backward()


def test_saved_bytes_of_a_residual_network() -> None:
    """The whole of a small residual network: less than a third of the float model's."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.na, self.b, self.nb = (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)) * 2

        def forward(self, x):
            y = F.relu(self.na(self.a(x)))
            return F.relu(self.nb(self.b(y)) + x)

    torch.manual_seed(0)
    x = torch.randn(4, 8, 16, 16)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), Block(), Block())
    with Saved() as float_model:
        net(x)
    model = linger.init(net, example_inputs=(x,)).train()
    model(x)
    with Saved() as quantized:
        model(x)
    assert quantized.total < float_model.total / 3
