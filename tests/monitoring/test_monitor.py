"""``linger.monitor`` on trainings that go well and on ones that break; the numbers of the training stay as they are."""

import io
import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).flatten(1))


def made(seed=0):
    torch.manual_seed(seed)
    model, x = linger.init(Net()), torch.randn(16, 1, 8, 8)
    y = x.mean((1, 2, 3)).gt(0).long()
    with linger.calibration(model):
        model(x)
    return model, x, y


def train(model, x, y, steps, lr=0.05, watch=None):
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if watch is not None:
            watch.loss(loss)
        loss.backward()
        optimizer.step()


class Writer:
    def __init__(self):
        self.scalars, self.histograms = {}, {}

    def add_scalar(self, tag, value, step):
        self.scalars.setdefault(tag, []).append((step, float(value)))

    def add_histogram(self, tag, values, step):
        self.histograms.setdefault(tag, []).append((step, values))


def test_a_training_that_goes_well_says_nothing_and_stays_as_it_is():
    (plain, x, y), (watched, *_) = made(), made()
    train(plain, x, y, 12, 0.002)
    stream = io.StringIO()
    with linger.monitor(watched, every=5, stream=stream) as m:
        train(watched, x, y, 12, 0.002, watch=m)
    assert m.steps == 12
    assert m.events == []
    assert list(m.layers) == ["conv", "fc"]
    assert all(layer.finite and layer.bits == 8 and layer.saturated < 0.1 for layer in m.layers.values())
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        f"linger.monitor: step {n}" for n in (1, 6, 11)
    ]
    assert "loss" in stream.getvalue().splitlines()[1]
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not any(len(module._forward_hooks) for module in watched.modules())


@pytest.mark.parametrize("told", [True, False], ids=["loss told", "results only"])
@pytest.mark.parametrize("rate", [50.0, 1e4])
def test_an_explosion_names_the_first_layer_within_a_few_steps(told, rate):
    model, x, y = made()
    with linger.monitor(model, every=1000, stream=io.StringIO()) as m:
        train(model, x, y, 6, watch=m if told else None)
        train(model, x, y, 8, rate, watch=m if told else None)
    (event,) = [e for e in m.events if e.kind == "explosion"]
    assert event.layer in ("conv", "fc")
    assert f"'{event.layer}' is the first that breaks" in event.text
    assert "linger.suggest_lr" in event.text
    assert event.step <= 6 + 5


def test_stop_raises_with_the_same_sentence():
    model, x, y = made()
    with linger.monitor(model, every=1000, stream=io.StringIO(), stop=True) as m:
        train(model, x, y, 6, watch=m)
        with pytest.raises(linger.Diverged, match="is the first that breaks"):
            train(model, x, y, 20, 1e4, watch=m)
    train(model, x, y, 1)  # nothing is left behind


def test_a_nan_names_the_first_layer_that_has_it():
    model, x, _ = made()
    with linger.monitor(model, every=1, stream=io.StringIO()) as m:
        model(x * math.nan)
    (event,) = m.events
    assert (event.kind, event.layer) == ("not finite", "conv")


def test_saturated_and_zero_layers_are_said_once():
    model, x, _ = made()
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()
        model.conv.output_quantizer.running_data.fill_(1e-3)
        model.conv.output_quantizer.scale.fill_(2.0**16)
    linger.freeze_statistics(model)
    with linger.monitor(model, every=1, stream=io.StringIO()) as m:
        for _ in range(3):
            model(x)
    assert [(e.step, e.kind, e.layer) for e in m.events] == [(1, "zeros", "fc"), (2, "saturated", "conv")]
    assert "output_bits: 16" in m.events[1].text


def test_moved_exponents():
    model, x, _ = made()
    stream = io.StringIO()
    with linger.monitor(model, every=1, stream=stream) as m:
        model(x)
        for _ in range(40):
            model(x * 64)
    assert m.moved == {} or all(by == round(by) for by in m.moved.values())
    assert "exponent(s) moved (conv.input_quantizer" in stream.getvalue()


def test_writer_gets_scalars_and_histograms():
    model, x, y = made()
    writer = Writer()
    with linger.monitor(model, every=2, writer=writer, stream=(stream := io.StringIO())) as m:
        train(model, x, y, 4, watch=m)
    assert stream.getvalue() == ""
    assert {t.split("/")[1] for t in writer.scalars} == {"loss", "saturated", "zeros", "exponent"}
    assert [s for s, _ in writer.scalars["linger/zeros/conv"]] == [1, 3]
    assert len(writer.scalars["linger/loss"]) == 4
    ((step, values), _) = writer.histograms["linger/results/conv"]
    assert step == 1
    assert values.shape == (16, 4, 6, 6)
    assert values.abs().max() < 100


def test_only_training_forwards_count():
    model, x, _ = made()
    with linger.monitor(model, stream=io.StringIO()) as m:
        with torch.no_grad():
            model(x)
        model.eval()(x)
        assert m.steps == 0
        model.train()(x)
    assert m.steps == 1
    assert set(m.to_dict()) == {"steps", "layers", "moved", "events"}


def test_a_failing_forward_leaves_no_hooks():
    model, _, _ = made()
    with linger.monitor(model, every=1, stream=io.StringIO()), pytest.raises(ValueError, match="3 channels"):
        model(torch.randn(2, 3, 8, 8))
    assert not any(len(module._forward_hooks) for module in model.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        linger.monitor(3)
    with pytest.raises(ValueError, match=r"nothing in the model is quantized: call linger\.init first"):
        linger.monitor(nn.Linear(2, 2))
    model, _, _ = made()
    with pytest.raises(ValueError, match="every must be a number of steps from 1, got 0"):
        linger.monitor(model, every=0)
    with pytest.raises(linger.UnsupportedError, match="compiled code hides its layers"):
        linger.monitor(torch.compile(model))


def test_suggested_rates():
    assert linger.suggest_lr(1e-2) == pytest.approx(1e-3)
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.2)]
    assert linger.suggest_lr(torch.optim.SGD(groups)) == pytest.approx([0.01, 0.02])
    with pytest.raises(TypeError, match="a number or an optimizer, got str"):
        linger.suggest_lr("fast")
    with pytest.raises(ValueError, match="above 0, got -1"):
        linger.suggest_lr(-1)


# ---- frameworks: their packages are not needed, their protocols are


@pytest.fixture
def lightning(monkeypatch):
    module = types.ModuleType("lightning.pytorch.callbacks")
    module.Callback = type("Callback", (), {})
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_lightning_callback(lightning):
    model, x, y = made()
    writer = Writer()
    trainer = types.SimpleNamespace(loggers=[types.SimpleNamespace(experiment=writer)])
    callback = linger.lightning_callback(every=2)
    assert isinstance(callback, lightning.Callback)
    callback.on_train_start(trainer, model)
    for i in range(4):
        callback.on_train_batch_start(trainer, model, (x, y), i)
        loss = F.cross_entropy(model.fc(F.relu(model.conv(x)).flatten(1)), y)  # training_step, not forward
        callback.on_train_batch_end(trainer, model, {"loss": loss}, (x, y), i)
    callback.on_train_end(trainer, model)
    assert callback.monitor.steps == 4
    assert [s for s, _ in writer.scalars["linger/saturated/conv"]] == [1, 3]
    assert len(writer.scalars["linger/loss"]) == 4


def test_trainer_callback(monkeypatch):
    module = types.ModuleType("transformers")
    module.TrainerCallback = type("TrainerCallback", (), {})
    monkeypatch.setitem(sys.modules, "transformers", module)
    model, x, y = made()
    callback = linger.trainer_callback(every=1, stream=io.StringIO())
    assert isinstance(callback, module.TrainerCallback)
    callback.on_train_begin(None, None, None, model=model)
    train(model, x, y, 2)
    callback.on_log(None, None, None, logs={"loss": 0.5})
    callback.on_train_end(None, None, None)
    assert callback.monitor.steps == 2
    assert "conv" in callback.monitor.layers
    assert not any(len(m._forward_hooks) for m in model.modules())


def test_frameworks_that_are_not_there(monkeypatch):
    for name in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="lightning_callback needs one of the packages lightning, pytorch_lightning"):
        linger.lightning_callback()
    with pytest.raises(ImportError, match="trainer_callback needs one of the packages transformers"):
        linger.trainer_callback()
