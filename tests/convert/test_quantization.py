"""``with linger.quantization(model, False)``: the same model in float, whole or by layer."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import linger


class Net(nn.Module):
    """Most kinds of layers and operators of user code."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.norm = nn.BatchNorm2d(4)
        self.side = nn.Conv2d(4, 4, 1)
        self.pool = nn.AvgPool2d(2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True, dropout=0.5)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.layer_norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = self.norm(x)
        x = self.pool(torch.cat([x, torch.sigmoid(self.side(x)) * 2 - x], 1))
        x = self.up(x)
        x = x.flatten(2).transpose(1, 2)
        x, _ = self.lstm(x)
        x = self.gru(x)[0] + x
        x = self.attention(x, x, x)[0]
        x = self.layer_norm(x)
        return F.softmax(self.head(x.sum(1)), -1)


def made():
    torch.manual_seed(0)
    net = Net()
    for bn in (net.bn, net.norm):
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    return net, torch.randn(2, 1, 8, 8)


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("ran", [False, True])
def test_eval_is_the_float_model(ran):
    net, x = made()
    net.eval()
    want = net(x)
    model = linger.init(net)
    if ran:
        with linger.calibration():
            model(x)
        assert not torch.allclose(model(x), want, atol=1e-5)
    before = state(model)
    with linger.quantization(model, False):
        got = model(x)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    after = state(model)
    assert same(before, {k: v for k, v in after.items() if k in before})
    assert not [m for m in model.modules() if hasattr(type(m), "_linger_quantized")]


def test_training_is_the_float_model():
    net, x = made()
    plain = copy.deepcopy(net)
    net.bn.eval()  # its statistics are folded
    with torch.no_grad():
        net.head.weight[0, 0] = plain.head.weight[0, 0] = 50.0  # beyond the limit of the weights
    model = linger.init(net)
    model.train()
    plain.bn.eval()
    with linger.quantization(model, False):
        torch.manual_seed(1)
        y = model(x)
    torch.manual_seed(1)
    want = plain(x)
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    y[:, 0].sum().backward(), want[:, 0].sum().backward()
    torch.testing.assert_close(model.head.weight.grad, plain.head.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.side.weight.grad, plain.side.weight.grad, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(model.norm.running_var, plain.norm.running_var)
    assert float(model.head.weight.detach()[0, 0]) == 50.0
    quantizers = [m for m in model.modules() if type(m).__name__ == "Quantizer"]
    assert not [q.name for q in quantizers if q.ready and "sigmoid" not in q.name and "softmax" not in q.name]


def test_layers_by_name():
    net, x = made()
    model = linger.init(net.eval())
    with linger.calibration():
        model(x)
    seen = []
    with linger.quantization(model, False, ["side", "lstm*"]) as block:
        assert block.layers == ("side", "lstm")
        model.side.register_forward_hook(lambda m, a, y: seen.append((a[0], y)))
        with pytest.warns(UserWarning, match="no data"):
            model(x)
    (a, y) = seen[0]
    torch.testing.assert_close(y, F.conv2d(a, model.side.weight, model.side.bias))
    assert not torch.equal(y * 128, (y * 128).round())


def test_blocks_nest_and_end_with_exceptions():
    net, x = made()
    model = linger.init(net.eval())
    with linger.calibration():
        model(x)
    integers = model(x)
    with linger.quantization(model, False):
        floats = model(x)
        with linger.quantization(model, True):
            assert torch.equal(model(x), integers)
        with pytest.raises(KeyError), linger.quantization(model, True, "head"):
            raise KeyError
        assert torch.equal(model(x), floats)
    assert torch.equal(model(x), integers)


def test_a_calibration_inside_measures():
    net, x = made()
    model = linger.init(net.eval())
    with linger.quantization(model, False), linger.calibration(model):
        model(x)
    assert model.head.output_quantizer.ready


def test_errors():
    net, _ = made()
    with pytest.raises(ValueError, match=r"call linger\.init first"):
        linger.quantization(net, False)
    model = linger.init(net)
    with pytest.raises(TypeError, match="model must be"):
        linger.quantization(3, False)
    with pytest.raises(TypeError, match="enabled must be"):
        linger.quantization(model, 0)
    with pytest.raises(ValueError, match="'heat'; nearest: head"):
        linger.quantization(model, False, "heat")
    with linger.quantization(model, False) as block, pytest.raises(RuntimeError, match="entered already"), block:
        pass
