"""Setters: what they keep in float, what they return, whom they reach."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.compat.switches import Setter


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.own = nn.Parameter(torch.eye(6))

    def forward(self, x):
        y, z = self.a(x), self.b(x)
        return self.c(self.operator(y, z))

    def operator(self, y, z):
        raise NotImplementedError


CASES = {
    "SetFunctionLinearQuant": lambda self, y, z: F.linear(y, self.own),
    "SetIQTensorAdd": lambda self, y, z: y + z,
    "SetIQTensorMul": lambda self, y, z: y * z,
    "SetIQTensorCat": lambda self, y, z: torch.cat([y, z], 1)[:, 3:9],
    "SetIQTensorSigmoid": lambda self, y, z: torch.sigmoid(y),
    "SetIQTensorTanh": lambda self, y, z: y.tanh(),
    "SetIQTensorSoftmax": lambda self, y, z: F.softmax(y, -1),
    "SetIQTensorLogSoftmax": lambda self, y, z: y.log_softmax(-1),
    "SetIQTensorClamp": lambda self, y, z: y.clamp(-0.5, 0.5),
    "SetIQTensorSum": lambda self, y, z: y.unsqueeze(1).repeat(1, 6, 1).sum(-1),
    "SetIQTensorDiv": lambda self, y, z: y / 2.0,
}


def network(kind) -> nn.Module:
    torch.manual_seed(0)
    return type("Case", (Net,), {"operator": kind})()


def quantized(kind, **keywords) -> nn.Module:
    model = linger.init(network(kind), **keywords)
    x = torch.randn(8, 6)
    with linger.calibration(model):
        model(x)
    return model.eval()


def operators(model, tmp_path) -> list[str]:
    import onnx

    linger.onnx.export(model, torch.randn(1, 6), tmp_path / "m.onnx")
    return [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node]


@pytest.mark.parametrize("name", CASES)
def test_a_setter_keeps_its_operator_in_float(name, tmp_path):
    kind = CASES[name]
    setter = getattr(linger, name)
    on = quantized(kind)
    assert not linger.summary(on).islands
    before = setter(False)
    assert before == True and bool(before)  # noqa: E712  like the value before
    off = quantized(kind)
    assert setter(True) == False  # noqa: E712
    assert linger.summary(off).islands, "the operator is reported as float"
    assert f"operators in float: {setter.operators[0]}" in str(linger.summary(off))
    assert "operators in float" not in str(linger.summary(on))
    after = quantized(kind)
    assert not linger.summary(after).islands
    assert operators(off, tmp_path).count("Dequant") > operators(on, tmp_path).count("Dequant")
    x = torch.randn(1, 6)
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert torch.equal(torch.from_numpy(got), on(x).detach())


def test_a_setter_is_a_context_manager_and_models_keep_their_own():
    with linger.SetIQTensorAdd(False):
        inside = quantized(CASES["SetIQTensorAdd"])
    outside = quantized(CASES["SetIQTensorAdd"])
    assert linger.summary(inside).islands and not linger.summary(outside).islands
    assert linger.settings.current().operators == ()
    copy = pickle.loads(pickle.dumps(linger.settings.current()))
    assert copy == linger.settings.current()


def test_switches_survive_a_file_and_travel_with_checkpoints(tmp_path):
    linger.config_save_to_yaml(tmp_path / "c.yaml")
    assert "\noperators:" not in (tmp_path / "c.yaml").read_text()
    linger.SetIQTensorAdd(False)
    model = linger.init(network(CASES["SetIQTensorAdd"]), config_file=str(tmp_path / "c.yaml"))
    with linger.calibration(model):
        model(torch.randn(8, 6))
    assert linger.summary(model).islands
    linger.config_save_to_yaml(tmp_path / "d.yaml")
    assert "operators: {add: false}" in (tmp_path / "d.yaml").read_text()
    linger.save(model, tmp_path / "m.pt")
    linger.SetIQTensorAdd(True)
    fresh = network(CASES["SetIQTensorAdd"])
    linger.load(fresh, tmp_path / "m.pt")
    x = torch.randn(2, 6)
    assert torch.equal(fresh.eval()(x), model.eval()(x))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("operators: {addx: false}", "operators.addx: no operator has this name; nearest: add"),
        ("operators: {add: maybe}", "operators.add: must be true .* or false"),
        ("operators: [add]", "operators must be a mapping"),
    ],
)
def test_wrong_operators_in_a_file_are_named(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(linger.ConfigError, match=message):
        linger.init(network(CASES["SetIQTensorAdd"]), config_file=str(tmp_path / "c.yaml"))


def _bmm(self, y, z):
    return torch.bmm(y.unsqueeze(1), z.unsqueeze(2)).squeeze(1).expand(-1, 6) * 1.0


def test_bmm_is_float_in_the_classic_form_and_integer_in_the_3_x_form():
    everything = (nn.Linear,)
    assert not [i for i in linger.summary(quantized(_bmm)).islands if "bmm" in i]
    assert [i for i in linger.summary(quantized(_bmm, quant_modules=everything)).islands if "bmm" in i]
    assert linger.SetFunctionBmmQuant(True) == False  # noqa: E712
    assert not [i for i in linger.summary(quantized(_bmm, quant_modules=everything)).islands if "bmm" in i]
    linger.SetFunctionBmmQuant(False)
    assert [i for i in linger.summary(quantized(_bmm)).islands if "bmm" in i]


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.alone, self.out = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 2, 1),
        )

    def forward(self, x):
        return self.out(self.alone(torch.relu(self.bn(self.conv(x)))))


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_frozen_batch_norm_statistics(when):
    x = torch.randn(4, 3, 8, 8)
    plain = nn.Sequential(nn.BatchNorm2d(3))
    net = Normed()
    try:
        if when == "before":
            linger.SetBnMomentumUpdate(disable=True)
        linger.trace_layers(net, net, x)
        if when == "between":
            linger.SetBnMomentumUpdate(True)
        net = linger.normalize_layers(net)
        if when == "after":
            assert linger.SetBnMomentumUpdate(True) == False  # noqa: E712
        assert net.conv.bn.momentum == 0 and net.alone.momentum == 0
        assert "momentum=0," in str(net)
        assert "their momentum is 0: conv.bn, alone" in str(linger.summary(net))
        stats = [net.conv.bn.running_mean.clone(), net.alone.running_var.clone()]
        weight = net.alone.weight.detach().clone()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
        assert torch.equal(stats[0], net.conv.bn.running_mean) and torch.equal(stats[1], net.alone.running_var)
        assert not torch.equal(weight, net.alone.weight)
        assert plain[0].momentum == 0.1
        assert linger.SetBnMomentumUpdate(False)
        assert net.conv.bn.momentum == 0.1 and net.alone.momentum == 0.1
    finally:
        linger.SetBnMomentumUpdate(False)


def test_setters_refuse_what_is_no_boolean():
    for name in [n for n in dir(linger) if n.startswith("Set") and n != "SetPlatFormQuant"]:
        with pytest.raises(TypeError, match=f"{name}: expected True or False, got 1"):
            getattr(linger, name)(1)
    with pytest.raises(ValueError, match="only luna_quant exists"):
        linger.SetPlatFormQuant("other")
    with pytest.raises(linger.UnsupportedError, match="SetIQCat2AddZero"):
        linger.SetIQCat2AddZero(True)
    assert isinstance(linger.SetIQTensorAdd, Setter) and "add" in linger.SetIQTensorAdd.__doc__


def test_3_x_switches():
    layers, names = linger.get_quant_ops_name()
    assert "Conv2dInt" in layers and {"add", "softmax", "log_softmax"} <= set(names)
    with linger.disable_quant_ops(qtensor_list=["softmax"]):
        assert dict(linger.settings.current().operators) == {"softmax": False, "log_softmax": False}
        with linger.enable_quant_ops(["log_softmax"]):
            assert dict(linger.settings.current().operators) == {"softmax": False, "log_softmax": True}
    assert linger.settings.current().operators == ()
    with pytest.raises(ValueError, match="no operator matches 'nothing'"):
        linger.disable_quant_ops(qtensor_list=["nothing"])
    with pytest.raises(linger.UnsupportedError, match="disable_module"):
        linger.disable_quant_ops([nn.Linear])
