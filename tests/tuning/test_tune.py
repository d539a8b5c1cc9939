"""``linger.tune``: it brings what it says, by settings that anybody can repeat, and leaves the given model as it is."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger import settings
from linger.onnx import OnnxRunner
from tests.tuning.digits_nets import NETS, digits, trained


class Net(nn.Module):
    """Uneven channels, an outlier weight, a mean of many values: what a search can mend."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.fc = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        y = F.relu(self.b(F.relu(self.norm(self.a(x)))))
        return self.fc(y.mean((2, 3)))


def made():
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        model.norm.weight.copy_(2.0 ** torch.arange(-4, 4))
        model.b.weight[0, 0, 0, 0] = 4 * model.b.weight.abs().max()
    return model, torch.randn(16, 1, 12, 12)


def sqnr(wanted, got):
    wanted, got = wanted.detach(), got.detach()
    return float(10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum()))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    model, x = made()
    before = copy.deepcopy(model.state_dict()), settings.current(), torch.get_rng_state()
    path = tmp_path_factory.mktemp("tune") / "tuned.yaml"
    found = linger.tune(model, [x[:8], x[8:]], path=path, progress=False)
    return model, x, found, path, before


def test_outputs_get_closer_and_the_given_model_stays(tuned):
    model, x, found, _, (weights, current, random) = tuned
    wanted = model(x).detach()
    default = linger.init(copy.deepcopy(model))
    with linger.calibration(default):
        default(x[:8])
        default(x[8:])
    assert found.steps[0].sqnr == pytest.approx(sqnr(wanted, default.eval()(x)), abs=0.1)
    assert sqnr(wanted, found.model.eval()(x)) == pytest.approx(found.steps[-1].sqnr, abs=0.1)
    assert found.steps[-1].sqnr > found.steps[0].sqnr + 6
    assert [s.sqnr for s in found.steps] == sorted(s.sqnr for s in found.steps)
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), model.state_dict().values(), strict=True))
    assert type(model.a) is nn.Conv2d
    assert settings.current() == current
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training and not any(m._forward_hooks for m in model.modules())


def test_scales_between_layers_move_and_the_float_network_stays_bit_for_bit(tuned):
    model, x, found, _, _ = tuned
    assert "scales moved between layers" in [s.what for s in found.steps]
    moved = found.model.b.weight.detach() / model.b.weight.detach()
    powers = torch.log2(moved.abs().clamp_min(1e-30))
    assert (powers == powers.round()).all() and powers.unique().numel() > 1
    with linger.quantization(found.model, False):
        torch.testing.assert_close(found.model.eval()(x), model(x), rtol=1e-5, atol=1e-5)  # the BatchNorm is folded


def test_the_file_repeats_the_settings(tuned):
    model, x, found, path, _ = tuned
    assert path.read_text() == found.yaml
    again = linger.init(copy.deepcopy(model), config_file=path)
    again.load_state_dict(found.model.state_dict())
    assert torch.equal(again.eval()(x), found.model.eval()(x))


def test_the_model_can_be_exported_and_trained(tuned, tmp_path):
    _, x, found, _, _ = tuned
    model = copy.deepcopy(found.model).eval()
    linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
    (value,) = OnnxRunner(tmp_path / "m.onnx").run(x[:1].numpy()).values()
    assert (torch.from_numpy(value) == model(x[:1])).all()
    model.train()(x).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_report(tuned):
    found = tuned[2]
    text = str(found)
    assert text.startswith("linger.tune, venusA, ") and max(map(len, text.splitlines())) <= 100
    assert "default settings" in text
    assert set(found.to_dict()) == {"steps", "scores", "trials", "note", "yaml"}


def test_a_goal_that_needs_16_bits():
    """The score is the number of bits of the logits that are right: 8 do not hold it."""
    model, x = made()
    wanted = model(x)
    with torch.no_grad():
        found = linger.tune(model, x, lambda m: min(sqnr(wanted, m(x)), 60.0), max_loss=1.0, progress=False)
    assert "output_bits: 16" in found.yaml
    assert found.scores[0] == 60.0
    assert found.scores[1] < found.scores[2]
    assert found.note == "" or "training has to do the rest" in found.note


def test_a_score_that_does_not_follow_keeps_the_default():
    model, x = made()
    scores = iter([1.0, 0.9, 0.9, *[0.1] * 1000])
    found = linger.tune(model, x, lambda m: next(scores), progress=False)
    assert found.scores == (1.0, 0.9, 0.9)
    assert "later change(s) helped the batches, but not evaluate's score" in found.note
    assert [s.what for s in found.steps] == ["default settings"]


def test_sections_of_the_file_stay(tmp_path):
    model, x = made()
    config = tmp_path / "c.yaml"
    config.write_text("platform: arcs\nhead:\n  name: [fc]\n  quant_info: {output_bits: 32}\n")
    found = linger.tune(model, x, config_file=config, equalise=False, progress=False)
    assert found.settings.platform == "arcs"
    assert found.model.fc.output_quantizer.bits == 32
    assert settings.loads(found.yaml).layer("fc").output_bits == 32


def test_progress_is_told_line_by_line(capsys):
    model, x = made()
    linger.tune(model, x[:2], equalise=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "linger.tune: trial 1: default settings"
    assert "dB so far: w_strategy: LEAST_ERROR" in lines[1]


def test_wrong_arguments():
    model, x = made()
    with pytest.raises(ValueError, match="the model is initialised already"):
        linger.tune(linger.init(copy.deepcopy(model)), x)
    with pytest.raises(ValueError, match="calibration_batches gave no batch"):
        linger.tune(model, [])
    with pytest.raises(ValueError, match="max_loss is a loss of evaluate's score"):
        linger.tune(model, x, max_loss=0.1)
    with pytest.raises(TypeError, match="evaluate must be a function of a model, got int"):
        linger.tune(model, x, 3)
    with pytest.raises(TypeError, match="model must be"):
        linger.tune(3, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_published_nets_gain_6_db(name):
    model, (x, y) = trained(name), digits()

    def accuracy(m):
        with torch.no_grad():
            return float((m(x[1500:]).argmax(1) == y[1500:]).float().mean())

    found = linger.tune(model, [x[:64], x[64:128]], progress=False)
    print(name, found)
    assert found.steps[-1].sqnr >= found.steps[0].sqnr + 6
    with torch.no_grad():
        rest = sqnr(model(x[128:]), found.model.eval()(x[128:]))  # digits that no trial has seen
    assert rest >= found.steps[0].sqnr + 5
    assert accuracy(found.model) >= accuracy(model) - 0.01
