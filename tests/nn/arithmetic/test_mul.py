"""Products in every spelling, on every chip, from module to file."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.runtime import SPELLINGS, is_quantized, resolve
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Gate(nn.Module):
    """Squeeze and excite: a value per channel, from either side; then tensor * tensor, numbers and a learned factor."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 6)
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        x = self.a(x)
        gate = self.fc(x.mean((2, 3)))[:, :, None, None]
        x = x * gate + gate * x
        x = torch.mul(x, x)
        x *= 0.3
        return self.gain * (-1.5 * x)


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_gates_and_factors(platform, method, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Gate(), batches((3, 4, 5)), tmp_path, platform, method)
    assert nodes.count("iqMul") == 6
    factors = [i for i in onnx.load(tmp_path / "m.onnx").graph.initializer if not i.dims]
    assert [onnx.numpy_helper.to_array(f).dtype for f in factors] == [np.int8] * 3


class Gate1d(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(2, 3, 1)

    def forward(self, x):
        x = self.a(x)
        return x * x[:, :, :1]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_rank_3_gates_go_through_rank_4(platform, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Gate1d(), batches((2, 7)), tmp_path, platform)
    assert nodes[-5:] == ["Unsqueeze", "Unsqueeze", "iqMul", "Squeeze", "Dequant"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_more_channels_than_pixels_are_copied_first(platform, tmp_path):
    torch.manual_seed(1)
    nodes = assert_same_everywhere(Gate(), batches((3, 1, 5)), tmp_path, platform)
    assert nodes.count("iqMul") == 6
    assert nodes.count("Gather") == 2


def test_the_learned_factor_learns():
    model = linger.init(Gate())
    model(torch.randn(2, 3, 4, 5)).sum().backward()
    assert model.gain.grad.abs() > 0


@pytest.mark.parametrize("value", [0.0, 0.7, -0.99, 1.0, -3.0, 1e-3, 1e6])
def test_factors_are_as_fine_as_int8(value):
    from linger.nn.arithmetic.constants import code_of, codes_of_parameters

    y = torch.tensor(value, requires_grad=True)
    c = codes_of_parameters(y)
    code, exp2 = code_of(value)
    assert (c.codes.item(), c.scale.item()) == (code, 2.0**exp2) or value == 0
    assert c.codes.float() / c.scale == c.value
    assert abs(c.value.item() - value) <= abs(value) / 128
    nan = codes_of_parameters(torch.tensor(float("nan")))
    assert nan.scale.isnan()
    assert nan.codes == 0
    c.value.backward()
    assert y.grad == 1


@pytest.mark.parametrize("spelling", [*SPELLINGS["mul"], *SPELLINGS["mul_"]])
@pytest.mark.parametrize("factor", ["tensor", "number"])
def test_spellings(spelling, factor):
    func = resolve(spelling)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return func(self.a(x), self.a(x) if factor == "tensor" else -0.25)

    torch.manual_seed(0)
    model = linger.init(Net())
    x = torch.randn(2, 4)
    y = model(x)
    assert is_quantized(y)
    a = model.a(x)
    torch.testing.assert_close(y, a * (a if factor == "tensor" else -0.25), atol=0.05, rtol=0.1)


@pytest.mark.parametrize(
    "call", [lambda x: x * torch.ones(6, dtype=torch.long), lambda x: x * True, lambda x: x * float("inf")]
)
def test_what_no_chip_multiplies_is_an_island(call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return call(self.a(x))

    model = linger.init(Net())
    model(torch.randn(2, 4))
    (island,) = linger.runtime.islands_of(model)
    assert island.operator == "mul"
