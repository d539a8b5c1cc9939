"""Operators of user code under torch.compile, in the spellings that dynamo sees differently, and with another batch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own

QUICK = {
    "reflected difference": lambda y: 1 - y,
    "unflatten method": lambda y: y.unflatten(1, (3, 1)),
}
SLOW = {
    "number over tensor": lambda y: 1 / (y + 3),
    "power": lambda y: y**2,
    "mean over images": lambda y: y.mean((2, 3)),
    "matrix product behind": lambda y: torch.ones(8, 8) @ y,
    "number times": lambda y: 2 * y,
    "number plus": lambda y: 1 + y,
    "minus number": lambda y: y - 1,
    "division": lambda y: y / 4,
    "negation": lambda y: -y,
    "in place": lambda y: y.add_(y),
    "split": lambda y: y.split(1, 1)[0],
    "chunk": lambda y: y.chunk(3, 1)[1],
    "slices": lambda y: y[:, 1:, ::2],
    "concatenation": lambda y: torch.cat([y, y], 1),
    "stack": lambda y: torch.stack([y, y]),
    "sum": lambda y: y.sum(1),
    "absolute value": lambda y: y.abs(),
    "clamp": lambda y: y.clamp(-1, 1),
    "comparison": lambda y: y * (y == y),
    "where": lambda y: torch.where(y > 0, y, -y),
    "gate": lambda y: torch.sigmoid(y) * y,
    "softmax": lambda y: y.softmax(-1),
    "gelu": lambda y: F.gelu(y),
    "pad": lambda y: F.pad(y, (1, 1)),
    "max pool": lambda y: F.max_pool2d(y, 2),
    "variance": lambda y: y.var(1),
    "einsum": lambda y: torch.einsum("bchw->bhwc", y),
    "transposed": lambda y: y.mT,
}
OPERATORS = [pytest.param(f, id=n) for n, f in QUICK.items()]
OPERATORS += [pytest.param(f, id=n, marks=pytest.mark.slow) for n, f in SLOW.items()]


class _Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function, self.child = nn.Conv2d(3, 3, 3, padding=1), function, nn.Identity()

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize("function", OPERATORS)
def test_compiled_operators_give_the_same_numbers(function):
    torch._dynamo.reset()
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = linger.init(_Model(function))
    model(x)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for batch in (x, torch.randn(5, 3, 8, 8)):  # the second compiles again, with symbolic sizes
        want, got = model(batch), compiled(batch)
        assert torch.equal(want, got)
        want.float().sum().backward(), got.float().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert (p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad)
    state = twin.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "function",
    [lambda y: torch.cat([y, y], 1).mean((2, 3)), lambda y: F.relu(y + y).view(y.size(0), -1)],
    ids=["cat and mean", "add and view"],
)
def test_export_with_a_batch_of_any_size(function, strict):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = linger.init(_Model(function))
    model(x)
    model.eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (x,), strict=strict, dynamic_shapes=({0: batch},))
    for n in (1, 2, 7):
        other = torch.randn(n, 3, 8, 8)
        assert torch.equal(program.module()(other), model(other))
