"""Average pooling layers that meet a float tensor: they quantize it as a convolution does; functions follow their operand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.runtime import is_quantized, islands_of
from tests.nn.same import PLATFORMS, assert_same_everywhere

POOLS = {
    "2d": (lambda: nn.AvgPool2d(2), (2, 8, 6)),
    "ceil mode, another divisor": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=4), (2, 8, 6)),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d(3), (2, 8, 6)),
    "1d": (lambda: nn.AvgPool1d(2), (2, 8)),
    "adaptive 1d": (lambda: nn.AdaptiveAvgPool1d(3), (2, 8)),
}
KEY = "_linger_qtensor_qavg_pool_0.input_quantizer.0"


def first(pool, shape):
    """The pooling in front of a convolution."""
    return nn.Sequential(pool(), (nn.Conv1d if len(shape) == 2 else nn.Conv2d)(shape[0], 3, 1))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", POOLS)
def test_the_first_layer_quantizes_its_input(name, platform, tmp_path):
    torch.manual_seed(0)
    pool, shape = POOLS[name]
    nodes = assert_same_everywhere(
        first(pool, shape), [(torch.randn(1, *shape),) for _ in range(2)], tmp_path, platform
    )
    assert nodes.count("Quant") == 1 and "AveragePool" not in nodes and "AvgPool2dInt" in nodes


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_one_quant_for_all_that_read_the_input(method, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.a, self.b = nn.AvgPool2d(2), nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1, stride=2)

        def forward(self, x):
            return self.a(self.pool(x)) + self.b(x)

    torch.manual_seed(0)
    nodes = assert_same_everywhere(Net(), [(torch.randn(1, 1, 4, 4),)], tmp_path, "arcs", method)
    assert nodes.count("Quant") == 1


@pytest.mark.parametrize("name", POOLS)
def test_a_calibration_gives_the_range_of_the_input(name):
    torch.manual_seed(0)
    pool, shape = POOLS[name]
    x = torch.randn(4, *shape)
    net = first(pool, shape)
    pooled, twin = copy.deepcopy(net)(x), linger.init(copy.deepcopy(net[1]))
    model = linger.init(net)
    with linger.calibration():
        torch.testing.assert_close(model(x), pooled)
        twin(x)
    assert model[0].get_submodule(KEY).scale == twin.input_quantizer.scale
    assert all(q.ready for n, q in model.named_modules() if n.endswith("output_quantizer"))


def test_a_checkpoint_holds_the_quantizer():
    pool, shape = POOLS["2d"]
    x = torch.randn(1, *shape)
    model = linger.init(first(pool, shape))
    model(x)
    again = linger.init(first(pool, shape))
    again.load_state_dict(model.state_dict())
    assert f"0.{KEY}.running_data" in model.state_dict()
    assert torch.equal(again.eval()(x), model.eval()(x))


@pytest.mark.parametrize("off", [{"disable_module": nn.AvgPool2d}, {"disable_submodel": ("a*",)}])
def test_what_is_switched_off_stays_float(off):
    net = nn.Sequential()
    net.a, net.b = nn.Sequential(nn.AvgPool2d(2)), nn.Conv2d(1, 2, 1)
    model = linger.init(net, example_inputs=torch.randn(1, 1, 4, 4), **off)
    assert KEY not in " ".join(model.state_dict())
    assert not is_quantized(model.a(torch.randn(1, 1, 4, 4)))


def test_functions_and_regions_follow_their_operand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.layer = nn.AvgPool2d(2), nn.Conv2d(1, 2, 1)

        def forward(self, x):
            with linger.float_region():
                y = self.pool(x)
            z = F.adaptive_avg_pool2d(F.avg_pool2d(x, 2), 2)
            return y, z, self.layer(y), self.layer(z)

    model = linger.init(Net())
    assert [is_quantized(t) for t in model(torch.randn(1, 1, 4, 4))] == [False, False, True, True]
    assert islands_of(model) == []


def test_widths_that_no_chip_averages_are_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("platform: arcs\npart:\n  name: ['0']\n  quant_info: {output_bits: 16}\n")
    model = linger.init(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 2, 1)), str(tmp_path / "c.yaml"))
    with pytest.raises(
        linger.UnsupportedError, match=r"output_bits 16 of '0\._linger_qtensor_qavg_pool_0' .* arcs has 8"
    ):
        model(torch.randn(1, 1, 4, 4))


def test_moves_in_front_of_the_layer_move_codes(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.layer = nn.AvgPool2d(2), nn.Conv2d(1, 2, 1)

        def forward(self, x):
            return self.layer(self.pool(F.pad(x.transpose(2, 3), (1, 1))))

    torch.manual_seed(0)
    x = torch.randn(1, 1, 6, 4)
    model = linger.init(Net(), example_inputs=x)
    model(x)
    with torch.no_grad():
        want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert (torch.from_numpy(got) == want).all() and linger.check(tmp_path / "m.onnx").ok


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dynamo's own
def test_compiled():
    pool, shape = POOLS["2d"]
    x = torch.randn(1, *shape)
    model = linger.init(first(pool, shape))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), model.eval()(x)) and is_quantized(model(x))
