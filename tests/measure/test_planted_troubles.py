"""A network with six planted troubles: ``linger.diagnose`` names each, and its own lines give back what was lost."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger.measure.sums import Energy

GAP, FACTOR = 64.0, 50.0


class Net(nn.Module):
    """Two branches side by side, a BatchNorm that stands alone, a sparse layer, a branch that adds, a function, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.big, self.small = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.joined = nn.BatchNorm2d(16)
        self.mix = nn.Conv2d(16, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.sparse = nn.Conv2d(16, 16, 3, padding=1, stride=2)
        self.branch = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16 * 16, 10)
        for m in self.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(m.weight)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = torch.cat([self.big(x), self.small(x)], 1)
        x = F.relu(self.joined(x))
        x = self.mix(x)
        x = self.norm(x) + x
        x = F.relu(self.sparse(x))
        x = x + F.relu(self.branch(x))
        if self.island:
            x = torch.atan(x)
        return self.head(x.flatten(1))


def made(troubled):
    """The network, its BatchNorms as after training; and images."""
    torch.manual_seed(0)
    net, x = Net(), torch.randn(32, 3, 8, 8)
    net.island = troubled
    with torch.no_grad():
        if troubled:
            for p in net.small.parameters():
                p.div_(GAP)
            net.mix.weight[3].div_(FACTOR), net.mix.bias[3].div_(FACTOR)
            net.sparse.weight.mul_((torch.rand_like(net.sparse.weight) < 0.02) * 7.0)
            net.branch.bias.fill_(-100.0)
            net.head.weight.mul_(400.0)
        for bn in (net.joined, net.norm):
            bn.momentum = None
        for _ in range(2):
            net(torch.randn(64, 3, 8, 8))
    return net.eval(), x


def quantized(net, x, config=None):
    """The network in integers, calibrated, and what its outputs keep of the float ones in dB."""
    model = linger.init(copy.deepcopy(net), config_file=config)
    with linger.calibration():
        model(x)
    kept = Energy()
    with torch.no_grad():
        kept.add(net(x), model(x))
    return model, kept.sqnr


PLANTED = {
    ("head", "saturation"),
    ("norm", "extreme BatchNorm"),
    ("_linger_qtensor_qcat_0", "scale gap"),
    ("sparse", "weight limit"),
    ("branch", "dead in float"),
    ("(root)", "float operator"),
}


def test_each_is_named_and_its_own_lines_restore_what_was_lost(tmp_path):
    healthy = quantized(*made(False))[1]
    net, x = made(True)
    model, troubled = quantized(net, x)
    diagnosis = linger.diagnose(model, x, net)
    assert diagnosis.sqnr == pytest.approx(troubled, abs=1e-3)
    found = {(f.layer, f.kind): f for f in diagnosis.findings}
    assert found.keys() >= PLANTED
    assert found["norm", "extreme BatchNorm"].channels == (3,)
    assert "6 bits of 'small' are lost" in found["_linger_qtensor_qcat_0", "scale gap"].text
    assert "test_planted_troubles.py:" in found["(root)", "float operator"].text
    ranked = [f.sqnr for f in diagnosis.findings if f.sqnr is not None]
    assert ranked == sorted(ranked) and diagnosis.findings[0].layer == "sparse"
    text = str(diagnosis)
    assert max(map(len, text.splitlines())) <= 100
    for f in diagnosis.findings:
        assert f"{f.layer}: {f.kind}" in text

    config = tmp_path / "config.yaml"
    config.write_text(text[text.index("diagnosed_1:") :])  # as it is printed
    _, cured = quantized(net, x, str(config))
    assert healthy - troubled > 10.0
    assert cured >= troubled + 0.9 * (healthy - troubled)


def test_a_network_without_troubles_is_not_accused_of_any():
    net, x = made(False)
    diagnosis = linger.diagnose(quantized(net, x)[0], x, net)
    assert {f.kind for f in diagnosis.findings} <= {"saturation", "coarse weights", "coarse codes", "training clamp"}
    assert "open_quant" not in diagnosis.yaml


def test_lines_join_the_sections_that_are_there(tmp_path):
    """The first section that covers a layer is used alone: what an older one says about it is handed on."""
    net, x = made(True)
    config = tmp_path / "config.yaml"
    config.write_text("heads:\n  name: [head]\n  clamp_info: {clamp_bias_value: 9}\n")
    model, _ = quantized(net, x, str(config))
    lines = linger.diagnose(model, x).yaml
    head = linger.settings.loads(lines + config.read_text()).layer("head")
    assert (head.clamp.clamp_bias_value, head.output_bits) == (9, 32)
    assert head.clamp.clamp_activation_value is None  # training would cut nearly all of it
