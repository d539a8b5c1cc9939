"""Values above what eight bits hold at scale 1, and outputs that a limit cuts, are named with their share and what helps."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger


class Large(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.fc, self.out = nn.Linear(6, 16), nn.Linear(16, 2)
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3)
        if how == "bias":
            self.out.bias.data = torch.tensor([500.0, -300.0])
        if how == "relu":
            self.fc.bias.data.fill_(400.0)

    def forward(self, x):
        match self.how:
            case "bias":
                return self.out(F.relu(self.fc(x)))
            case "relu":
                return F.relu(self.fc(x))
            case "image":
                return self.conv(x)
            case "norm alone":
                return self.norm(x)
            case "coordinates":
                return self.fc(x).sigmoid() * 600.0
            case "shifted":
                return self.fc(x) + 300.0
            case "sum":
                y = self.fc(x)
                return y + torch.full_like(y, 300.0)


CASES = {
    "bias": ("out", "output", (1, 6), 1.0),
    "relu": ("fc", "output", (1, 6), 1.0),
    "image": ("conv", "input", (1, 3, 8, 8), 255.0),
    "norm alone": ("norm", "input", (1, 3, 8, 8), 255.0),
    "coordinates": ("_linger_qtensor_qmul_1", "output", (1, 6), 1.0),
    "shifted": ("_linger_qtensor_qadd_0", "output", (1, 6), 1.0),
    "sum": ("_linger_qtensor_qadd_0", "input", (1, 6), 1.0),
}


@pytest.mark.parametrize("qat", ["MOM", "TQT"])
@pytest.mark.parametrize("how", CASES)
def test_saturated_values_are_named(how, qat, tmp_path, caplog):
    layer, place, shape, scale = CASES[how]
    torch.manual_seed(0)
    (tmp_path / "c.yaml").write_text(f"quant_info: {{qat_method: {qat}, a_calibrate_name: abs_max}}\n")
    q, x = linger.init(Large(how), config_file=tmp_path / "c.yaml"), torch.rand(shape) * scale
    with caplog.at_level(logging.WARNING, "linger"), linger.calibration(q):
        q(x)
    said = [r.getMessage() for r in caplog.records if "values are cut" in r.getMessage()]
    helps = "normalise the input" if place == "input" else "output_bits: 16 or 32"
    assert len(said) == 1
    for text in (said[0], str(linger.summary(q))):
        line = next(line for line in text.splitlines() if f"{layer}: {place}" in line and "saturate" in line)
        assert "%" in line and "127" in line and helps in line
    found = [
        v for v in linger.check(q, "venusA", x).warnings if v.layer == layer and v.what == f"{place} values saturate"
    ]
    assert len(found) == 1 and "%" in found[0].value and helps in found[0].remedy


def test_ranges_of_a_trained_or_loaded_model_are_seen_too(tmp_path):
    (tmp_path / "c.yaml").write_text("clamp_info: {clamp_activation_value: null}\n")
    q = linger.init(Large("bias"), config_file=tmp_path / "c.yaml")
    q.train()(torch.randn(8, 6))
    assert "out: output: values saturate at 127" in str(linger.summary(q))
    again = linger.init(Large("bias"))
    again.load_state_dict(q.state_dict())
    assert "out: output: values saturate at 127" in str(linger.summary(again))


def test_the_setting_helps(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text(
        "platform: venusA\nquant_info: {a_calibrate_name: abs_max}\nhead: {name: [out], quant_info: {output_bits: 32}, "
        "clamp_info: {clamp_activation_value: null}}\n"
    )
    q, x = linger.init(Large("bias"), config_file=tmp_path / "c.yaml"), torch.randn(8, 6)
    with linger.calibration(q):
        q(x)
    assert "values are cut" not in caplog.text and "saturate" not in str(linger.summary(q))
    assert (q.eval()(x).mean(0) - torch.tensor([500.0, -300.0])).abs().max() < 2


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_ordinary_models_are_not_named(share, caplog):
    torch.manual_seed(0)
    q, x = linger.init(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))), torch.randn(32, 6) * share
    with linger.calibration(q):
        q(x)
    assert "cut" not in caplog.text and "saturate" not in str(linger.summary(q))
    assert not [v for v in linger.check(q, "venusA", x[:1]) if "saturate" in v.what]


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 4), nn.Conv1d(6, 4, 1), nn.LayerNorm(6), nn.BatchNorm1d(6), nn.Conv2d(6, 4, 1)]
)
def test_limits_of_the_constrained_stage_name_what_they_cut(layer, caplog):
    shape = {nn.Conv1d: (8, 6, 5), nn.Conv2d: (8, 6, 5, 5)}.get(type(layer), (8, 6))
    m, x = linger.constrain(nn.Sequential(layer)), torch.randn(shape)
    with torch.no_grad():
        m[0].bias.fill_(20.0)
    for _ in range(2):
        m.train()(x), m.eval()(x)
    lines = [r.getMessage() for r in caplog.records if "clamp_activation_value 8 cuts" in r.getMessage()]
    assert len(lines) == 2 and all("0: " in line and "null it" in line for line in lines)  # once in each mode
