"""Operators that move, pool and pad, behind torch.compile: no graph break, the same integers, the format kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own

CASES = {
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "mean": lambda x: x.mean((1, 3)),
    "another divisor": lambda x: F.avg_pool2d(x, 3, divisor_override=4),
    "maximum": lambda x: F.max_pool2d(x, 3, 2, 1, 2, True),
    "amax": lambda x: x.amax(1),
    "max": lambda x: x.max(1)[0],
    "pad": lambda x: F.pad(x, (1, 2), value=0.3),
    "zeros": nn.ZeroPad2d(1),
    "reflect": lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"),
    "flip": lambda x: x.flip(1),
    "rows": lambda x: x[:, [0, 2], ::2],
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "shuffle": lambda x: F.pixel_shuffle(F.channel_shuffle(x, 2), 2),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1).repeat(1, 2, 1, 1),
}


class Net(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Conv2d(2, 4, 1), change

    def forward(self, x):
        return self.change(self.layer(x)) + 0.0


@pytest.mark.parametrize("case", CASES)
def test_compiled_models_compute_the_same(case):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, x = linger.init(Net(CASES[case])), torch.randn(2, 2, 6, 8)
    model(x)
    want = model.eval()(x)
    got = torch.compile(model, backend="eager", fullgraph=True)(x)
    assert torch.equal(got, want)
    assert linger.runtime.is_quantized(got)
