"""Whole training runs under torch.compile: the numbers of eager code, and as many graphs as the float model has."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import linger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.norm(self.a(x)) + x)


class _Net(nn.Module):
    """With a quantized block, checkpointed or not, and a float region, or none."""

    def __init__(self, kind="plain"):
        super().__init__()
        self.first, self.block, self.last, self.kind = nn.Conv2d(3, 4, 1), _Block(), nn.Linear(4, 5), kind

    def forward(self, x):
        x = self.first(x)
        x = checkpoint(self.block, x, use_reentrant=False) if self.kind == "checkpoint" else self.block(x)
        y = self.last(x.mean((2, 3)))
        if self.kind == "float region":
            with linger.float_region():
                y = y * torch.cos(y)
        return y

    def encode(self, x):
        return self.block(self.first(x)) * 2.0


class _Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **how):
        super().__init__()
        width = 32 if how.get("bidirectional") else 16
        self.first, self.middle, self.last = nn.Linear(8, 8), kind(8, 16, batch_first=True, **how), nn.Linear(width, 4)

    def forward(self, x):
        y, state = self.middle(self.first(x))
        h = state[0] if isinstance(state, tuple) else state
        return self.last(y).sum(1) + self.last(torch.cat([h[0]] * (self.last.in_features // 16), -1))


def _run(model, forward, x):
    """6 training steps and 3 evaluations."""
    results, optimizer = [], torch.optim.SGD(model.parameters(), 1e-2)
    for i in range(6):
        y = forward(x * (1 + i))
        optimizer.zero_grad()
        y.float().square().sum().backward()
        optimizer.step()
        results.append(y.detach())
    model.eval()
    with torch.no_grad():
        return results + [forward(x * (1 + i)) for i in range(3)]


def _plain(forward):
    return forward


def _autocast(forward):
    def run(x):
        with torch.autocast("cpu", torch.bfloat16):
            return forward(x)

    return run


def _graphs(model, x, around=_plain, fullgraph=True):
    """Number of compiled graphs of a run whose numbers and state are those of the model itself."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend=backend, fullgraph=fullgraph)
    want, got = _run(model, around(model), x), _run(twin, around(compiled), x)
    assert all(torch.equal(y, z) for y, z in zip(want, got, strict=True))
    state = twin.state_dict()
    assert [k for k, v in model.state_dict().items() if not torch.equal(v, state[k])] == []
    compiled_once = len(graphs)
    _run(twin.train(), around(compiled), x)
    assert len(graphs) == compiled_once
    torch._dynamo.reset()
    return compiled_once


def _initialised(make, x, method="MOM"):
    torch.manual_seed(0)
    linger.QUANT_CONFIGS.quant_info.qat_method = method
    model = linger.init(make())
    model(x)
    return model


IMAGES, STEPS = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 8)
slow = pytest.mark.slow


@pytest.mark.parametrize("method", ["MOM", pytest.param("TQT", marks=slow)])
@pytest.mark.parametrize("around", [_plain, pytest.param(_autocast, marks=slow)])
def test_moving_scales_and_statistics_compile_nothing_again(around, method):
    graphs = _graphs(_initialised(_Net, IMAGES, method), IMAGES, around)
    assert graphs == _graphs(_Net(), IMAGES, around) == 2  # training, evaluation


@slow
def test_a_float_region_is_compiled_alike():
    assert _graphs(_initialised(lambda: _Net("float region"), IMAGES), IMAGES) == 2


@slow
def test_checkpointed_modules_break_the_graph_and_keep_the_numbers():
    _graphs(_initialised(lambda: _Net("checkpoint"), IMAGES), IMAGES, fullgraph=False)


@slow
def test_an_entry_method_is_compiled_alike():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = _Net()

        def forward(self, x):
            return self.net.encode(x)

    def entry(model):
        def run(x):
            with linger.active(model):
                return model.net.encode(x)

        return run

    torch._dynamo.reset()
    model = _initialised(Encoder, IMAGES)
    entry(model)(IMAGES)
    twin = copy.deepcopy(model)
    compiled = torch.compile(entry(twin), backend="eager", fullgraph=True)
    for i in (1, 2, 3):
        assert torch.equal(entry(model)(IMAGES * i), compiled(IMAGES * i))


RECURRENT = {
    "GRU": lambda: _Recurrent(nn.GRU),
    "LSTM": _Recurrent,
    "both directions": lambda: _Recurrent(num_layers=2, bidirectional=True),
}
ROWS = [pytest.param(n, marks=[] if n == "LSTM" else slow) for n in RECURRENT]


@pytest.mark.parametrize("method", ["MOM", pytest.param("TQT", marks=slow)])
@pytest.mark.parametrize("name", ROWS)
def test_recurrent_layers_compile_whole_where_dynamo_allows_them(name, method):
    with torch._dynamo.config.patch(allow_rnn=True):
        graphs = _graphs(_initialised(RECURRENT[name], STEPS, method), STEPS)
        assert graphs == _graphs(RECURRENT[name](), STEPS) == 2


@slow
@pytest.mark.parametrize("name", list(RECURRENT))
def test_recurrent_layers_that_dynamo_leaves_alone_keep_their_numbers(name):
    _graphs(_initialised(RECURRENT[name], STEPS), STEPS, fullgraph=False)
