"""Matrix products in every spelling, on every chip, from module to file."""

import operator

import pytest
import torch
from torch import nn

import linger
from linger.runtime import is_quantized
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Attention(nn.Module):
    """Scores and mixing without the softmax: rank 4, then rank 3, a shared matrix, rank 2."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.mix = nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (t.reshape(x.shape[0], -1, 2, 4).transpose(1, 2) for t in (q, k, v))
        y = (0.5 * (q @ k.transpose(-2, -1))) @ v
        y = self.mix(y.transpose(1, 2).reshape(x.shape[0], -1, 8))
        y = torch.bmm(y, y.transpose(1, 2))
        y = torch.matmul(y, y[0])
        return y[0].mm(y[0])


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_attention(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Attention(), batches((6, 8)), tmp_path, platform, method)
    assert nodes.count("BmmInt") == 5


CALLS = {
    "torch.bmm": torch.bmm,
    "Tensor.bmm": torch.Tensor.bmm,
    "torch.matmul": torch.matmul,
    "Tensor.matmul": torch.Tensor.matmul,
    "@": operator.matmul,
    "reflected": lambda x, y: torch.Tensor.__rmatmul__(y, x),
    "mm": lambda x, y: torch.mm(x[0], y[0])[None],
    "keywords": lambda x, y: torch.bmm(x, mat2=y),
}


@pytest.mark.parametrize("call", CALLS)
def test_spellings(call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            a = self.a(x)
            return a, CALLS[call](a, a.transpose(1, 2)[:, :, :2])

    torch.manual_seed(0)
    model = linger.init(Net())
    a, y = model(torch.randn(1, 3, 4))
    assert is_quantized(y)
    torch.testing.assert_close(y, a @ a.transpose(1, 2)[:, :, :2], atol=0.05, rtol=0.3)  # may saturate at first


@pytest.mark.parametrize("kind", ["buffer", "parameter", "result"])
@pytest.mark.parametrize("shape", [(6,), (5, 6), (3, 5, 6)], ids=len)
def test_one_matrix_for_a_whole_batch(shape, kind, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(3, 3)
            self.register_buffer("buffer", torch.randn(4, 3))
            self.parameter = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return self.a(x) @ (self.b(self.parameter) if kind == "result" else getattr(self, kind))

    torch.manual_seed(1)
    model = Net()
    assert_same_everywhere(model, batches(shape), tmp_path, "venusA")
    x = torch.randn(4, *shape)
    with torch.no_grad():
        assert torch.equal(model(x), torch.cat([model(x[i : i + 1]) for i in range(4)]))


def test_venus_limit_is_refused_by_name(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 260)

        def forward(self, x):
            a = self.a(x)
            return a @ a.transpose(1, 2)

    config = tmp_path / "config.yaml"
    config.write_text("platform: venus\n")
    model = linger.init(Net(), str(config))
    x = torch.randn(1, 128, 4)
    model(x)
    with pytest.raises(
        linger.onnx.ExportError, match=r"qmatmul_0: second matrix 260 x 128, 33792 bytes, the chip takes 32768 bytes"
    ):
        linger.onnx.export(model, x, tmp_path / "m.onnx")
