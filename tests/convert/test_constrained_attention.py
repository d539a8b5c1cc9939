"""Attention in the constrained stage: limits in every forward, masks as torch, and the way on into init."""

import copy
import io

import pytest
import torch
from torch import nn

import linger
from linger.nn import MultiheadAttentionInt
from linger.nn.constrained.attention import NormalizeMultiheadAttention

E, L, N = 8, 5, 3
FORMS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "separate": {"kdim": 6, "vdim": 4},
}


def clamp_info(factor=None, weight=None, bias=None, data=None):
    named = {"factor": factor, "weight": weight, "bias": bias, "activation": data}
    return "".join(f"  clamp_{k}_value: {'null' if v is None else v}\n" for k, v in named.items())


def constrained(layer, tmp_path, **limits):
    config = tmp_path / "config.yaml"
    config.write_text("clamp_info:\n" + clamp_info(**limits))
    return linger.constrain(nn.ModuleDict({"a": layer}), str(config))["a"]


def operands(layer):
    torch.manual_seed(1)
    shapes = [(L, N, E), (L, N, layer.kdim), (L, N, layer.vdim)]
    return [torch.randn(*((s[1], s[0], s[2]) if layer.batch_first else s)) for s in shapes]


@pytest.mark.parametrize("form", FORMS)
def test_without_limits_it_is_torchs_layer(form, tmp_path):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, 2, **FORMS[form])
    mask = torch.zeros(L, L, dtype=torch.bool).triu_(1)
    padding = torch.arange(L)[None, :].repeat(N, 1) >= torch.tensor([[5], [3], [4]])
    calls = [
        {},
        {"attn_mask": mask, "need_weights": False},
        {"key_padding_mask": padding},
        {"average_attn_weights": False},
    ]
    q, k, v = operands(layer)
    want = [copy.deepcopy(layer)(q, k, v, **c) for c in calls]
    mine = constrained(layer, tmp_path)
    assert type(mine) is NormalizeMultiheadAttention and mine is layer
    for call, (out, shares) in zip(calls, want, strict=True):
        got = mine(q, k, v, **call)
        torch.testing.assert_close(got[0], out)
        assert (got[1] is None) == (shares is None) and (shares is None or torch.allclose(got[1], shares))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_every_matrix_has_its_own_limit(form, training, tmp_path):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, 2, **FORMS[form])
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    free = copy.deepcopy(layer).train(training)
    with torch.no_grad():
        stacked = free.in_proj_weight is not None
        parts = (
            free.in_proj_weight.chunk(3) if stacked else [free.q_proj_weight, free.k_proj_weight, free.v_proj_weight]
        )
        for w in (*parts, free.out_proj.weight):
            limit = 0.8 * w.abs().mean()
            w.clamp_(-limit, limit)
        for b in (free.in_proj_bias, free.out_proj.bias):
            if b is not None:
                b.clamp_(-0.5, 0.5)
    mine = constrained(layer, tmp_path, factor=0.8, bias=0.5, data=0.6).train(training)
    xs = operands(layer)
    out, want = mine(*xs)[0], free(*xs)[0]
    assert float(want.detach().abs().max()) > 0.6
    torch.testing.assert_close(out, want.clamp(-0.6, 0.6))
    out.sum().backward()
    grad = (mine.in_proj_weight if stacked else mine.v_proj_weight).grad
    outside = (mine.in_proj_weight if stacked else mine.v_proj_weight).detach().abs() > 3.0
    assert grad.abs().sum() > 0 and (not outside.any() or not grad[outside].any())


def test_a_transformer_layer_is_clamped_in_evaluation_too(tmp_path):
    """torch's fused evaluation of a layer reads the parameters past every module."""
    torch.manual_seed(0)
    config = tmp_path / "config.yaml"
    config.write_text("clamp_info:\n" + clamp_info(weight=0.05, data=8))
    model = linger.constrain(nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, batch_first=True), str(config))
    x = torch.randn(N, L, E)
    want = model.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), want)


def test_on_to_init_and_checkpoints(tmp_path):
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.attention = nn.Linear(E, E), nn.MultiheadAttention(E, 2)

        def forward(self, x):
            x = self.fc(x)
            return self.attention(x, x, x, need_weights=False)[0]

    config = tmp_path / "config.yaml"
    config.write_text("clamp_info:\n" + clamp_info(factor=1.0, bias=0.01, data=8))
    model = linger.constrain(Net(), str(config))
    x = torch.randn(L, 1, E)
    model(x).square().sum().backward()
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    again = linger.init(Net(), str(config))
    again.load_state_dict(torch.load(buffer))
    weight = model.attention.in_proj_weight
    limits = [float(w.detach().abs().mean()) for w in weight.chunk(3)]
    model = linger.init(model)
    assert isinstance(model.attention, MultiheadAttentionInt) and model.attention.in_proj_weight is weight
    for w, limit in zip(weight.detach().chunk(3), limits, strict=True):
        assert float(w.abs().max()) == pytest.approx(limit)
    assert float(model.attention.in_proj_bias.detach().abs().max()) <= 0.01
    assert torch.isfinite(model(x)).all() and torch.isfinite(again(x)).all()


def test_direct_construction_copies_and_repr():
    layer = NormalizeMultiheadAttention(E, 2, normalize_data=0.1, normalize_factor=2.0)
    twin = copy.deepcopy(layer)
    x = torch.randn(L, N, E)
    assert torch.equal(twin(x, x, x)[0], layer(x, x, x)[0])
    assert float(layer(x, x, x)[0].detach().abs().max()) <= 0.1001
    assert "clamp_activation:0.1" in repr(layer) and "clamp_factor:2.0" in repr(layer)
