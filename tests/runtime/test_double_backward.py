"""Gradients of gradients: operators that are linear between their limits have them, the others refuse."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.quantizers import Quantizer
from linger.runtime import Format, info, tag

LINEAR = {
    "quantize": lambda y: y,
    "add": lambda y: y + y.flip(0),
    "sub": lambda y: y - y.flip(1),
    "times number": lambda y: y * 0.5,
    "over number": lambda y: y / 2,
    "cat": lambda y: torch.cat([y, y], 1),
    "relu": F.relu,
    "average pool": lambda y: F.avg_pool2d(y, 2),
    "mean": lambda y: y.mean((2, 3)),
    "max pool": lambda y: F.max_pool2d(y, 2),
    "clamp": lambda y: y.clamp(-0.5, 0.5),
    "pad": lambda y: F.pad(y, (1, 1)),
    "shape": lambda y: y.permute(0, 2, 3, 1)[:, 1:].flatten(1),
}
REFUSED = {
    "mul": lambda y: y * y.flip(0),
    "sigmoid": torch.sigmoid,
    "softmax": lambda y: y.softmax(1),
    "conv": nn.Conv2d(4, 3, 1),
    "linear": nn.Linear(8, 3),
}


class _Model(nn.Module):
    """A function of user code behind a quantized operand."""

    def __init__(self, function):
        super().__init__()
        self.quantizer, self.function, self.child = Quantizer(8), function, nn.Identity()

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            out = self.quantizer(x)
            y = tag(out.value, Format(out.scale, 8, out.codes))
        return self.function(y)


def _second(y, x):
    (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x, allow_unused=True)[0]


@pytest.mark.parametrize("name", list(LINEAR))
def test_between_the_limits_they_are_those_of_float(name):
    torch.manual_seed(0)
    x = (torch.randint(-60, 61, (2, 4, 8, 8)) / 64).requires_grad_()
    model = linger.init(_Model(LINEAR[name]))
    y = model(x)
    assert info(y) is not None
    real = LINEAR[name](x)
    straight = real + (y - real).detach()  # the integers' values, float's gradients
    torch.testing.assert_close(_second(y, x), _second(straight, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(REFUSED))
def test_others_do_not_pretend(name):
    x = torch.rand(2, 4, 8, 8, requires_grad=True)
    model = linger.init(_Model(REFUSED[name]))
    (first,) = torch.autograd.grad(model(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
