"""The chip of an operator of user code is that of the section that covers its owner, however often one asks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger import runtime
from linger.chip import LIMITS, OPERATORS, PLATFORMS


class Part(nn.Module):
    def __init__(self, call, bits):
        super().__init__()
        self.a, self.b, self.call = nn.Linear(8, 8), nn.Linear(8, 8), call

    def forward(self, x):
        return self.call(self.a(x), self.b(x))


def _native(row, bits):
    return lambda platform: OPERATORS[row][platform].kind != "island" and bits in OPERATORS[row][platform].bits


CALLS = {  # the call, width of its operands, whether a chip computes it in integers
    "add of 32 bits": (lambda a, b: a + b, 32, _native("iqAdd", 32)),
    "in-place add of 32 bits": (lambda a, b: a.add_(b), 32, _native("iqAdd", 32)),
    "quotient of 32 bits": (lambda a, b: a / b, 32, lambda platform: bool(LIMITS[platform].div_scales)),
    "softmax": (lambda a, b: F.softmax(a, -1), 8, _native("SoftmaxInt", 8)),
    "log_softmax": (lambda a, b: a.log_softmax(-1), 8, _native("LogSoftmaxInt", 8)),
    "gelu": (lambda a, b: F.gelu(a), 8, _native("QGelu", 8)),
}


@pytest.mark.parametrize("part", PLATFORMS)
@pytest.mark.parametrize("model", PLATFORMS)
@pytest.mark.parametrize("name", CALLS)
def test_a_section_decides(name, model, part, tmp_path):
    call, bits, native = CALLS[name]
    wide = f", quant_info: {{output_bits: {bits}}}" if bits != 8 else ""
    text = f"platform: {model}\npart: {{name: ['part'], platform: {part}{wide}}}\n"
    (tmp_path / "c.yaml").write_text(text)
    net = linger.init(nn.ModuleDict({"part": Part(call, bits)}), str(tmp_path / "c.yaml"))
    x = torch.rand(4, 8) + 0.5
    assert runtime.is_quantized(net["part"].train()(x)) == native(part)


@pytest.mark.parametrize("other", PLATFORMS)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "gelu"])
def test_a_check_for_another_chip_forgets_what_an_earlier_forward_knew(name, platform, other, tmp_path):
    (tmp_path / "c.yaml").write_text(f"platform: {platform}\n")
    x = torch.randn(4, 8)

    def findings(run):
        torch.manual_seed(0)
        net = linger.init(Part(CALLS[name][0], 8), str(tmp_path / "c.yaml"))
        if run:
            net.train()(x)
        return [(v.what, v.value, v.limit) for v in linger.check(net, other, x).findings]

    assert findings(run=True) == findings(run=False)
