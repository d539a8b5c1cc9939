"""What dynamo keeps from function modes: every spelling of an operator gives under torch.compile what it gives without."""

import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
import linger.nn
from linger.runtime import info

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own

# Spellings that dynamo does not show to modes by itself; a quarter of them is tried by default.
HIDDEN = [
    lambda y, z: torch.relu_(y),
    lambda y, z: F.relu_(y),
    lambda y, z: F.hardtanh_(y),
    lambda y, z: torch.clamp_(y, -0.25, 0.5),
    lambda y, z: torch.clip_(y, -0.25, 0.5),
    lambda y, z: torch.clamp_min_(y, -0.25),
    lambda y, z: torch.clamp_max_(y, 0.5),
    lambda y, z: torch.neg_(y),
    lambda y, z: torch.square_(y),
    lambda y, z: torch.sigmoid_(y),
    lambda y, z: torch.tanh_(y),
    lambda y, z: F.leaky_relu_(y, 0.25),
    lambda y, z: F.hardswish(y),
    lambda y, z: F.hardswish(y, inplace=True),
    lambda y, z: F.hardsigmoid(y),
    lambda y, z: F.sigmoid(y),
    lambda y, z: F.tanh(y),
    lambda y, z: F.upsample(y, scale_factor=2),
    lambda y, z: F.upsample_nearest(y, scale_factor=2),
    lambda y, z: F.pad(y, (1, 1)),
    lambda y, z: F.pad(y, (1, 1, 1, 1), mode="replicate"),
    lambda y, z: abs(y),
    lambda y, z: y.mT,
    lambda y, z: y.mH,
    lambda y, z: y[0, 0].T,
    lambda y, z: y[0, 0].H,
    lambda y, z: y @ z.mT,
    lambda y, z: y.to(torch.float32),
    lambda y, z: y.cpu(),
    lambda y, z: y.type_as(z),
    lambda y, z: operator.ipow(y, 2),
    lambda y, z: y.__rmatmul__(z.mT),
    lambda y, z: y.unflatten(1, (2, 2)),
    lambda y, z: 1 - y,
    lambda y, z: list(y).pop(),
    lambda y, z: torch.atleast_1d(y),
    lambda y, z: 1 / (y + 9),
]


class _Net(nn.Module):
    """Each function in turn on fresh sums, its result with its format's scale."""

    def __init__(self, functions):
        super().__init__()
        self.a, self.b, self.functions = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), functions

    def forward(self, x):
        results = []
        for function in self.functions:
            y = function(self.a(x), self.b(x))
            fmt = info(y)
            results.append((y, torch.zeros(()) if fmt is None else fmt.scale.clone()))
        return results


def _step(model, run, x):
    model.zero_grad()
    results = run(x)
    sum(y.square().sum() for y, _ in results).backward()
    return results


def _alike(functions, backend):
    torch._dynamo.reset()
    torch.manual_seed(0)
    linger.QUANT_CONFIGS.platform = "venusA"
    x = torch.randn(2, 3, 8, 8)
    model = linger.init(_Net(functions))
    model(x)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    want, got = _step(model, model, x), _step(twin, compiled, x)
    for i, ((y, s), (z, t)) in enumerate(zip(want, got, strict=True)):
        assert torch.equal(s, t), i
        assert torch.equal(y, z), i
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-5)  # a sum over many calls, in another order
    state = twin.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    model.eval(), twin.eval()
    with torch.no_grad():
        assert all(torch.equal(y, z) for (y, _), (z, _) in zip(model(x), compiled(x), strict=True))
    torch._dynamo.reset()


@pytest.mark.parametrize("part", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 4))])
def test_what_dynamo_hides_runs_in_integers(part):
    _alike(HIDDEN[part::4], "eager")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(HIDDEN)))
def test_what_dynamo_hides_is_differentiated_alike(part):
    _alike(HIDDEN[part : part + 1], "aot_eager")


def test_other_models_are_traced_as_before():
    from torch._dynamo.variables import TensorVariable
    from torch._dynamo.variables.torch import get_overridable_functions

    class Plain(nn.Module):
        def forward(self, x):
            return F.sigmoid(x.mT) + F.pad(abs(x), (1, 1))[..., 1:-1].mT

    def traced():
        torch._dynamo.reset()
        graphs = []
        torch.compile(Plain(), backend=lambda g, _: graphs.append(g.code) or g, fullgraph=True)(torch.randn(3, 3))
        return graphs

    asked, known, before = set(get_overridable_functions()), dict(vars(TensorVariable)), traced()
    model = linger.init(nn.Sequential(nn.Linear(8, 8), nn.Hardswish()))
    model(torch.randn(2, 8))
    torch.compile(model, backend="eager", fullgraph=True)(torch.randn(2, 8))
    assert set(get_overridable_functions()) == asked
    assert dict(vars(TensorVariable)) == known
    assert traced() == before

    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x):
            torch._dynamo.graph_break()
            return self.a(x)

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(linger.init(Fails()), backend="eager", fullgraph=True)(torch.randn(2, 8))
    assert set(get_overridable_functions()) == asked
    assert dict(vars(TensorVariable)) == known


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.q(x).view(b, t, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v
        return self.norm(x + self.out(y.transpose(1, 2).reshape(b, t, c)))


class _Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.out = nn.Linear(8 * 16, 5)

    def forward(self, x):
        a = F.relu(self.a(x))
        y = F.max_pool2d(F.relu6(self.b(a)) + a, 2) * 0.5
        y = y * torch.sigmoid(y.mean((2, 3), keepdim=True))
        return self.out(y.reshape(x.size(0), -1) / 4)


class _Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.c(F.glu(torch.cat([h, self.b(h)], -1), -1).flatten(1)).log_softmax(-1)


SIZES = {
    "attention": (_Attention, (6, 16)),
    "convolutions": (_Convolutions, (3, 8, 8)),
    "perceptron": (_Perceptron, (12,)),
}


def _trained(name):
    make, shape = SIZES[name]
    torch.manual_seed(0)
    linger.QUANT_CONFIGS.platform = "venusA"
    model = linger.init(make())
    model(torch.randn(4, *shape))
    return model, shape


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "attention" else pytest.mark.slow) for n in SIZES])
def test_one_graph_trains_with_batches_of_every_size(name):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, shape = _trained(name)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for n in (4, 7, 3):
        x = torch.randn(n, *shape)
        torch._dynamo.mark_dynamic(x, 0)
        want, got = model(x), compiled(x)
        assert torch.equal(want, got)
        want.square().sum().backward(), got.square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("name", list(SIZES))
def test_an_exported_program_takes_batches_of_every_size(name):
    model, shape = _trained(name)
    model.eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(4, *shape),), dynamic_shapes=({0: batch},), strict=False).module()
    for n in (1, 2, 7):
        x = torch.randn(n, *shape)
        assert torch.equal(program(x), model(x))
