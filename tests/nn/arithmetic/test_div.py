"""Quotients in every spelling, on every chip, from module to file."""

import pytest
import torch
from torch import nn

import linger
from linger.runtime import SPELLINGS, is_quantized, islands_of, resolve
from tests.nn.moves.test_cat import batches
from tests.nn.same import PLATFORMS, assert_same_everywhere


class Quotients(nn.Module):
    """Powers of two that shift either way or not at all, other numbers, a learned one."""

    def __init__(self):
        super().__init__()
        self.a, self.by = nn.Linear(5, 6), nn.Parameter(torch.tensor(1.7))

    def forward(self, x):
        x = self.a(x) / 8
        x = torch.div(x, 0.25)
        x /= -3.0
        x = x.true_divide(4096.0)
        return (x / self.by) / 2.0**-14


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_quotients(platform, method, tmp_path):
    torch.manual_seed(1)
    model = Quotients()
    nodes = assert_same_everywhere(model, batches((5,)), tmp_path, platform, method)
    assert nodes.count("iqDiv") + nodes.count("iqMul") == 6
    assert method == "TQT" or model.by.grad.abs() > 0  # the first thresholds leave nothing of 1 / 4096


@pytest.mark.parametrize("q_o", [-3, 1, 2, 3, 8])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_power_of_two_is_the_engines_where_it_has_a_shift(platform, q_o, tmp_path):
    class Quarter(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Linear(1, 1, bias=False)
            nn.init.ones_(self.same.weight)

        def forward(self, x):
            return self.same(x) / 4

    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\n")
    codes = torch.arange(-128.0, 128.0).reshape(-1, 1)
    model = linger.init(Quarter(), str(config), example_inputs=codes)
    model(codes)
    layer = model._linger_qtensor_qdiv_0
    for quantizer, exp2 in [
        (model.same.input_quantizer, 0),
        (model.same.weight_quantizer, 6),
        (model.same.output_quantizer, 0),
        (layer.output_quantizer, q_o),
    ]:
        quantizer.scale.fill_(2.0**exp2)
    want = torch.floor(codes * 2.0 ** (q_o - 2) + 0.5).clamp(-128, 127)
    assert torch.equal(model.eval()(codes) * 2.0**q_o, want)
    linger.onnx.export(model, codes, tmp_path / "m.onnx")
    runner = linger.onnx.OnnxRunner(tmp_path / "m.onnx")
    (got,) = runner.run(codes, integers=True).values()
    assert (got == want.numpy()).all()
    import onnx

    (node,) = [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type in ("iqDiv", "iqMul")]
    assert node.op_type == ("iqMul" if q_o == 2 else "iqDiv")


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x):
        return self.a(x) / self.b(x)


WIDE = "mix:\n  name: [a, b]\n  quant_info: {activate_bits: 8, output_bits: 32}\n"


@pytest.mark.parametrize("platform", ["arcs", "mars"])
def test_quotients_of_32_bits(platform, tmp_path):
    torch.manual_seed(1)
    model = Wide()
    nodes = assert_same_everywhere(model, batches((5,)), tmp_path, platform, more=WIDE)
    assert nodes.count("iqDiv") == 1
    x = torch.randn(1, 5)
    with linger.active(model), linger.float_region():
        a, b = model.a(x), model.b(x)
    torch.testing.assert_close(model(x), a / b, atol=0.02, rtol=1e-3)
    assert model.b.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("platform", ["venus", "venusA"])
def test_where_a_quotient_stays_in_float(platform, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\n{WIDE}")
    for net in (Wide, Reflected, Rounded):
        model = linger.init(net(), str(config))
        model(torch.randn(2, 5))
        assert len(islands_of(model)) == 1


class Reflected(Wide):
    def forward(self, x):
        return 2.0 / self.a(x) + 0 * self.b(x).detach()[0, 0].item()


class Rounded(Wide):
    def forward(self, x):
        return torch.div(self.a(x), 3.0, rounding_mode="floor")


@pytest.mark.parametrize("spelling", [*SPELLINGS["div"], *SPELLINGS["div_"]])
def test_spellings(spelling):
    func = resolve(spelling)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x):
            return func(self.a(x), 5.0)

    torch.manual_seed(0)
    model = linger.init(Net())
    y = model(x := torch.randn(2, 4))
    assert is_quantized(y)
    assert torch.isclose(y, model.a(x) / 5, atol=0.02, rtol=0.1).sum() >= 8  # of 12: the largest may saturate
