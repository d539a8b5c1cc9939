"""Constrained Conv+BN and Linear+BN: the written expression, its gradients, and what evaluation computes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from linger.nn.constrained.fused import (
    EmptyBatchNorm,
    NormalizeConvBN1d,
    NormalizeConvBN2d,
    NormalizeConvTransposeBN1d,
    NormalizeConvTransposeBN2d,
    NormalizeLinearBN1d,
)
from linger.nn.constrained.layers import CONSTRAINED
from linger.settings import ClampInfo

CASES = {
    "conv1d": (NormalizeConvBN1d, (4, 6, 3), {"padding": 1}, (5, 4, 9)),
    "conv1d_groups": (NormalizeConvBN1d, (4, 8, 3), {"groups": 2, "bias": False}, (5, 4, 9)),
    "conv2d": (NormalizeConvBN2d, (3, 6, 3), {"padding": "same"}, (4, 3, 6, 5)),
    "conv2d_stride": (
        NormalizeConvBN2d,
        (4, 8, 3),
        {"stride": 2, "dilation": 2, "groups": 4, "bias": False},
        (4, 4, 9, 9),
    ),
    "conv2d_reflect": (NormalizeConvBN2d, (3, 6, 3), {"padding": 1, "padding_mode": "reflect"}, (4, 3, 6, 5)),
    "deconv1d": (NormalizeConvTransposeBN1d, (4, 6, 3), {"stride": 2, "output_padding": 1}, (5, 4, 7)),
    "deconv2d": (NormalizeConvTransposeBN2d, (4, 6, 3), {"stride": 2}, (3, 4, 5, 4)),
    "deconv2d_groups": (NormalizeConvTransposeBN2d, (4, 6, 3), {"groups": 2, "bias": False}, (3, 4, 5, 4)),
    "linear": (NormalizeLinearBN1d, (7, 5), {}, (9, 7)),
}
LIMITS = {"normalize_data": 1.2, "normalize_factor": 1.4, "normalize_bias": 0.3}


def build(case, **more):
    cls, args, kwargs, shape = CASES[case]
    torch.manual_seed(3)
    m = cls(*args, **kwargs, **more)
    if m.bn.affine:
        nn.init.uniform_(m.bn.weight, -1.5, 1.5)
        nn.init.uniform_(m.bn.bias, -0.5, 0.5)
    return m, torch.randn(shape)


def written(m, x, *, mean=None, var=None):
    """training.md section 8 in float64 torch, one line per term; mean and var given: evaluation."""
    bn, layer = m.bn, m.layer
    w, b = layer.weight.double(), 0.0 if layer.bias is None else layer.bias.double()
    g = torch.ones(bn.num_features).double() if bn.weight is None else bn.weight.double()
    beta = torch.zeros(bn.num_features).double() if bn.bias is None else bn.bias.double()
    double = copy.deepcopy(layer).double()

    def run(weight, bias):
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, bias)
        args = (bias, layer.stride, layer.padding)
        if isinstance(layer, nn.ConvTranspose1d):
            return F.conv_transpose1d(x, weight, *args, layer.output_padding, layer.groups, layer.dilation)
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, weight, *args, layer.output_padding, layer.groups, layer.dilation)
        return double._conv_forward(x, weight, bias)

    y = run(w, None if layer.bias is None else b)
    axes = [d for d in range(y.dim()) if d != 1]
    column = [-1 if d == 1 else 1 for d in range(y.dim())]
    training = mean is None
    if training:
        mean, var = y.mean(axes), y.var(axes, correction=1)
        normal = (y - mean.view(column)) / (y.var(axes, correction=0) + bn.eps).sqrt().view(column) * g.view(column)
        normal = normal + beta.view(column)
    gain = g / (var + bn.eps).sqrt()
    if getattr(layer, "transposed", False):
        per = w.shape[1]
        folded = torch.cat(
            [
                w[k * w.shape[0] // layer.groups : (k + 1) * w.shape[0] // layer.groups]
                * gain[k * per : (k + 1) * per].view(1, -1, *[1] * (w.dim() - 2))
                for k in range(layer.groups)
            ]
        )
    else:
        folded = w * gain.view(-1, *[1] * (w.dim() - 1))
    shift = (b - mean) * gain + beta
    if m.normalize_factor is not None:
        limit = (m.normalize_factor * folded.abs().mean()).detach()
        folded = folded.clamp(-limit, limit)
    if m.normalize_bias is not None:
        shift = shift.clamp(-m.normalize_bias, m.normalize_bias)
    z = run(folded, shift)
    out = m.blend * normal + (1 - m.blend) * z if training else z
    return out if m.normalize_data is None else out.clamp(-m.normalize_data, m.normalize_data)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("blend", [0.1, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_training_step_is_the_written_expression(case, blend, affine):
    m, x = build(case, affine=affine, blend=blend, eps=1e-2, **LIMITS)
    x32, x64 = x.clone().requires_grad_(), x.double().requires_grad_()
    seed = torch.randn_like(written(m, x64)).float()
    reference = copy.deepcopy(m)
    wanted = written(reference, x64)
    wanted.backward(seed.double())
    got = m(x32)
    got.backward(seed)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x32.grad.double(), x64.grad, rtol=2e-4, atol=2e-4)
    for (name, p), q in zip(m.named_parameters(), reference.parameters(), strict=True):
        grad = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(
            grad, q.grad if q.grad is not None else torch.zeros_like(q), rtol=1e-3, atol=1e-3, msg=name
        )


@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_the_folded_layer(case):
    m, x = build(case, eps=1e-2, **LIMITS)
    for _ in range(3):
        m(x)
    m.eval()
    wanted = written(m, x.double(), mean=m.bn.running_mean.double(), var=m.bn.running_var.double())
    torch.testing.assert_close(m(x).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_without_limits_it_is_the_float_pair(case):
    m, x = build(case, blend=1.0)
    pair = nn.Sequential(copy.deepcopy(m.layer), copy.deepcopy(m.bn))
    for _ in range(3):
        torch.testing.assert_close(m(x), pair(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(m.bn.running_var, pair[1].running_var)
    assert m.bn.num_batches_tracked == 3
    torch.testing.assert_close(m.eval()(x), pair.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
def test_running_statistics_are_those_of_torch(momentum):
    m, _ = build("conv2d", momentum=momentum)
    pair = nn.Sequential(copy.deepcopy(m.layer), copy.deepcopy(m.bn))
    for k in range(4):
        x = torch.randn(4, 3, 6, 5) * (k + 1)
        m(x)
        pair(x)
    assert torch.equal(m.bn.running_mean, pair[1].running_mean)
    assert torch.equal(m.bn.running_var, pair[1].running_var)


def test_missing_running_statistics_use_the_batch_in_evaluation():
    m, x = build("conv2d", track_running_stats=False)
    pair = nn.Sequential(copy.deepcopy(m.layer), copy.deepcopy(m.bn)).eval()
    torch.testing.assert_close(m.eval()(x), pair(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="without running statistics"):
        m.folded()


def test_frozen_batch_norm_trains_with_running_statistics():
    m, x = build("conv2d")
    m(x)
    m.bn.eval()
    before = m.bn.running_mean.clone()
    y = m(x)
    assert torch.equal(before, m.bn.running_mean)
    assert torch.equal(y, m.eval()(x))
    y.sum().backward()
    assert m.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay(dtype):
    m, x = build("conv2d", **LIMITS)
    y = m.to(dtype)(x.to(dtype))
    y.sum().backward()
    assert y.dtype == m.conv.weight.grad.dtype == dtype
    assert m.eval()(x.to(dtype)).dtype == dtype


def test_autocast_trains():
    m, x = build("conv2d", **LIMITS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = m(x).float().square().mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in m.parameters())


def test_linear_refuses_what_batch_norm_would_read_on_another_axis():
    m, _ = build("linear")
    with pytest.raises(ValueError, match="expected \\(N, in_features\\)"):
        m(torch.randn(2, 3, 7))


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_limits_must_be_positive(limit):
    with pytest.raises(ValueError, match="must be None or > 0"):
        NormalizeConvBN2d(1, 1, 1, normalize_weight=limit)
    with pytest.raises(ValueError, match="blend must be in"):
        NormalizeConvBN2d(1, 1, 1, blend=1.5)


def test_prints_the_documented_line():
    m = NormalizeConvBN2d(
        10, 10, kernel_size=3, padding=1, normalize_data=8, normalize_weight=8, normalize_bias=8, ahead_relu=True
    )
    text = repr(m)
    assert "normalize_data:8,normalize_weight:8,normalize_bias:8,ahead_relu:True" in text
    assert "(conv): Conv2d(10, 10, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))" in text
    assert repr(EmptyBatchNorm()) == "EmptyBatchNorm()"
    assert "normalize_data:None,normalize_weight:None,normalize_bias:None,ahead_relu:False" in repr(
        NormalizeConvBN2d(1, 1, 1)
    )


def test_fused_layer_answers_for_its_convolution():
    conv, bn = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
    w = conv.weight
    m = NormalizeConvBN2d.fuse(conv, bn)
    assert m is conv and m.weight is w and m.stride == (2, 2) and m.conv.weight is w
    assert isinstance(bn, EmptyBatchNorm) and not any(p.requires_grad for p in bn.parameters())
    x = torch.randn(2, 4)
    assert bn(x) is x


LAYERS = {
    nn.Conv1d: (lambda: nn.Conv1d(3, 4, 3, padding="same"), (2, 3, 8)),
    nn.Conv2d: (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", bias=False), (2, 3, 8, 8)),
    nn.ConvTranspose1d: (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), (2, 3, 8)),
    nn.ConvTranspose2d: (lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, groups=2), (2, 4, 5, 5)),
    nn.Linear: (lambda: nn.Linear(5, 3), (2, 4, 5)),
    nn.BatchNorm1d: (lambda: nn.BatchNorm1d(5, momentum=None), (6, 5)),
    nn.BatchNorm2d: (lambda: nn.BatchNorm2d(3, affine=False), (4, 3, 5, 5)),
    nn.LayerNorm: (lambda: nn.LayerNorm((4, 5), eps=1e-3, bias=False), (3, 4, 5)),
    nn.Embedding: (lambda: nn.Embedding(9, 4, padding_idx=0), None),
}


@pytest.mark.parametrize("kind", LAYERS, ids=lambda c: c.__name__)
def test_constrained_layer_clamps_parameters_and_output(kind):
    make, shape = LAYERS[kind]
    torch.manual_seed(0)
    m = make()
    for p in m.parameters():
        nn.init.normal_(p)
    x = torch.randint(0, 9, (6, 3)) if shape is None else torch.randn(shape) * 2
    plain = copy.deepcopy(m)
    loose = CONSTRAINED[kind].from_float(copy.deepcopy(m), ClampInfo(None, None, None, None))
    for mode in (True, False):
        assert torch.equal(loose.train(mode)(x), plain.train(mode)(x))
    info = ClampInfo(1.5, 0.4, 1.2, None)
    tight = CONSTRAINED[kind].from_float(m, info)
    assert tight is m and (tight.normalize_data, tight.normalize_bias, tight.normalize_factor) == (1.5, 0.4, 1.2)
    clamped = copy.deepcopy(plain)
    with torch.no_grad():
        for name, p in clamped.named_parameters():
            limit = 0.4 if name == "bias" else float(1.2 * p.abs().mean())
            p.clamp_(-limit, limit)
    wanted = clamped.train()(x)
    y = tight.train()(x)
    torch.testing.assert_close(y, wanted.clamp(-1.5, 1.5))
    if not list(m.parameters()):
        return
    y.sum().backward()
    wanted.backward((wanted.abs() <= 1.5).float())
    for p, q, old in zip(tight.parameters(), clamped.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, torch.where(old == q, q.grad, 0.0))


def test_static_weight_limit_wins():
    m = CONSTRAINED[nn.Linear].from_float(nn.Linear(4, 4), ClampInfo(None, None, 7, 0.01))
    assert m.limited_weight(m.weight).abs().max() <= 0.01
    assert "clamp_activation:None, clamp_weight:0.01, clamp_bias:None, clamp_factor:7" in repr(m)


def test_sparse_embedding_trains():
    m = CONSTRAINED[nn.Embedding].from_float(nn.Embedding(9, 4, sparse=True), ClampInfo())
    m(torch.tensor([1, 2])).sum().backward()
    assert m.weight.grad.is_sparse
