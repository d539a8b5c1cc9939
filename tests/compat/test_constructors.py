"""Layers and operators that users construct by their classic names, alone and inside a model."""

import copy
import pickle

import pytest
import torch
from torch import nn

import linger
from linger.settings import ClampInfo, QuantMode

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

CONSTRUCTED = {
    "Conv2dInt": (lambda **k: linger.Conv2dInt(3, 8, 3, **k), X),
    "Conv1dInt": (lambda **k: linger.Conv1dInt(3, 8, 3, **k), X[:, :, 0]),
    "ConvTranspose2dInt": (lambda **k: linger.ConvTranspose2dInt(3, 8, 2, **k), X),
    "LinearInt": (lambda **k: linger.LinearInt(8, 5, **k), X),
    "BatchNormInt": (lambda **k: linger.BatchNormInt(3, **k), X),
    "LayerNormInt": (lambda **k: linger.LayerNormInt(8, momentum=0.1, **k), X),
    "EmbeddingInt": (lambda **k: linger.EmbeddingInt(9, 4, **k), torch.arange(9)),
    "LSTMInt": (lambda **k: linger.LSTMInt(8, 5, unified=True, **k), X[:, 0]),
    "GRUInt": (lambda **k: linger.GRUInt(8, 5, batch_first=True, **k), X[:, 0]),
}


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_a_layer_alone_is_quantized(name):
    make, x = CONSTRUCTED[name]
    layer = make(data_bits=8, parameter_bits=8, mode=QuantMode.QValue, clamp_data=4, clamp_weight=8, clamp_bias=8)
    assert isinstance(layer, getattr(linger, name))
    y = layer(x)
    y = y[0] if isinstance(y, tuple) else y
    assert isinstance(y, linger.QTensor)
    assert layer.quant.clamp == ClampInfo(4, 8, None, 8)
    for other in (copy.deepcopy(layer.eval()), pickle.loads(pickle.dumps(layer.eval()))):
        again = other(x)
        assert torch.equal(
            again[0] if isinstance(again, tuple) else again, layer(x)[0] if isinstance(again, tuple) else layer(x)
        )


def test_arguments_follow_those_of_torch_by_position():
    conv = linger.Conv2dInt(3, 8, 3, 1, 1, 1, 1, True, "zeros", 8, 4, QuantMode.QValue, 8, 4.0, 2.0, 1.0, True, False)
    assert (conv.quant.weight_bits, conv.quant.clamp, conv.fused_relu) == (4, ClampInfo(4.0, 1.0, None, 2.0), True)
    limited = linger.NormalizeConv2d(3, 8, 3, 1, 1, 1, 1, True, "zeros", 8, 4, 2, True, False)
    assert (limited.normalize_data, limited.normalize_weight, limited.normalize_bias) == (
        8,
        4,
        2,
    ) and limited.ahead_relu
    pair = linger.NormalizeConvBN2d(3, 8, 3, 1, 1, 1, 1, True, "zeros", 1e-3, 0.2, True, True, 8, 4, 2, True)
    assert (pair.bn.eps, pair.bn.momentum, pair.normalize_weight, pair.ahead_relu) == (1e-3, 0.2, 4, True)
    lstm = linger.NormalizeFastLSTM(3, 4, 1, True, True, 0, False, 8, 4, 2)
    assert (lstm.batch_first, lstm.normalize_data, lstm.normalize_weight, lstm.normalize_bias) == (True, 8, 4, 2)
    assert linger.LinearInt(3, 4, True, "cpu", torch.float64).weight.dtype == torch.float64  # torch's own order
    with pytest.raises(TypeError, match="LinearInt: data_bits is given twice"):
        linger.LinearInt(3, 4, True, 8, data_bits=8)
    with pytest.raises(TypeError, match="takes 12 arguments by position, got 13"):
        linger.LinearInt(3, 4, True, 8, 8, None, 8, None, None, None, False, False, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linger.LinearInt(3, 4, data_bits=5), ValueError, "data_bits must be one of 8, 16, 32, got 5"),
        (lambda: linger.LinearInt(3, 4, mode="QValue"), ValueError, "mode must be a member of QuantMode, got 'QValue'"),
        (lambda: linger.LinearInt(3, 4, clamp_data=0), linger.ConfigError, "clamp_activation_value"),
        (lambda: linger.LSTMInt(3, 4, unified=False), linger.UnsupportedError, "unified=False"),
        (lambda: linger.LSTMInt(3, 4, proj_size=2), linger.UnsupportedError, "proj_size=2"),
        (lambda: linger.LayerNormInt(3, momentum=0.5), linger.UnsupportedError, r"momentum=0\.5"),
        (lambda: linger.ConvBN2d(3, 4, 1, constrain={}), linger.UnsupportedError, "pass the limits as normalize_data"),
    ],
)
def test_what_no_chip_has_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = linger.Conv2dInt(3, 8, 3, parameter_bits=4, o_bits=8, clamp_data=4, ahead_relu=True)
        self.fc, self.lstm = nn.Linear(8, 5), linger.LSTMInt(5, 4)
        self.add, self.cat, self.round = linger.iqAddLayer(o_bits=16), linger.iqCatLayer(), linger.ScaledRoundLayer()
        self.pool, self.limit = linger.AvgPool2dInt(6), linger.ReLU6Int()

    def forward(self, x):
        y = self.fc(self.limit(self.pool(torch.relu(self.conv(x)))).flatten(1))
        y = self.round(torch.exp(self.cat([y, y], 1)[:, 2:7]))
        y = self.lstm(y.unsqueeze(0))[0]
        return self.add(y, y.flip(-1))


def ready() -> nn.Module:
    torch.manual_seed(0)
    model = linger.init(Net(), example_inputs=X)
    with linger.calibration(model):
        model(X)
    return model


def test_layers_made_by_hand_get_their_place_in_a_model(tmp_path):
    model = ready()
    assert type(model.conv) is linger.Conv2dInt and type(model.fc) is linger.LinearInt
    assert (model.conv.quant.weight_bits, model.conv.quant.clamp.clamp_activation_value) == (4, 4)
    assert model.conv.fused_relu and model.conv.normalize_data == 4
    model.train()(X).sum().backward()
    linger.onnx.export(model.eval(), X[:1], tmp_path / "m.onnx")
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(X[:1]).values()
    assert torch.equal(torch.from_numpy(got), model(X[:1]).detach())
    linger.save(model, tmp_path / "m.pt")
    assert torch.equal(linger.load(Net(), tmp_path / "m.pt").eval()(X), model(X))
    with pytest.raises(RuntimeError, match="already initialised"):
        linger.init(model)


def test_the_first_stage_leaves_layers_made_by_hand_alone():
    model = linger.constrain(Net())
    assert isinstance(model.fc, linger.NormalizeLinear) and type(model.conv) is linger.Conv2dInt
    linger.init(model)
    assert (
        type(model.conv) is linger.Conv2dInt
        and model.conv.quant.weight_bits == 4
        and type(model.fc) is linger.LinearInt
    )
    with pytest.raises(RuntimeError, match="constrain comes before"):
        linger.constrain(model)


def test_quant_modules_leaves_them_quantized_and_disable_quant_makes_them_float():
    model = linger.init(Net(), quant_modules=(nn.Linear,))
    assert type(model.conv) is linger.Conv2dInt
    model = Net()
    linger.disable_quant(model.conv)
    linger.init(model)
    assert type(model.conv) is nn.Conv2d and "quantizer" not in str(dict(model.conv.named_modules()))


def test_operators_as_modules_keep_their_widths_and_answer_isinstance():
    model = ready()
    assert isinstance(model.add, linger.iqAddLayer) and isinstance(nn.ReLU6(), linger.ReLU6Int)
    (state,) = model.add.children()
    assert isinstance(state, linger.AddInt) and isinstance(state, linger.iqAddLayer) and isinstance(state, linger.QAdd)
    assert state.quant.output_bits == 16 and not isinstance(state, linger.iqMulLayer)
    assert torch.equal(pickle.loads(pickle.dumps(model.eval()))(X), model(X))


OPERATORS = {
    "iqAddLayer": (lambda m, x: m(x, x), lambda x: x + x),
    "iqMulLayer": (lambda m, x: m(x, x), lambda x: x * x),
    "iqDivLayer": (lambda m, x: m(x, 2.0), lambda x: x / 2.0),
    "iqSumLayer": (lambda m, x: m(x, -1), lambda x: x.sum(-1)),
    "iqCatLayer": (lambda m, x: m([x, x], 1), lambda x: torch.cat([x, x], 1)),
    "iqClampLayer": (lambda m, x: m(x, -1, 1), lambda x: x.clamp(-1, 1)),
    "iqSigmoidLayer": (lambda m, x: m(x), torch.sigmoid),
    "iqTanhLayer": (lambda m, x: m(x), torch.tanh),
    "iqVarLayer": (lambda m, x: m(x, -1), lambda x: x.var(-1)),
    "softmaxIntLayer": (lambda m, x: m(x), lambda x: x.softmax(-1)),
    "logsoftmaxIntLayer": (lambda m, x: m(x), lambda x: x.log_softmax(-1)),
    "BmmInt": (lambda m, x: m(x, x.transpose(1, 2)), lambda x: x @ x.transpose(1, 2)),
    "QGelu": (lambda m, x: m(x), nn.functional.gelu),
    "QSwish": (lambda m, x: m(x), nn.functional.silu),
    "QGLU": (lambda m, x: m(x), nn.functional.glu),
    "AvgPool2dInt": (lambda m, x: m(x), lambda x: nn.functional.avg_pool2d(x, 2)),
    "ReLU6Int": (lambda m, x: m(x), nn.functional.relu6),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_alone_is_the_function_of_torch(name):
    call, want = OPERATORS[name]
    module = getattr(linger, name)(*((2,) if name == "AvgPool2dInt" else ()))
    x = X[:, 0]
    assert torch.equal(call(module, x), want(x))
