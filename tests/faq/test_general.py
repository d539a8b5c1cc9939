"""The general notes of the users' FAQ: two stages that fit together, tracing, export, no_grad, mixed precision."""

import subprocess
import sys

import onnx
import pytest
import torch
from torch import nn

import linger
from tests.faq.nets import Net, X, float_net, graph_of, layer_outputs, loss_of, operators, ready, sqnr, train


def test_faq_g1_the_second_stage_starts_where_the_first_ended(caplog):
    torch.manual_seed(0)
    net = linger.constrain(float_net(), example_inputs=X)
    losses = train(net, steps=20, lr=0.05)
    net.eval()
    last = float(loss_of(net).detach())
    assert losses[-1] < 0.9 * losses[0]
    model = ready(net, example_inputs=X)
    assert abs(float(loss_of(model).detach()) / last - 1) < 0.05
    with linger.quantization(model, False):
        want = layer_outputs(model, X)
    got = layer_outputs(model, X)
    assert set(got) == {"conv1", "conv2", "fc"}
    for name, y in got.items():
        assert sqnr(want[name].relu() if model.get_submodule(name).fused_relu else want[name], y) > 18, name

    caplog.clear()
    classic = float_net()
    linger.trace_layers(classic, classic, X)
    linger.normalize_layers(classic, normalize_modules=(nn.Conv2d, nn.BatchNorm2d))
    linger.init(classic)
    named = [r.getMessage() for r in caplog.records if "constrained=off, quantized=on" in r.getMessage()]
    assert named == ["linger.init: fc: constrained=off, quantized=on"]


def test_faq_g2_any_number_of_traces_adds_up():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            self.b = nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))

        def forward(self, x):
            return self.b(self.a(x))

    unfused = float_net(Two)
    want = unfused(X)
    net = Two().eval()
    linger.trace_layers(net, net.a, X)
    linger.trace_layers(net, net.b, torch.randn(2, 8, 6, 6))
    once = str(net)
    assert once.count("NormalizeConvBN2d") == 2
    linger.trace_layers(net, net.a, X)
    linger.trace_layers(net, net, X)
    assert str(net) == once
    net.load_state_dict(unfused.state_dict())
    assert torch.allclose(net(X), want, atol=1e-5)


def test_faq_g3_the_second_stage_inherits_the_first(caplog):
    def first():
        return linger.constrain(float_net(), disable_submodel=("fc",))

    model = linger.init(first())
    assert "fc: constrained=off, quantized=on" in caplog.text and isinstance(model.fc, linger.LinearInt)
    caplog.clear()
    model = linger.init(first(), inherit=True)
    assert type(model.fc) is nn.Linear and "quantized=on" not in caplog.text
    assert "disable_submodel 'fc' in the first stage" in str(linger.summary(model))

    with linger.SetIQTensorAdd(False):
        limits = linger.settings.ClampInfo(16, None, 3, None)
        net = first()
        linger.settings.use(linger.settings.Settings(clamp_info=limits))
        model = linger.init(net)
        assert "clamp_activation_value: 8 in the first stage, 16 here, in conv1, conv2" in caplog.text
        assert model.conv1.quant.clamp == limits and "out 16, weight 3 x mean" in str(linger.summary(model))
        caplog.clear()
        linger.settings.use(linger.settings.defaults())
        net = first()
        linger.settings.use(linger.settings.Settings(clamp_info=limits))
        model = linger.init(net, inherit=True)
    assert "first stage" not in caplog.text
    assert model.conv1.quant.clamp == linger.settings.ClampInfo()


def test_faq_g3_inherit_needs_a_first_stage():
    with pytest.raises(ValueError, match="inherit=True, but the model has no first stage"):
        linger.init(Net(), inherit=True)


FRESH = """
import sys, torch, linger
from tests.faq.nets import Net, X
linger.onnx.export(linger.load(Net(), sys.argv[1]), X[:1], sys.argv[2])
"""


def test_faq_g4_class_and_checkpoint_are_all_that_export_needs(tmp_path):
    limited = type("Limited", (Net,), {"forward": lambda self, x: Net.forward(self, x).clamp(-1, 1)})
    model = ready(float_net(), example_inputs=X)
    linger.save(model, tmp_path / "m.pt")
    linger.onnx.export(model, X[:1], tmp_path / "here.onnx")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "m.pt", tmp_path / "fresh.onnx"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fresh.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()
    linger.onnx.export(
        model, X[:1], tmp_path / "flags.onnx", opset_version=12, operator_export_type="ONNX_ATEN_FALLBACK"
    )
    assert (tmp_path / "flags.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()
    graph_of(ready(float_net(limited)), X[:1], tmp_path / "clamp.onnx")


def test_faq_g5_no_grad_inside_training():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Linear(8, 2)

        def forward(self, x):
            with torch.no_grad():
                y = self.encoder(x)
            return self.head(y.mean((2, 3)))

    model = linger.init(Frozen()).train()
    model(X).square().sum().backward()
    assert model.head.weight.grad.isfinite().all() and model.head.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.encoder.parameters())
    assert float(model.encoder[0].output_quantizer.running_data) > 0  # statistics move as in any training forward


def test_faq_g6_mixed_precision_in_both_readings(tmp_path):
    models = [linger.init(float_net()).train() for _ in range(2)]
    models[0](X).square().mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        models[1](X).square().mean().backward()
    for (name, a), (_, b) in zip(*(m.named_buffers() for m in models), strict=True):
        if name.endswith("scale"):
            assert torch.equal(a, b), name
    assert all(p.grad.isfinite().all() for p in models[1].parameters())

    (tmp_path / "c.yaml").write_text("part:\n  name: [fc]\n  quant_info: {weight_bits: 4}\n")
    net = float_net()
    net.fc = nn.Linear(32, 5, bias=False)
    model = ready(net, config_file=str(tmp_path / "c.yaml"), example_inputs=X)
    graph = graph_of(model, X[:1], tmp_path / "m.onnx")
    (node,) = [n for n in graph.node if n.op_type == "LinearInt"]
    weight = onnx.numpy_helper.to_array(next(i for i in graph.initializer if i.name == node.input[1]))
    assert weight.min() >= -8 and weight.max() <= 7 and "Conv2dInt" in operators(graph)
