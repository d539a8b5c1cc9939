"""In-place writes when compiled, exported and in inference mode: what shares memory loses its format, copies keep theirs."""

import copy

import pytest
import torch
from torch import nn

import linger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own


def _chain(y, z):
    x = y.clone()
    x.relu_()
    x.add_(y)
    x[:, :2] *= 0.5
    z += x
    return z


def _copy_written(y, z):
    x = y.clone()
    x[:, :2] = 0
    return x + y


def _part_of_copy(y, z):
    x = y.clone()
    x[:, :2].mul_(0.5)
    return y + x


def _view_written(y, z):
    y[:, :2].relu_()
    return y + y + z


def _flat_copy(y, z):
    y.transpose(2, 3).reshape(-1).relu_()
    return y + z


def _flipped(y, z):
    y.flip(1).neg_()
    return y + z


ALL = [_chain, _part_of_copy, _copy_written, _view_written, _flat_copy, _flipped]
WRITES = [_chain, *(pytest.param(f, marks=pytest.mark.slow) for f in ALL[1:])]


class _Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), function

    def forward(self, x):
        return self.function(self.a(x), self.b(x))


def _model(function, method="MOM"):
    torch._dynamo.reset()
    torch.manual_seed(0)
    linger.QUANT_CONFIGS.quant_info.qat_method = method
    x = torch.randn(2, 3, 4, 4)
    model = linger.init(_Net(function))
    model(x)
    return model, x


@pytest.mark.parametrize("method", [pytest.param("MOM", marks=pytest.mark.slow), "TQT"])
@pytest.mark.parametrize("function", WRITES)
def test_compiled_writes_train_alike(function, method):
    model, x = _model(function, method)
    assert model.a.input_quantizer.method == method
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for i in range(2):
        want, got = model(x * (i + 1)), compiled(x * (i + 1))
        assert torch.equal(want, got)
        want.square().sum().backward(), got.square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or torch.equal(p.grad, q.grad), name
    state = twin.state_dict()
    assert [k for k, v in model.state_dict().items() if not torch.equal(v, state[k])] == []


@pytest.mark.parametrize("function", ALL)
def test_writes_in_inference_mode_and_exported_programs(function):
    model, x = _model(function)
    model.eval()
    want = model(x)
    with torch.inference_mode():
        assert torch.equal(model(x), want)
    assert torch.equal(torch.export.export(model, (x,), strict=False).module()(x), want)
