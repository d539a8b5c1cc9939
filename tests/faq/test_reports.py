"""The users' FAQ on results that are not good enough: gaps between scales, data of another range, extreme BatchNorms."""

import copy
import math

import pytest
import torch
from torch import nn

import linger
from tests.faq.nets import Net, X, float_net, ready


class Gap(nn.Module):
    """Two branches, one 64 times as large as the other."""

    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.c, self.join = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3), join
        with torch.no_grad():
            for p, q in zip(self.a.parameters(), self.b.parameters(), strict=True):
                p.mul_(0.25)
                q.copy_(64 * p)

    def forward(self, x):
        return self.c(self.join(self.a(x), self.b(x)))


JOINS = {
    "add": ("_linger_qtensor_qadd_0", lambda y, z: y + z),
    "cat": ("_linger_qtensor_qcat_0", lambda y, z: torch.cat([y, z], 1)[:, 3:9]),
}


@pytest.mark.parametrize("name", JOINS)
def test_faq_f24_a_gap_between_scales_is_measured_in_bits(name, tmp_path):
    operator, join = JOINS[name]
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

    def build(*arguments) -> nn.Module:
        torch.manual_seed(0)
        model = linger.init(Gap(join), *arguments)
        with linger.calibration(model, a_calibrate_name="abs_max"):
            model(x)
        return model.eval()

    model = build()
    (gap,) = [f for f in linger.diagnose(model, x).findings if f.kind == "scale gap"]
    assert gap.layer == operator and gap.text.startswith("6 bits of 'a' are lost: its range is 64 times smaller")
    assert operator in str(gap.cure.sections) or "scale 'a' up by 64" in gap.remedy
    (tmp_path / "c.yaml").write_text(f"gap:\n  name: [{operator}]\n  open_quant: false\n")
    cured = build(str(tmp_path / "c.yaml"))
    found = linger.summary(cured)
    assert [str(i).split(" stays")[0].split()[-1] for i in found.islands] == [name]  # only this operator
    assert {"a", "b", "c"} <= {row[0] for row in found.rows if row[1] == "LinearInt"}
    assert not [f for f in linger.diagnose(cured, x).findings if f.kind == "scale gap"]


def test_faq_f25_data_of_another_range_are_compared_with_the_statistics():
    model = ready(float_net())
    before = copy.deepcopy(model.state_dict())
    report = linger.compare_stats(model, [4 * X[:4], 4 * X[4:]])
    first = report.rows[0]
    assert first.layer == "conv1" and first.tensor == "input"
    stored = float(before["conv1.input_quantizer.running_data"])
    data = sum(float((4 * x).abs().flatten().topk(10).values[-1]) for x in (X[:4], X[4:])) / 2
    assert math.isclose(first.bits, math.log2(data / stored), abs_tol=0.01) and abs(first.bits - 2) < 0.3
    assert "conv1" in str(report) and "bits" in str(report)
    same = linger.compare_stats(ready(float_net()), 4 * X)
    assert same.rows[0].bits == 2.0
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[k], after[k]) for k in before)


class Alone(nn.Module):
    """A BatchNorm that no layer can take in."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.head(self.bn(torch.relu(self.conv(x))))


def extreme() -> nn.Module:
    """Channel 2 of the BatchNorm has a variance of 1e-8."""
    torch.manual_seed(0)
    net = Alone().eval()
    with torch.no_grad():
        net.conv.weight[2] *= 1e-4
        net.conv.bias[2] = 0
        y = torch.relu(net.conv(X))
        net.bn.running_mean.copy_(y.mean((0, 2, 3)))
        net.bn.running_var.copy_(y.var((0, 2, 3)))
        net.bn.running_var[2] = 1e-8
    return net


def test_faq_f26_the_channel_of_an_extreme_batch_norm_is_named(tmp_path):
    report = linger.diagnose(ready(extreme()), X)
    (found,) = [f for f in report.findings if f.kind == "extreme BatchNorm"]
    assert found.layer == "bn" and found.channels == (2,) and "BatchNorm 'bn' multiplies channel(s) 2" in found.text
    (tmp_path / "c.yaml").write_text(report.yaml)
    cured = linger.diagnose(ready(extreme(), config_file=str(tmp_path / "c.yaml")), X)
    assert cured.sqnr > report.sqnr + 6


def test_faq_f26_batch_norms_behind_layers_are_folded_and_named_there(tmp_path):
    (tmp_path / "c.yaml").write_text("clamp_info: {clamp_factor_value: null, clamp_activation_value: null}\n")
    net = float_net(Net)
    with torch.no_grad():
        net.bn1.running_var[5] = 1e-8
    report = linger.diagnose(ready(net, config_file=str(tmp_path / "c.yaml")), X)
    (found,) = [f for f in report.findings if f.kind == "extreme BatchNorm"]
    assert found.layer == "conv1" and 5 in found.channels and "'bn1', which is folded into this layer" in found.text


def test_faq_f26_a_weight_limit_that_cuts_an_extreme_channel_is_said(caplog):
    net = float_net(Net)
    with torch.no_grad():
        net.bn1.running_var[5] = 1e-8
    linger.init(net)
    assert "conv1" in caplog.text and "clamp_factor_value" in caplog.text
