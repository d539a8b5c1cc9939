"""After a calibration alone every scale is the one that the next forward uses, bounded where an operator bounds it."""

import pytest
import torch
from torch import nn

import linger
from linger.runtime import info

PLATFORMS = ("arcs", "mars", "venusA", "venus")
METHODS = ("MOM", "TQT")


class Layers(nn.Module):
    """Small results of layers and operators: their own range would give scales that no chip reaches."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True)
        self.up = nn.ConvTranspose1d(16, 8, 2)
        self.bn = nn.BatchNorm1d(8)
        self.gru = nn.GRU(8, 6, batch_first=True)
        self.fc = nn.Linear(6, 5)
        with torch.no_grad():
            for m in (self.norm, self.up, self.fc):
                m.weight.mul_(1e-3)
                m.bias.mul_(1e-3)

    def forward(self, x):
        y = self.norm(self.conv(x).transpose(1, 2))
        y = self.bn(self.up(self.lstm(y)[0].transpose(1, 2))).transpose(1, 2)
        y = y * torch.sigmoid(y) * 1e-3
        y = y + self.gru(y)[0].sum(2, keepdim=True) * 1e-3
        y = self.fc(self.gru(y)[0])
        return torch.bmm(y, y.transpose(1, 2))


def initialised(model, tmp_path, text):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    return linger.init(model, str(config))


def results_of(model, x):
    """Scale of each result in one forward, by the quantizer that gave it."""
    seen = {}

    def look(module, args, y):
        y = y[0] if isinstance(y, tuple) else y
        seen[module.output_quantizer] = float(info(y).scale)

    hooks = [m.register_forward_hook(look) for m in model.modules() if hasattr(m, "output_quantizer")]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_scales_stand_after_calibration(platform, method, tmp_path):
    torch.manual_seed(3)
    model = initialised(Layers(), tmp_path, f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    x = torch.randn(2, 6, 7)
    with linger.calibration():
        model(0.5 * x)
        model(x)
    seen = results_of(model.eval(), x)
    assert len(seen) == 13
    assert {q.name: float(q.scale) for q in seen} == {q.name: scale for q, scale in seen.items()}


@pytest.mark.parametrize("method", METHODS)
def test_wide_head_is_bounded_by_its_sum(method, tmp_path):
    torch.manual_seed(0)
    text = f"platform: venus\nquant_info:\n  qat_method: {method}\nhead:\n  name: ['1']\n"
    model = initialised(
        nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 4, bias=False)),
        tmp_path,
        text + "  quant_info:\n    output_bits: 16\n",
    )
    x = torch.randn(3, 8)
    with linger.calibration():
        model(x)
    head = model[1]
    model.eval()
    y = model(x)
    quantizer = head.output_quantizer
    own = 15 - (quantizer.running_data.log2() if method == "MOM" else quantizer.learning_data.detach()).round()
    assert quantizer.scale == info(y).scale == info(model[0](x)).scale * head.weight_quantizer.scale < 2.0**own


def test_large_bias_lowers_the_weight_scale(tmp_path):
    torch.manual_seed(0)
    model = initialised(nn.Sequential(nn.Linear(4, 2)), tmp_path, "platform: arcs\n")
    with torch.no_grad():
        model[0].weight.mul_(1e-5)
        model[0].bias.fill_(3e4)
    with linger.calibration():
        model(torch.randn(8, 4))
    scales = model[0].input_quantizer.scale * model[0].weight_quantizer.scale
    assert 2.0**30 <= 3e4 * scales < 2.0**31


def test_a_model_that_does_not_fit_is_left_to_its_forward(tmp_path):
    """The calibration runs in float and ends; the forward says what no chip computes."""

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.a(x))

    text = "platform: venus\nwide:\n  name: [a]\n  quant_info:\n    output_bits: 16\n"
    model = initialised(Product(), tmp_path, text)
    x = torch.randn(3, 4)
    with linger.calibration():
        model(x)
    assert model.b.output_quantizer.ready
    with pytest.raises(linger.errors.UnsupportedError, match="the operand has 16 bits"):
        model(x)


def test_frozen_quantizers_keep_their_scale(tmp_path):
    model = initialised(nn.Sequential(nn.Linear(4, 2)), tmp_path, "platform: arcs\n")
    x = torch.randn(8, 4)
    with linger.calibration():
        model(x)
    quantizer = model[0].output_quantizer
    before = float(quantizer.scale)
    quantizer.frozen = True
    with linger.calibration():
        model(1000.0 * x)
    assert float(quantizer.scale) == before
