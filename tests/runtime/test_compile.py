"""torch.compile, torch.export and torch.jit.trace take an initialised model as it is, and give its numbers."""

import copy

import pytest
import torch
from torch import nn

import linger
from linger.runtime import islands_of
from tests.nn.zoo import ZOO, batch, tensors
from tests.runtime.models import Helper, Residual, TwoAdds

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own
ZOO_NAMES = ("ConvNet", "Sequence1d", "Two")
REST = sorted(set(ZOO) - set(ZOO_NAMES))


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def _initialised(make, inputs, steps=2):
    torch.manual_seed(0)
    model = linger.init(make())
    for _ in range(steps):
        model(*inputs)
    return model


def _step(model, run, inputs, seed=5):
    model.zero_grad()
    torch.manual_seed(seed)
    outputs = tensors(run(*inputs))
    sum(y.square().sum() for y in outputs).backward()
    return outputs


def _same_state(a, b):
    ours = a.state_dict()
    theirs = b.state_dict()
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or torch.equal(p.grad, q.grad), name


def _trains_alike(make, inputs, backend, steps=2, fullgraph=True):
    model = _initialised(make, inputs, steps)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend=backend, fullgraph=fullgraph)
    for i in range(2):
        moved = tuple(x + 0.1 * i for x in inputs)
        want, got = _step(model, model, moved), _step(twin, compiled, moved)
        assert all(torch.equal(x, y) for x, y in zip(want, got, strict=True))
        _same_state(model, twin)
    model.eval(), twin.eval()
    assert all(torch.equal(x, y) for x, y in zip(tensors(model(*inputs)), tensors(compiled(*inputs)), strict=True))
    assert torch._C._len_torch_function_stack() == 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ZOO_NAMES)
def test_compiled_models_train_and_evaluate_alike(name, backend):
    _trains_alike(ZOO[name], batch(ZOO[name]), backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_every_other_network_compiles_to_the_same_numbers(name):
    torch.manual_seed(0)
    model, inputs = linger.init(ZOO[name]()), batch(ZOO[name])
    model(*inputs)
    twin = copy.deepcopy(model)
    want, got = (
        _step(model, model, inputs),
        _step(twin, torch.compile(twin, backend="aot_eager", fullgraph=True), inputs),
    )
    assert all(torch.equal(x, y) for x, y in zip(want, got, strict=True))
    _same_state(model, twin)


def test_embeddings_keep_their_format_under_dynamo():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.fc = nn.Embedding(9, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(self.words(x))

    torch.manual_seed(0)
    model, x = linger.init(Words()), torch.randint(0, 9, (2, 6))
    torch.compile(model, backend="eager", fullgraph=True)(x)
    assert not model.fc.input_quantizer.ready  # the words arrive quantized


@pytest.mark.slow
def test_inductor():
    _trains_alike(Residual, (torch.randn(2, 3, 8, 8),), "inductor")


@pytest.mark.parametrize("make", [TwoAdds, pytest.param(Helper, marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_call_sites_under_dynamo_are_those_of_eager_code(make, steps):
    """With 0 steps the compiled model meets its operators first, and clamps its weights itself."""
    _trains_alike(make, (torch.randn(4, 8),), "aot_eager", steps)


class _Writes(nn.Module):
    """A sum into a slice, an unhandled write into another one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        part = a[:, :4]
        part += b[:, 4:]
        b[:, :2].erf_()
        return self.b(a) + self.a(b)


class _Shared(nn.Module):
    """One float source, three consumers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = torch.cat(torch.split(torch.cos(x), 4, 1)[::-1], 1)
        return self.a(x) + self.b(x) + x


@pytest.mark.slow
@pytest.mark.parametrize("make", [_Writes, _Shared, lambda: Residual("in-place")])
def test_in_place_writes_and_shared_sources(make):
    inputs = (torch.randn(2, 3, 8, 8),) if "lambda" in make.__name__ else (torch.randn(4, 8),)
    _trains_alike(make, inputs, "aot_eager")


class _Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        a = self.a(x)
        y = a + self.b(x)
        torch._dynamo.graph_break()
        for _ in range(2):
            y = y + a
        return y + a


def test_a_graph_break_keeps_formats_and_call_sites():
    _trains_alike(_Broken, (torch.randn(4, 8),), "aot_eager", fullgraph=False)


@pytest.mark.slow
def test_thresholds_train_under_compile(tmp_path):
    file = tmp_path / "tqt.yaml"
    file.write_text("quant_info:\n  qat_method: TQT\n")

    linger.settings.use(linger.settings.load(file))
    _trains_alike(TwoAdds, (torch.randn(4, 8),), "aot_eager")


def test_calibration_runs_compiled_models_in_eager_mode():
    x = torch.randn(4, 8)
    model = _initialised(TwoAdds, (x,), steps=1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(x)
    with linger.calibration(model):
        compiled(100 * x)
    assert float(model.a.input_quantizer.running_data) > 50


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["Two"])
def test_export_keeps_the_integers(name, strict):
    inputs = batch(ZOO[name])
    model = _initialised(ZOO[name], inputs).eval()
    want = tensors(model(*inputs))
    program = torch.export.export(model, inputs, strict=strict)
    assert all(torch.equal(x, y) for x, y in zip(want, tensors(program.module()(*inputs)), strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ZOO_NAMES)
def test_jit_trace_keeps_the_integers(name):
    inputs = batch(ZOO[name])
    model = _initialised(ZOO[name], inputs).eval()
    want = tensors(model(*inputs))
    traced = torch.jit.trace(model, inputs, strict=False, check_trace=False)
    assert all(torch.equal(x, y) for x, y in zip(want, tensors(traced(*inputs)), strict=True))
    assert islands_of(model) == []


BARE = {
    "linear": (lambda: nn.Linear(8, 8), (4, 8)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3), (1, 3, 8, 8)),
    "batch norm": (lambda: nn.BatchNorm2d(3), (2, 3, 8, 8)),
    "layer norm": (lambda: nn.LayerNorm(8), (4, 8)),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*autograd kernel was not registered")
@pytest.mark.parametrize("name", list(BARE))
def test_a_bare_layer_is_traced_and_exported_with_gradients_on(name, tmp_path):
    make, shape = BARE[name]
    torch.manual_seed(0)
    model, x = linger.init(make()), torch.randn(shape, requires_grad=True)
    model(x)
    want = model.eval()(x)
    traced = torch.jit.trace(model, (x,))
    assert torch.equal(traced(x), want)
    traced.save(tmp_path / "m.pt")
    assert torch.equal(torch.jit.load(tmp_path / "m.pt")(x), want)
    assert torch.equal(torch.export.export(model, (x,)).module()(x), want)
    model.train()(x).sum().backward()  # the layer itself trains on
    assert model.weight.grad is not None


def test_compiled_encoder_layers_stay_quantized():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model, x = linger.init(nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoder(layer, 1))), torch.randn(2, 5, 8)
    model(x)
    model.eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))
