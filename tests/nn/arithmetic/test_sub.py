"""Differences in every spelling, on every chip, from module to file; the exported expression for all pairs of codes."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger import ops
from linger.onnx import OnnxRunner
from linger.runtime import SPELLINGS, is_quantized, resolve
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Differences(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 96), nn.Linear(64, 96)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        y = a - 0.25 * b
        y -= torch.sub(b, a)
        return torch.rsub(y, b)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_differences(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Differences(), batches((64,)), tmp_path, platform, method)
    assert "iqSub" not in nodes
    assert nodes.count("iqAdd") == 8


class Minus(nn.Module):
    """x passes a convolution that keeps its codes: something must be quantized."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.same.weight)

    def forward(self, x, y):
        return self.same(x) - y


@pytest.mark.parametrize(("q_x", "q_y", "q_o"), [(0, 0, 0), (1, 3, 0), (5, 4, 4), (2, 9, 2)])
def test_the_file_is_exact_for_all_pairs_of_codes(q_x, q_y, q_o, tmp_path):
    codes = torch.arange(-128, 128)
    x, y = (t.reshape(1, 1, 256, 256) for t in torch.meshgrid(codes, codes, indexing="ij"))
    model = linger.init(Minus())
    inputs = x / 2.0**q_x, y / 2.0**q_y
    model(*inputs)
    (sub,) = [m for m in model.modules() if type(m).__name__ == "SubInt"]
    same = model.same
    for quantizer, exp2 in [
        (same.input_quantizer, q_x),
        (same.weight_quantizer, 6),
        (same.output_quantizer, q_x),
        (sub.input_quantizer[1], q_y),
        (sub.output_quantizer, q_o),
    ]:
        quantizer.scale.fill_(2.0**exp2)
    linger.onnx.export(model, inputs, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(inputs, integers=True).values()

    def rsh(v, s):
        return v if s == 0 else (v + (1 << s >> 1)) >> s

    want = (rsh(x, q_x - q_o).clamp(-128, 127) - rsh(y, q_y - q_o).clamp(-128, 127)).clamp(-128, 127)
    assert np.array_equal(got, want.numpy())
    assert torch.equal(ops.sub_codes(x.char(), y.char(), q_x - q_o, q_y - q_o, 8).long(), want)
    assert torch.equal((model.eval()(*inputs) * 2.0**q_o).long(), want)


@pytest.mark.parametrize("spelling", [*SPELLINGS["sub"], *SPELLINGS["sub_"], *SPELLINGS["rsub"]])
def test_spellings(spelling):
    func = resolve(spelling)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return func(self.a(x), self.b(x))

    torch.manual_seed(0)
    model = linger.init(Net())
    x = torch.randn(2, 4)
    y = model(x)
    assert is_quantized(y)
    want = model.b(x) - model.a(x) if spelling in SPELLINGS["rsub"] else model.a(x) - model.b(x)
    torch.testing.assert_close(y, want, atol=0.05, rtol=0.3)  # may saturate at first
