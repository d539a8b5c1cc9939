"""Calibration and frozen statistics seen from a whole model."""

import copy

import pytest
import torch
from torch import nn

import linger
from linger.quantizers import Quantizer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.pool = nn.AvgPool2d(3)
        self.fc = nn.Linear(6 * 4, 5)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = x + self.bn(self.conv2(x))
        return self.fc(self.pool(x).flatten(1))


def build(tmp_path, method="MOM"):
    torch.manual_seed(0)
    linger.config_save_to_yaml(str(tmp_path / "config.yaml"))
    text = (tmp_path / "config.yaml").read_text().replace("qat_method: MOM", f"qat_method: {method}")
    (tmp_path / "config.yaml").write_text(text)
    return linger.init(Net(), config_file=str(tmp_path / "config.yaml"))


def used(model):
    """Quantizers of the forward: those that stay without data take their operand's format over."""
    return {n: q for n, q in model.named_modules() if isinstance(q, Quantizer) and q.role != "bias" and q.ready}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_calibration_sets_every_quantizer_that_is_used(tmp_path, method, train):
    model = build(tmp_path, method).train(train)
    batches = [torch.randn(8, 2, 6, 6) for _ in range(3)]
    with linger.calibration():
        for batch in batches:
            model(batch)
        assert not used(model)
    ready = used(model)
    assert set(ready) == {
        "conv1.input_quantizer", "conv1.weight_quantizer", "conv1.output_quantizer", "conv2.weight_quantizer",
        "conv2.output_quantizer", "fc.weight_quantizer", "fc.output_quantizer", "_linger_qtensor_qadd_0.output_quantizer",
    }  # fmt: skip
    assert all(q.n_batches.item() == 3 for q in ready.values())
    assert model.training is train
    magnitudes = [b.abs().flatten().topk(10).values[9] for b in batches]
    source = model.conv1.input_quantizer
    limit = source.running_data if method == "MOM" else source.learning_data.exp2()
    assert limit.item() == pytest.approx(torch.stack(magnitudes).mean().item(), rel=1e-6)
    heaviest = model.fc.weight.abs().max().item()
    weight = model.fc.weight_quantizer
    limit = weight.running_data if method == "MOM" else weight.learning_data.exp2()
    assert limit.item() == pytest.approx(heaviest, rel=1e-6)
    out = model.eval()(batches[0])
    assert out.isfinite().all() and out.unique().numel() > 5


def test_calibration_clamps_weights_once(tmp_path):
    model = build(tmp_path)
    with torch.no_grad():
        model.fc.weight[0, 0] = 100.0
    limit = 7 * model.fc.weight.abs().mean().item()
    with linger.calibration():
        model(torch.randn(4, 2, 6, 6))
        model(torch.randn(4, 2, 6, 6))
    assert model.fc.weight[0, 0].item() == pytest.approx(limit, rel=1e-6)
    before = model.fc.weight.detach().clone()
    model.train()(torch.randn(4, 2, 6, 6))
    assert torch.equal(before, model.fc.weight)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_an_exception_leaves_the_statistics(tmp_path, method):
    model = build(tmp_path, method)
    with linger.calibration():
        model(torch.randn(4, 2, 6, 6))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError), linger.calibration():
        model(10 * torch.randn(4, 2, 6, 6))
        model(torch.randn(4, 3, 6, 6))  # wrong number of channels
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    model.train()(torch.randn(4, 2, 6, 6)).sum().backward()


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_frozen_training_forward_is_the_eval_forward(tmp_path, method):
    model = build(tmp_path, method)
    x = torch.randn(8, 2, 6, 6)
    with linger.calibration():
        model(x)
    before = copy.deepcopy(model.state_dict())
    with linger.freeze_statistics(model):
        trained = model.train()(x)
        trained.sum().backward()
        evaluated = model.eval()(x)
    assert torch.equal(trained, evaluated)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    trained_names = [n for n, p in model.named_parameters() if p.grad is not None]
    assert {"conv1.weight", "conv2.bias", "fc.weight"} <= set(trained_names)
    assert method == "MOM" or {"conv1.output_quantizer.learning_data", "fc.weight_quantizer.learning_data"} <= set(
        trained_names
    )
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.train()(x)
    assert model.conv1.output_quantizer.n_batches.item() == before["conv1.output_quantizer.n_batches"].item() + 1


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_checkpointing_counts_a_batch_once(method, tmp_path):
    from torch.utils.checkpoint import checkpoint

    model, x = build(tmp_path, method).train(), torch.randn(4, 2, 6, 6)
    plain = copy.deepcopy(model)
    checkpoint(model, x, use_reentrant=False).sum().backward()
    plain(x).sum().backward()
    for (name, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad)
