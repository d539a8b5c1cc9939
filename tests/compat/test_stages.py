"""The classic calls around the two stages, beyond the document's own flows."""

import copy
import pickle

import onnx
import pytest
import torch
from torch import nn

import linger
from linger.nn.constrained.layers import NormalizeConv2d, NormalizeLinear


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(4))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.tail(self.features(x)).flatten(1))


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for _ in range(3):
        model(2 * X + 1)  # statistics that are not those of a fresh BatchNorm
    return model.eval()


def kinds(model) -> dict[str, str]:
    return {n: type(m).__name__ for n, m in model.named_modules() if not n.endswith("quantizer")}


def test_tracing_parts_adds_up_and_repeats_change_nothing():
    whole, parts = net(), net()
    want = whole(X)
    state = whole.state_dict()
    assert linger.trace_layers(parts, parts.features, X, fuse_bn=True) is parts
    assert kinds(parts)["tail.0"] == "Conv2d"
    linger.trace_layers(parts, parts.tail, torch.randn(2, 8, 8, 8))
    assert kinds(parts)["features.0"] == kinds(parts)["tail.0"] == "NormalizeConvBN2d"
    before = kinds(parts)
    linger.trace_layers(parts, parts, X)
    assert kinds(parts) == before
    assert torch.allclose(parts.eval()(X), want, atol=1e-5)
    fresh = Net().eval()
    linger.trace_layer(fresh, fresh, X)
    fresh.load_state_dict(state)
    assert torch.allclose(fresh(X), want, atol=1e-5)
    for other in (copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))):
        assert torch.equal(other(X), parts(X))


def test_trace_layers_keywords():
    model = net()
    linger.trace_layers(model, model, X, ahead_bn_relu=False, ahead_conv_sigmoid=False)
    assert not model.features[0].ahead_relu
    with pytest.raises(TypeError, match="unknown arguments fuse; this form takes fuse_bn, ahead_conv_relu"):
        linger.trace_layers(net(), net(), X, fuse=True)
    with pytest.raises(ValueError, match="target_model, a Net, is no part of root_model"):
        linger.trace_layers(net(), net(), X)
    assert repr(linger.trace_layers(net(), X)) == "CheckpointAdapter(2 fusions)"


def test_normalize_layers_converts_the_classes_it_is_given():
    model = linger.normalize_layers(net(), normalize_modules=(nn.Linear,))
    assert kinds(model)["features.0"] == "Conv2d" and kinds(model)["features.1"] == "BatchNorm2d"
    assert isinstance(model.head, NormalizeLinear)
    assert (model.head.normalize_data, model.head.normalize_weight, model.head.normalize_bias) == (8, 8, None)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        (
            {"clamp_modules": (nn.Linear,)},
            TypeError,
            "unexpected keyword 'clamp_modules'; it is called normalize_modules",
        ),
        (
            {"replace_tuple": (nn.Linear,)},
            TypeError,
            "unexpected keyword 'replace_tuple'; it is called normalize_modules",
        ),
        ({"normalize_weight_value": 0}, linger.ConfigError, "clamp_weight_value: must be a finite number above 0"),
        ({"normalize_output_value": -1}, linger.ConfigError, "clamp_activation_value"),
        ({"normalize_modules": ("Linear",)}, TypeError, "must hold classes of torch.nn.Module, got 'Linear'"),
    ],
)
def test_normalize_layers_refuses(keywords, error, message):
    with pytest.raises(error, match=message):
        linger.normalize_layers(net(), **keywords)


def test_own_limits_of_a_part_hold_in_both_stages():
    model = net()
    linger.normalize_module(model.tail, normalize_weight_value=2, normalize_bias_value=None, normalize_output_value=4)
    linger.trace_layers(model, model, X)
    linger.normalize_layers(model)
    assert (model.tail[0].normalize_data, model.tail[0].normalize_weight) == (4, 2)
    assert (model.features[0].normalize_data, model.features[0].normalize_weight) == (8, 8)
    linger.init(model)
    assert model.tail[0].quant.clamp == linger.settings.ClampInfo(4, None, None, 2)
    assert model.features[0].quant.clamp == linger.settings.ClampInfo(8, None, None, 8)


def test_disabled_parts_stay_as_they_are():
    model = net()
    linger.disable_normalize(model.tail)
    linger.normalize_layers(model)
    assert kinds(model)["tail.0"] == "Conv2d" and isinstance(model.features[0], NormalizeConv2d)
    linger.disable_quant(model.tail)
    linger.init(model, quant_modules=linger.DefaultQuantIntXOP)
    assert kinds(model)["tail.0"] == "Conv2d" and kinds(model)["head"] == "LinearInt"
    assert "disable_quant" in str(linger.summary(model))
    with pytest.raises(TypeError, match=r"disable_quant: module must be a torch\.nn\.Module, got str"):
        linger.disable_quant("tail")


def test_without_normalising_nothing_is_clamped():
    model = net()
    linger.trace_layers(model, model, X)
    linger.init(model)
    assert model.features[0].quant.clamp == linger.settings.ClampInfo(None, None, None, None)
    three = linger.init(net())
    assert three.head.quant.clamp == linger.settings.ClampInfo()


def test_widths_of_a_part():
    model = net()
    linger.quant_module(model.tail, type_modules=(nn.Conv2d,), parameter_bits=4)
    linger.quant_module_by_type(model, (nn.Linear,), out_bits=32, parameter_bits=8)
    linger.init(model)
    assert model.tail[0].quant.weight_bits == 4 and model.features[0].quant.weight_bits == 8
    assert model.head.quant.output_bits == 32 and model.tail[0].quant.output_bits == 8
    with pytest.raises(RuntimeError, match="already initialised; widths are set before"):
        linger.quant_module(model, type_modules=(nn.Linear,))
    with pytest.raises(ValueError, match="parameter_bits must be one of 4, 8, 16, 32, got 5"):
        linger.quant_module(net(), parameter_bits=5)


def test_the_3_x_form_changes_converted_layers():
    model = linger.init(net())
    linger.quant_module(model.head, c_activation_val=16.0, c_weight_val=None, out_bits=32)
    assert model.head.quant.clamp == linger.settings.ClampInfo(16.0, None, None, None)
    assert model.head.output_quantizer.bits == 32 and model.head.quant.output_bits == 32
    model.train()(X).square().mean().backward()
    codes = model.eval()(X) * model.head.output_quantizer.scale
    assert torch.equal(codes, codes.round()) and codes.abs().max() > 127
    constrained = linger.constrain(net())
    linger.const_module(constrained, c_weight_factor=3.0, c_weight_val=None)
    assert constrained.head.normalize_factor == 3.0 and constrained.head.normalize_weight is None
    with pytest.raises(RuntimeError, match="nothing below the module is constrained"):
        linger.const_module(net())
    with pytest.raises(RuntimeError, match="nothing below the module is initialised"):
        linger.quant_module(net(), weight_bits=4)


def test_constructors_of_the_constrained_classes():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    conv = linger.NormalizeConv2d(
        3, 4, 3, normalize_data=1, normalize_weight=0.1, normalize_bias=0.05, ahead_relu=False
    )
    assert conv(x).abs().max() <= 1
    pair = linger.NormalizeConvBN2d(3, 4, 3, padding=1, normalize_data=2)
    assert set(dict(pair.named_children())) == {"conv", "bn"} and pair(x).shape == (2, 4, 8, 8)
    lstm = linger.NormalizeFastLSTM(4, 5, batch_first=True, normalize_data=0.25, normalize_weight=8, normalize_bias=8)
    assert lstm(torch.randn(2, 3, 4))[0].abs().max() <= 0.25
    assert linger.NormalizeEmbedding(5, 4, normalize_data=1, normalize_weight=1)(torch.tensor([1])).shape == (1, 4)
    with pytest.raises(ValueError, match="normalize_data must be None or > 0"):
        linger.NormalizeLinear(3, 4, normalize_data=0)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "ConvTranspose2d", "Conv1d"])
def test_default_classes_cover(name):
    arguments = {"LSTM": (3, 4), "GRU": (3, 4), "ConvTranspose2d": (3, 4, 2), "Conv1d": (3, 4, 3)}
    model = linger.normalize_layers(nn.Sequential(getattr(nn, name)(*arguments[name])))
    assert type(model[0]).__name__.startswith("Normalize")
    linger.init(model)
    assert type(model[0]).__name__ == f"{name}Int"


def test_a_classic_script_and_its_3_x_form_write_the_same_file(tmp_path):
    """Where both can express it: trained from a folded model without limits, bmm in float either way."""
    linger.config_save_to_yaml(tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    for key in ("clamp_activation_value", "clamp_factor_value"):
        start = text.index(f"  {key}: ")
        text = text[: start + len(key) + 4] + "null" + text[text.index("  #", start) :]
    (tmp_path / "c.yaml").write_text(text)

    classic = net()
    linger.trace_layers(classic, classic, X, fuse_bn=True)
    linger.init(classic)
    new = linger.init(net(), config_file=str(tmp_path / "c.yaml"), example_inputs=X)
    files = []
    for model, name in ((classic, "classic.onnx"), (new, "new.onnx")):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.train().parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
        linger.onnx.export(model, X[:1], tmp_path / name)
        files.append(onnx.load(tmp_path / name))
    for file in files:  # the settings that made them are not the same
        del file.metadata_props[:]
    assert files[0].SerializeToString(deterministic=True) == files[1].SerializeToString(deterministic=True)
