"""Embeddings: the table's integers, its gradients, and torch's options."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.nn import EmbeddingInt, QuantLayer
from linger.nn.base import Converted
from linger.onnx import OnnxRunner
from tests.nn.same import PLATFORMS


def _model(**options):
    torch.manual_seed(0)
    return linger.init(nn.Sequential(nn.Embedding(7, 4, **options), nn.Linear(4, 3)))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", [(1, 5), (1, 2, 3)])
def test_the_same_integers_everywhere(platform, shape, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "config.yaml"
    path.write_text(f"platform: {platform}\n")
    model = linger.init(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3)), str(path))
    x = torch.randint(0, 7, shape)
    model(x)
    with torch.no_grad():
        want = model.eval()(x)
        linger.freeze_statistics(model)
        assert torch.equal(model.train()(x), want)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, want.numpy())


def test_base_name_and_copies():
    model = _model()
    layer = model[0]
    assert type(layer) is EmbeddingInt
    assert isinstance(layer, Converted)
    assert issubclass(QuantLayer, Converted)
    assert layer.weight_quantizer.name == "0.weight_quantizer"
    x = torch.tensor([[1, 2, 6]])
    model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("option", [{"padding_idx": 2}, {"scale_grad_by_freq": True}, {"sparse": True}, {}])
def test_gradients_of_rows_are_torchs(option):
    model, x = _model(**option), torch.tensor([[1, 2, 2, 6, 1, 1]])
    layer = model[0]
    layer(x).sum().backward()
    plain = nn.Embedding(7, 4, **{**option, "sparse": False})
    plain.weight.data.copy_(layer.weight.detach())
    plain(x).sum().backward()
    codes = (layer.weight * layer.weight_quantizer.scale).round()
    inside = (codes >= -128) & (codes <= 127)  # what saturates has no gradient
    assert not inside.all()
    assert layer.weight.grad.is_sparse == layer.sparse
    assert torch.equal(layer.weight.grad.to_dense(), plain.weight.grad * inside)


def test_max_norm_shortens_the_rows_that_are_looked_up():
    model, x = _model(max_norm=0.5), torch.tensor([[1, 2, 6]])
    before = model[0].weight.detach().clone()
    model(x)
    norms = model[0].weight.detach().norm(dim=1)
    assert (norms[[1, 2, 6]] <= 0.5 + 1e-5).all()
    assert torch.equal(model[0].weight[0], before[0].clamp(-7 * before.abs().mean(), 7 * before.abs().mean()))
    after = model[0].weight.detach().clone()
    model.eval()(torch.tensor([[0, 3]]))
    assert torch.equal(model[0].weight, after)
