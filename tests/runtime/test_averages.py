"""Averages of models: torch's AveragedModel with and without buffers, and the copies that training scripts keep by hand."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

import linger
from linger.runtime import info
from tests.runtime.models import TwoAdds

WAYS = {
    "mean": dict,
    "ema": lambda: {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)},
    "ema one by one": lambda: {"avg_fn": swa_utils.get_ema_avg_fn(0.9)},
}


def _use(method, folder):
    path = folder / "config.yaml"
    path.write_text(f"quant_info: {{qat_method: {method}}}\n")
    linger.settings.use(linger.settings.load(str(path)))


def _train(model, updates, steps=6):
    """Steps on data whose range grows, so that scales move."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for i in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 8) * 2**i).square().mean().sqrt().backward()
        optimizer.step()
        updates(i)


def _nearest_power(running, bits=8):
    return 2.0 ** min(max(bits - 1 - round(math.log2(running)), 0), 23)


def _check(average, x):
    """An average is a model: its integers follow from its own averaged state, and it can go on training."""
    y = average.eval()(x)
    assert torch.isfinite(y).all() and info(y) is not None
    assert torch.equal(copy.deepcopy(average)(x), y)
    for m in average.modules():
        if isinstance(m, linger.nn.LinearInt) and m.quant.method == "MOM":
            running = float(m.output_quantizer.running_data)
            out = m.output_quantizer(torch.randn(4, 8))
            assert float(out.scale) == _nearest_power(running)
    average.train()(x).sum().backward()
    layers = [m for m in average.modules() if isinstance(m, linger.nn.LinearInt)]
    assert all(math.frexp(float(m.output_quantizer.scale))[0] == 0.5 for m in layers)


@pytest.mark.filterwarnings("ignore:linger. these quantizers have seen no data")
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("way", list(WAYS))
def test_averaged_model(way, buffers, method, tmp_path):
    _use(method, tmp_path)
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = linger.init(TwoAdds(), example_inputs=x)
    average = swa_utils.AveragedModel(model, use_buffers=buffers, **WAYS[way]())
    _train(model, lambda i: average.update_parameters(model))
    assert not torch.equal(average.module.a.weight, model.a.weight)
    if method == "MOM":
        mine, theirs = (float(m.a.output_quantizer.running_data) for m in (average.module, model))
        assert (mine != theirs) is buffers  # without buffers torch copies them
    _check(average.module, x)


class _Ema:
    """The average that many training scripts keep by hand."""

    def __init__(self, model, decay=0.9):
        self.model, self.decay = copy.deepcopy(model).eval(), decay
        for p in self.model.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            mine.copy_(mine * self.decay + theirs * (1 - self.decay))


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_a_copy_averaged_by_hand(method, tmp_path):
    _use(method, tmp_path)
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = linger.init(TwoAdds(), example_inputs=x)
    model(x)
    ema = _Ema(model)
    _train(model, lambda i: ema.update(model))
    _check(ema.model.requires_grad_(True), x)
    fresh = linger.init(TwoAdds())
    fresh.load_state_dict(ema.model.state_dict())
    assert torch.equal(fresh.eval()(x), ema.model.eval()(x))


def test_an_average_is_exported_as_it_computes(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 8)
    model = linger.init(TwoAdds(), example_inputs=x)
    average = swa_utils.AveragedModel(model, use_buffers=True)
    _train(model, lambda i: average.update_parameters(model))
    linger.onnx.export(average.module, x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run([x]).values()
    assert torch.equal(torch.from_numpy(got), average.module.eval()(x).detach())


def test_batch_norm_of_folding_layers_is_averaged_too():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    model = linger.init(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), fold_bn="step", example_inputs=x)
    average = swa_utils.AveragedModel(model, use_buffers=True)
    for i in range(4):
        model(x * 2**i)
        average.update_parameters(model)
    assert torch.isfinite(average.eval()(x)).all()
    swa_utils.update_bn([x], average)


def test_weights_written_behind_autograd_are_seen():
    """Scripts write through ``.data`` or numpy, where torch counts no versions."""
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model, fresh = linger.init(TwoAdds(), example_inputs=x), linger.init(TwoAdds())
    model(x)
    model.eval()

    def check():
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(model(x), fresh.eval()(x))

    with torch.no_grad():
        check()
        for p in model.parameters():
            p.data.mul_(0.5)
        check()
        for p in model.parameters():
            p.numpy()[...] *= 0.5
        check()
        for p in model.parameters():
            p.data = p.data * 0.5
        check()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_an_average_of_recurrent_layers_has_the_scale_of_its_averaged_state(kind, tmp_path):
    """Its averaged ``scale`` is no power of two; the averaged maximum says the exponent, in eval, in training and in the file."""
    _use("MOM", tmp_path)
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(4, 8, bias=False)  # its state follows the input

        def forward(self, x):
            return self.rnn(x)[0]

    model = linger.init(Net())
    average = swa_utils.AveragedModel(model, use_buffers=True)
    for i in range(8):  # states grow, so that the scale moves
        model(2.0 ** (i - 7) * torch.randn(5, 1, 4))
        average.update_parameters(model)
    mine = average.module
    quantizer = mine.rnn.output_quantizer
    assert math.frexp(float(quantizer.scale))[0] != 0.5
    expected = _nearest_power(float(quantizer.running_data))
    x = torch.randn(5, 1, 4)
    y = mine.eval()(x)
    assert float(info(y).scale) == expected and torch.equal(y * expected, (y * expected).round())
    linger.onnx.export(mine, x, tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run([x]).values()
    assert torch.equal(torch.from_numpy(got), y.detach())
    assert float(info(mine.train()(x)).scale) == expected
