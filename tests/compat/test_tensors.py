"""Quantized tensors and operators under their older names."""

import copy
import pickle

import pytest
import torch
from torch import nn

import linger
from linger.runtime import info
from linger.settings import QuantMode


def test_quant_gives_codes_and_scale():
    x = torch.tensor([0.3, -0.3, 1.0, 100.0, -100.0])
    codes, scale = linger.quant(x, 8, 4.0)
    assert scale == 4.0 and codes.tolist() == [1.0, -1.0, 4.0, 127.0, -128.0]
    assert torch.equal(linger.dequant(codes, scale), codes / 4)
    own, fitting = linger.quant(torch.tensor([0.5, -0.25]))
    assert fitting == 256.0 and own.tolist() == [127.0, -64.0]


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        (QuantMode.floor, [0.0, -1.0, 2.0]),
        (QuantMode.floor_add, [1.0, 0.0, 3.0]),
        (QuantMode.round, [0.0, -0.0, 2.0]),
        (QuantMode.ceil, [1.0, 0.0, 3.0]),
        (QuantMode.QValue, [1.0, 0.0, 3.0]),
    ],
)
def test_every_rounding(mode, want):
    assert linger.quant(torch.tensor([0.5, -0.5, 2.5]), 8, 1.0, mode=mode)[0].tolist() == want


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linger.quant(torch.ones(2), 8, 3.0), "scale must be a power of two from 1 to 2\\*\\*23, got 3.0"),
        (lambda: linger.quant(torch.ones(2), 40), r"bits must be in \[2, 32\], got 40"),
        (lambda: linger.quant(torch.ones(2), zero_point=1), "zero_point must be 0"),
        (lambda: linger.from_tensor_to_qtensor(torch.ones(2), data_bits=7), "data_bits must be 8, 16 or 32, got 7"),
        (lambda: linger.quant_tensor(None, torch.ones(2), bits=5), "bits must be 8, 16 or 32, got 5"),
    ],
)
def test_wrong_formats_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_qtensors_are_views_of_the_format():
    x = torch.tensor([0.3, -0.26, 100.0], requires_grad=True)
    y = linger.QTensor(x, 4.0)
    assert isinstance(y, linger.QTensor) and isinstance(y, linger.IQTensor) and type(y + 1) is torch.Tensor
    assert (y.scale, y.data_bits, y.zero_point, y.codes.tolist()) == (4.0, 8, 0, [1, -1, 127])
    assert not isinstance(y.value, linger.QTensor) and torch.equal(y.value, y)
    assert not isinstance(x, linger.QTensor)
    assert y.tolist() == [0.25, -0.25, 31.75]
    assert (linger.QTensor.scale_of(y), linger.QTensor.bits_of(y)) == (4.0, 8)
    assert linger.QTensor.codes_of(y).tolist() == [1, -1, 127]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]  # nothing flows where the code saturates
    plain = linger.from_qtensor_to_tensor(y)
    assert not isinstance(plain, linger.QTensor) and torch.equal(plain, y)
    wide = linger.IQTensor.from_torch_tensor(torch.ones(2), 1024.0, 16)
    assert (wide.scale_data, wide.bits, wide.running_data) == (1024.0, 16, None)
    assert wide.quant_to_int8(64.0).bits == 8 and wide.scale_to(8.0).scale_data == 8.0 and wide.requant_().bits == 8
    for other in (copy.deepcopy(wide), pickle.loads(pickle.dumps(wide))):
        assert type(other) is linger.IQTensor and other.scale == 1024.0 and torch.equal(other.codes, wide.codes)
    with pytest.raises(TypeError, match="this tensor is not quantized"):
        linger.QTensor.scale_of(x)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = self.a(x)
        view = linger.from_tensor_to_qtensor(y) if isinstance(y, linger.QTensor) else y
        return (
            self.b(view + view + linger.IQTensor.scale_to(view, 16.0))
            if isinstance(y, linger.QTensor)
            else self.b(view * 3)
        )


def test_views_inside_a_forward_are_the_tensors_they_show(tmp_path):
    torch.manual_seed(0)
    model, x = linger.init(Looks()), torch.randn(8, 3)
    with linger.calibration(model):
        model(x)
    y = model.eval().a(x)
    view = linger.QTensor(y)
    assert view.scale == float(model.a.output_quantizer.scale) and torch.equal(view, y)
    view.sum().backward()
    assert model.a.weight.grad.abs().sum() > 0
    linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x[:1]).values()
    assert torch.equal(torch.from_numpy(got), model(x[:1]).detach())


class Operators(nn.Module):
    def __init__(self, classic):
        super().__init__()
        self.a, self.b, self.classic = nn.Linear(4, 4), nn.Linear(4, 4), classic

    def call(self, name, *args):
        run = getattr(linger, name)
        return run(self, *args) if self.classic else run(*args)

    def forward(self, x):
        y, z = self.a(x), self.b(x)
        s = self.call("iqadd", y, z)
        p = self.call("iqmul", s, self.call("iqsigmoid", z))
        t = self.call("iqtanh", self.call("iqclamp", p, -1, 1))
        c = self.call("iqcat", [t, s], 1)
        return self.call("iqdiv", self.call("iqsum", c.unsqueeze(1), 1), 2.0)


@pytest.mark.parametrize("classic", [True, False])
def test_operators_in_both_call_forms(classic, tmp_path):
    torch.manual_seed(0)
    model, x = Operators(classic), torch.randn(8, 4)
    want = model(x)
    model = linger.init(model)
    with linger.calibration(model, a_calibrate_name="abs_max"):
        assert torch.equal(model(x), want)
    model.eval()
    assert not linger.summary(model).islands
    assert (model(x) - want).abs().mean() < 0.02
    linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x[:1]).values()
    assert torch.equal(torch.from_numpy(got), model(x[:1]).detach())


def test_printed_operators_are_the_classic_names():
    model = linger.init(Operators(True), example_inputs=torch.randn(2, 4))
    assert "iqsigmoidlayer()" in str(model)
    assert any(isinstance(m, linger.iqSigmoidLayer) for m in model.modules())
    assert any(isinstance(m, linger.iqAddLayer) and isinstance(m, linger.AddInt) for m in model.modules())


class Quantizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        y = linger.quant_tensor(self, torch.exp(self.a(x)), name="e", bits=8)
        return y + y


def test_quant_tensor_inside_a_forward(tmp_path):
    torch.manual_seed(0)
    model, x = Quantizes(), torch.randn(8, 4)
    want = model(x)
    model = linger.init(model)
    with linger.calibration(model, a_calibrate_name="abs_max"):
        assert torch.equal(model(x), want)
    y = model.eval()(x)
    assert info(y) is not None and any("quant_tensor" in k for k in model.state_dict())
    fresh = linger.init(Quantizes())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x), y)
    linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x[:1]).values()
    assert torch.equal(torch.from_numpy(got), model(x[:1]).detach())
