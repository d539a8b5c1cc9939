"""Weights that are no Parameter: pruning masks in front of every stage, kept in training and written into the file."""

import copy

import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import linger

LAYERS = {
    "conv2d": (lambda: nn.Conv2d(3, 8, 3), nn.BatchNorm2d, (4, 3, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d, (4, 4, 8, 8)),
    "conv1d": (lambda: nn.Conv1d(3, 8, 3), nn.BatchNorm1d, (4, 3, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 8, 2, 2), nn.BatchNorm2d, (4, 3, 4, 4)),
    "linear": (lambda: nn.Linear(6, 8), nn.BatchNorm1d, (16, 6)),
}


def half(layer):
    prune.l1_unstructured(layer, "weight", 0.5)


def custom(layer):
    prune.custom_from_mask(layer, "weight", (torch.rand(layer.weight.shape) > 0.6).float())


def twice(layer):
    prune.random_unstructured(layer, "weight", 0.3)
    prune.l1_unstructured(layer, "weight", 0.4)


PRUNINGS = {
    "l1": half,
    "custom": custom,
    "twice": twice,
    "channels": lambda layer: prune.ln_structured(layer, "weight", 0.25, n=2, dim=0),
    "random": lambda layer: prune.random_unstructured(layer, "weight", 7),
    "global": lambda layer: prune.global_unstructured([(layer, "weight")], prune.L1Unstructured, amount=0.4),
}


def net(kind):
    make, norm, shape = LAYERS[kind]
    torch.manual_seed(0)
    m = nn.Sequential(make(), norm(8), nn.ReLU()).train()
    x = torch.randn(shape)
    for _ in range(3):
        m(2 * x + 1)
    return m, x


def converted(m, stage, x):
    if "constrain" in stage:
        m = linger.constrain(m)
    if "init" in stage or "step" in stage:
        m = linger.init(m, fold_bn="step" if "step" in stage else "once")
        with linger.calibration(m):
            m(x)
    return m


def train(m, x, steps=3):
    m.train()
    optimizer = torch.optim.SGD(m.parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (m(x) - 1).pow(2).mean().backward()
        optimizer.step()
    return m


def weight_and_mask(m):
    inner = getattr(m[0], "conv", getattr(m[0], "linear", m[0]))
    return inner.weight, inner.weight_mask


STAGES = ["init", "constrain", "constrain init", "constrain step", "step"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("pruning", PRUNINGS)
@pytest.mark.parametrize("kind", LAYERS)
def test_masks_in_front_of_the_conversion_stay(kind, pruning, stage, tmp_path):
    if kind == "transposed" and "step" in stage:
        stage = "init"  # no layer folds in every step there
    m, x = net(kind)
    PRUNINGS[pruning](m[0])
    m(x)
    mask = m[0].weight_mask.clone()
    m = train(converted(m, stage, x), x)
    weight, held = weight_and_mask(m)
    assert torch.equal(held, mask) and torch.equal(weight == 0, mask == 0)
    if stage == "constrain":
        return
    m.eval()
    x = x[:1]
    linger.onnx.export(m, x, tmp_path / "m.onnx")
    codes = next(
        onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.data_type == 3
    )
    if codes.ndim == mask.dim() and codes.shape == tuple(mask.shape):
        assert not codes[mask.numpy() == 0].any()
    assert (codes == 0).sum() >= (mask == 0).sum()
    got = next(iter(linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x.numpy()).values()))
    assert torch.equal(torch.from_numpy(got), m(x).detach())


@pytest.mark.parametrize("fold", ["once", "step"])
@pytest.mark.parametrize("kind", ["conv2d", "grouped", "conv1d", "linear"])
def test_a_pruned_model_computes_what_the_settled_one_does(kind, fold):
    m, x = net(kind)
    half(m[0])
    settled = copy.deepcopy(linger_free(m))
    prune.remove(settled[0], "weight")
    results = []
    for model in (m, settled):
        q = linger.init(model, fold_bn=fold)
        with linger.calibration(q):
            q(x)
        results.append(q.eval()(x).detach())
    assert torch.equal(*results)


def linger_free(m):
    """torch copies no computed tensors."""
    m[0].weight = m[0].weight.detach()
    return m


@pytest.mark.parametrize("pruning", PRUNINGS)
@pytest.mark.parametrize("stage", ["init", "constrain", "constrain init", "step"])
def test_masks_after_the_conversion(stage, pruning, tmp_path):
    m, x = net("conv2d")
    m = converted(m, stage, x)
    PRUNINGS[pruning](getattr(m[0], "conv", m[0]))
    m = train(m, x)
    weight, mask = weight_and_mask(m)
    assert torch.equal(weight == 0, mask == 0) and int((mask == 0).sum()) > 0
    if stage == "constrain":
        m = linger.init(m)
        train(m, x)
        assert torch.equal(m[0].weight == 0, mask == 0)
    elif stage == "constrain init":
        assert "venusA" in str(linger.check(m, "venusA", x))  # works on a copy


def test_pruned_bias_and_norm():
    m, x = net("conv2d")
    prune.l1_unstructured(m[0], "bias", 2)
    prune.l1_unstructured(m[1], "weight", 3)
    reference = m.eval()(x).detach()
    dead = (m[1].weight == 0).nonzero().flatten()
    for stage in ("constrain", "init"):
        m = converted(m, stage, x)
        train(m, x, 1)
        assert m.eval()(x).shape == reference.shape
    assert not m[0].weight[dead].any()


def test_dynamic_weights_keep_their_norm():
    """A weight that code of the user's computes: nothing to fold into, the BatchNorm stands alone."""

    class Standardised(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.raw = nn.Parameter(self.conv.weight.detach().clone())
            del self.conv.weight
            self.conv.weight = self.raw * 1.0

        def forward(self, x):
            self.conv.weight = self.raw - self.raw.mean((1, 2, 3), keepdim=True)
            return self.bn(self.conv(x))

    x = torch.randn(4, 3, 8, 8)
    for stage in ("init", "constrain", "step"):
        m = train(converted(Standardised(), stage, x), x)
        assert isinstance(m.bn, nn.BatchNorm2d) and m.raw.grad is not None


def test_a_weight_among_the_buffers_is_folded():
    m, x = net("conv2d")
    weight = m[0].weight.detach()
    del m[0].weight
    m[0].register_buffer("weight", weight)
    want = m.eval()(x).detach()
    q = linger.init(m)
    with linger.calibration(q):
        q(x)
    assert type(q[1]).__name__ == "EmptyBatchNorm" and (q.eval()(x) - want).abs().mean() < 0.1 * want.abs().mean()
