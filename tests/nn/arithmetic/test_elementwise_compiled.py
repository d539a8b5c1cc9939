"""Compiled models compute the same integers: numbers, broadcasts, activations and sums, forward and backward."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.nn import requant

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(6, 6)
        self.gain, self.shift, self.rows = (nn.Parameter(torch.rand(s)) for s in ((1, 4, 1, 1), (), (5, 6)))
        self.prelu, self.swish, self.hard = nn.PReLU(4), nn.Hardswish(), nn.Hardsigmoid()

    def forward(self, x):
        x = 0.5 - (self.a(x) + 1.0)
        x = x * self.gain + self.shift
        x /= 3
        x = self.prelu(torch.add(x, x / 4, alpha=0.5))
        x = self.swish(F.leaky_relu(x, 0.1)) * self.hard(x)
        x = x.clamp(-0.5, 0.7) + self.rows
        x = -(torch.abs(x) - x**2)
        x = x * x.mean((2, 3), keepdim=True)
        return requant(self.fc(x.sum(2) + x.sum(1)[:, :4]))


def test_compiled_and_exported_models_give_the_same_integers():
    torch.manual_seed(0)
    model = linger.init(Net(), example_inputs=torch.randn(1, 3, 5, 6))
    for _ in range(3):
        model(torch.randn(2, 3, 5, 6))
    linger.freeze_statistics(model)
    x = torch.randn(2, 3, 5, 6)

    def run(call):
        model.zero_grad()
        y = call(x)
        y.sum().backward()
        return y.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    want, gradients = run(model.train())
    got, compiled = run(torch.compile(model, backend="aot_eager", fullgraph=True))
    assert torch.equal(got, want)
    assert len(compiled) == len(gradients)
    for a, b in zip(compiled, gradients, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        assert torch.equal(torch.export.export(model.eval(), (x,)).module()(x), want)
