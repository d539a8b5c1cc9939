"""``linger.init`` from the user's side: what is converted, kept, folded and refused."""

import copy
import logging
import pickle

import pytest
import torch
from convert.nets import Net, Plain, images, trained
from torch import nn

import linger
from linger.convert import record_of, report_of
from linger.nn import Conv2dInt, LinearInt
from linger.nn.constrained.fused import EmptyBatchNorm, NormalizeConvBN2d
from linger.nn.layers.batch_norm_folding import Conv2dBNInt, LinearBNInt
from linger.quantizers import Quantizer


def config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


WAYS = pytest.mark.parametrize("example", [None, images()], ids=["read", "run"])


@WAYS
def test_structure(example):
    m = linger.init(trained(), example_inputs=example)
    assert type(m).__name__ == "Net" and isinstance(m, Net)
    assert isinstance(m.conv, Conv2dInt) and isinstance(m.fc, LinearInt) and isinstance(m.bn, EmptyBatchNorm)
    assert m.conv.fused_relu and not m.body[0].fused_relu and not m.head.fused_relu
    assert m.conv.bias is not None and "(bn): EmptyBatchNorm()" in repr(m)
    assert hasattr(m, "_linger_qtensor_qadd_0") is (example is not None)
    assert all(q.name == n for n, q in m.named_modules() if isinstance(q, Quantizer))


@WAYS
def test_folded_layers_are_the_float_layers(example):
    m = trained().eval()
    x = images()
    wanted = m.bn(m.conv(x)), m.body(m.bn(m.conv(x)))
    q = linger.init(copy.deepcopy(m), example_inputs=example)

    def run(layer, x):
        return nn.Conv2d._conv_forward(layer, x, layer.weight, layer.bias)

    torch.testing.assert_close(run(q.conv, x), wanted[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run(q.body[0], wanted[0]), wanted[1], rtol=1e-5, atol=1e-5)
    v = torch.randn(5, 8)
    folded = torch.nn.functional.linear(v, q.fc.weight, q.fc.bias)
    torch.testing.assert_close(folded, m.norm(m.fc(v)), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:linger. .* have seen no data")
def test_identity_dtype_hooks_flags():
    m = trained()
    params = dict(m.named_parameters())
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    m.body[0].weight.requires_grad_(False)
    m.fc.eval()
    m.head.note = "mine"
    calls = []
    m.head.register_forward_hook(lambda *a: calls.append("out"))
    head = m.head
    linger.init(m)
    assert m.head is head and m.head.note == "mine" and m.training and not m.fc.training
    assert not m.fc.output_quantizer.training and m.conv.output_quantizer.training
    for name in ("conv.weight", "body.0.weight", "body.0.bias", "fc.weight", "fc.bias", "head.weight", "head.bias"):
        assert m.get_parameter(name) is params[name], name
    assert not m.body[0].weight.requires_grad and m.conv.bias.requires_grad
    before, frozen = m.head.weight.detach().clone(), m.body[0].weight.detach().clone()
    m(images()).square().sum().backward()
    optimizer.step()
    assert calls == ["out"] and not torch.equal(before, m.head.weight) and torch.equal(frozen, m.body[0].weight)


def test_trains_and_evaluates():
    m = linger.init(trained(), example_inputs=images())
    optimizer = torch.optim.SGD(m.parameters(), 0.05)
    target = torch.tensor([0, 1, 2, 3])
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(m(images()), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    m.eval()
    y = m(images())
    assert torch.equal(y, m(images())) and linger.runtime.info(y) is not None


def test_init_of_a_constrained_model_in_one_process():
    m = linger.constrain(trained(), example_inputs=images())
    for _ in range(3):
        m(images(8))
    m.eval()
    seen = []
    m.bn.register_forward_hook(lambda mod, args, out: seen.append(out.detach()))
    m(images())
    w = m.conv.weight
    wanted = m.conv.folded()
    linger.init(m)
    assert m.conv.weight is w and isinstance(m.conv, Conv2dInt) and isinstance(m.bn, EmptyBatchNorm)
    assert isinstance(m.head, LinearInt) and not hasattr(m.conv, "bn") and m.conv.fused_relu
    torch.testing.assert_close(m.conv.weight, wanted[0])
    torch.testing.assert_close(m.conv.bias, wanted[1])
    m.train()
    m(images())
    want, got = seen
    assert (got - want.relu()).abs().mean() < 0.02 * want.abs().max()
    assert (m.conv.normalize_data, m.conv.normalize_weight, m.conv.normalize_bias) == (8, None, None)


def test_constrained_limits_are_applied_once(tmp_path):
    path = config(tmp_path, "clamp_info: {clamp_weight_value: 0.05, clamp_bias_value: 0.01}\n")
    m = linger.init(linger.constrain(trained(), path), path)
    assert m.conv.weight.abs().max() <= 0.05 and m.head.weight.abs().max() <= 0.05 and m.head.bias.abs().max() <= 0.01
    assert m.head.weight_quantizer.is_init_mom_clamp_weight


def test_twice_is_refused():
    m = linger.init(Plain())
    with pytest.raises(RuntimeError, match="already initialised"):
        linger.init(m)
    with pytest.raises(RuntimeError, match="its part '0'"):
        linger.init(nn.Sequential(m))


@pytest.mark.parametrize("convert", [linger.constrain, linger.init])
def test_open_quant_false_passes_through(convert, tmp_path):
    m = Plain()
    state = {k: v.clone() for k, v in m.state_dict().items()}
    assert convert(m, config(tmp_path, "open_quant: false\n")) is m
    assert type(m) is Plain and type(m.conv) is nn.Conv2d and "load_state_dict" not in vars(m)
    assert all(torch.equal(v, state[k]) for k, v in m.state_dict().items())


@pytest.mark.parametrize("method", ["CUDA_GS", "COMPILE", "TRITON"])
def test_methods_without_code(tmp_path, method):
    with pytest.raises(linger.UnsupportedError, match=f"quant_method {method} is not implemented; use NATIVE"):
        linger.init(Plain(), config(tmp_path, f"quant_method: {method}\n"))


def test_other_methods(tmp_path):
    linger.init(Plain(), config(tmp_path, "quant_method: ONNX\n"))
    with pytest.raises(RuntimeError, match="is not on a CUDA device"):
        linger.init(Plain(), config(tmp_path, "quant_method: CUDA\n"))


def test_disable(caplog):
    with caplog.at_level(logging.INFO, "linger"):
        m = linger.init(Net(), disable_module=(nn.Linear,), disable_submodel=("body*",))
    assert isinstance(m.conv, Conv2dInt) and type(m.body[0]) is nn.Conv2d and type(m.body[1]) is nn.BatchNorm2d
    assert type(m.fc) is nn.Linear and type(m.norm) is linger.BatchNorm1dInt
    assert "switched off: " in caplog.text and "head" in caplog.text
    m.train()(images()).sum().backward()
    m = linger.init(Net(), disable_module=(nn.BatchNorm2d,))
    assert type(m.bn) is nn.BatchNorm2d and isinstance(m.norm, EmptyBatchNorm)


def test_disabled_constrained_layers_stay_constrained():
    m = linger.init(linger.constrain(Net()), disable_module=(nn.Conv2d,))
    assert isinstance(m.conv, NormalizeConvBN2d) and isinstance(m.head, LinearInt)
    m(images()).sum().backward()


def test_differences_between_the_stages_are_reported(caplog):
    m = linger.constrain(Net(), disable_submodel="head")
    with caplog.at_level(logging.WARNING, "linger"):
        linger.init(m, disable_submodel="fc")
    assert "head: constrained=off, quantized=on" in caplog.text and "fc: constrained=on, quantized=off" in caplog.text


def test_what_cannot_be_folded_is_said():
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    tied[2].weight = tied[0].weight
    loose = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    for m, text, kind in (
        (tied, "shared with another module", "BatchNorm2dInt"),  # it stands alone
        (loose, "keeps no running statistics", ""),
    ):
        linger.init(m)
        assert type(m[1]).__name__ == (kind or "BatchNorm2d")
        row = {r.name: r for r in report_of(m).rows}["1"]
        assert text in row.note and row.became == kind


def test_layers_without_a_form_are_listed_once(caplog):
    m = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv3d(1, 1, 1), nn.Dropout(), nn.Flatten())
    with caplog.at_level(logging.WARNING, "linger"):
        linger.init(m)
    assert [r.name for r in report_of(m).stayed_float] == ["1"]
    assert caplog.text.count("Conv3d has no quantized form") == 1


def test_a_constrained_embedding_is_converted():
    m = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    m = linger.init(linger.constrain(m))
    assert [type(layer).__name__ for layer in m] == ["EmbeddingInt", "LinearInt"]
    assert torch.isfinite(m(torch.tensor([1, 2]))).all()


def test_the_summary_shows_widths_and_limits_of_what_a_layer_has(tmp_path):
    m = linger.init(
        nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Sigmoid(), nn.GRU(4, 4)),
        config(tmp_path, "platform: arcs"),
    )
    m(torch.tensor([[1, 2]]))
    rows = {row[1]: (row[2], row[5]) for row in linger.summary(m).rows}
    assert rows["EmbeddingInt"] == ("-/8/8", "weight 7 x mean") and rows["SigmoidInt"] == ("8/-/8", "")
    assert rows["LinearInt"] == ("8/8/8", "out 8, weight 7 x mean")


def test_the_summary_names_the_chip_of_a_section(tmp_path):
    text = "platform: arcs\npart:\n  name: ['1']\n  platform: venus\n"
    m = linger.init(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), config(tmp_path, text))
    assert [row[6] for row in linger.summary(m).rows] == ["MOM", "MOM, platform venus"]


def test_a_gru_of_another_formula_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "linger"):
        m = linger.init(nn.GRU(4, 4), config(tmp_path, "platform: arcs"))
    assert "linger.init: (root): arcs applies the reset gate before the recurrent product" in caplog.text
    assert "reset gate" in str(linger.summary(m))
    caplog.clear()
    linger.init(nn.GRU(4, 4), config(tmp_path, "platform: venusA"))
    assert "reset gate" not in caplog.text


@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus"])
def test_recurrent_layers_are_judged_without_inputs(platform):
    model = nn.ModuleDict({"lstm": nn.LSTM(8, 6), "gru": nn.GRU(6, 6)})
    found = {(v.layer, v.severity) for v in linger.check(model, platform)}
    assert {("lstm", "note"), ("gru", "error")} <= found if platform != "venus" else ("gru", "error") in found
    assert {v.severity for v in linger.check(model, platform, engine="later") if v.layer == "gru"} == {"warning"}


def test_sections_reach_operators_by_wildcards(tmp_path):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.fc(x)

    class Pair(nn.ModuleList):
        def forward(self, x):
            return [m(x) for m in self]

    text = "platform: arcs\nwide:\n  name: ['{}']\n  quant_info: {{output_bits: 32}}\n"
    x = torch.randn(2, 4)
    for name in ("*_linger_qtensor_qadd*", "1._linger_qtensor_qadd_0", "?._linger_qtensor_*"):
        m = linger.init(Pair([Sum(), Sum()]), config(tmp_path, text.format(name)), example_inputs=x)
        assert m[1]._linger_qtensor_qadd_0.quant.output_bits == 32
        assert m[0]._linger_qtensor_qadd_0.quant.output_bits == (8 if name[0] == "1" else 32)
    with pytest.raises(linger.ConfigError, match=r"'\*qadd\*' matches no module; .* such as _linger_qtensor_qadd_0"):
        linger.init(Pair([Sum(), Sum()]), config(tmp_path, text.format("*qadd*")))


def test_a_configuration_is_a_path():
    with pytest.raises(TypeError, match="config_file must be the path of a YAML file, got dict"):
        linger.init(Net(), {"platform": "arcs"})


def test_a_class_to_leave_alone_is_a_class():
    with pytest.raises(TypeError, match=r"disable_module: expected classes of torch.nn.Module, got Linear\("):
        linger.init(Net(), disable_module=nn.Linear(2, 2))


def test_sections_and_methods(tmp_path):
    text = "quant_info: {qat_method: TQT}\npart:\n  name: [head]\n  quant_info: {weight_bits: 4, output_bits: 32}\n"
    m = linger.init(Net(), config(tmp_path, text))
    assert m.head.weight_quantizer.bits == 4 and m.head.output_quantizer.bits == 32 and m.head.input_quantizer.bits == 8
    assert m.fc.weight_quantizer.bits == 8 and m.fc.output_quantizer.method == m.head.quant.method == "TQT"
    other = linger.init(Net(), config(tmp_path, "quant_info: {qat_method: MOM}\n"))
    assert other.fc.quant.method == "MOM" and m.fc.quant.method == "TQT"
    assert record_of(m).settings.quant_info.qat_method == "TQT"


def test_classic_keywords():
    m = linger.init(Net(), quant_modules=(nn.Conv2d,), parameter_bits=4)
    assert isinstance(m.conv, Conv2dInt) and m.conv.weight_quantizer.bits == 4 and type(m.fc) is nn.Linear
    with pytest.raises(linger.UnsupportedError, match="parameter_bits=3"):
        linger.init(Net(), parameter_bits=3)
    with pytest.raises(ValueError, match="fold_bn must be"):
        linger.init(Net(), fold_bn="never")


class OwnLinear(nn.Linear):
    def helper(self):
        return "mine"


def test_a_subclass_that_keeps_forward_is_converted():
    m = nn.Sequential(OwnLinear(4, 4), nn.Linear(4, 2))
    linger.init(linger.constrain(m))
    assert isinstance(m[0], LinearInt) and isinstance(m[0], OwnLinear) and m[0].helper() == "mine"
    m(torch.randn(3, 4)).sum().backward()
    twin = pickle.loads(pickle.dumps(m)).eval()
    assert torch.equal(twin(torch.ones(1, 4)), m.eval()(torch.ones(1, 4)))


def test_a_bare_layer_is_a_model():
    m = linger.init(nn.Linear(4, 3))
    assert isinstance(m, LinearInt) and m(torch.randn(2, 4)).shape == (2, 3)


def test_a_layer_used_twice_and_under_two_names():
    m = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    m.add_module("again", m[0])
    linger.init(m)
    assert m.again is m[0] and isinstance(m.again, LinearInt)
    m(torch.randn(2, 4)).sum().backward()


def test_example_inputs_leave_statistics_untouched():
    m = linger.init(trained(), example_inputs=images())
    assert not any(q.ready for q in m.modules() if isinstance(q, Quantizer))
    assert m.training and not linger.convert.summary(m).islands


def test_operators_exist_before_the_optimizer(tmp_path):
    path = config(tmp_path, "quant_info: {qat_method: TQT}\n")
    m = linger.init(trained(), path, example_inputs=images())
    names = {n for n, _ in m.named_parameters()}
    m(images()).sum().backward()
    assert names == {n for n, _ in m.named_parameters()}
    assert "_linger_qtensor_qadd_0.output_quantizer.learning_data" in names
    assert len([n for n, _ in m.named_modules() if n.startswith("_linger_qtensor_qadd") and "." not in n]) == 1


def test_step_folding_trains_the_batch_norm():
    m = linger.init(trained(), fold_bn="step", example_inputs=images())
    assert isinstance(m.conv, Conv2dBNInt) and isinstance(m.fc, LinearBNInt) and isinstance(m.bn, EmptyBatchNorm)
    before = m.conv.bn.running_mean.clone()
    m(images()).sum().backward()
    assert m.conv.bn.weight.grad.abs().sum() > 0 and m.conv.weight.grad.abs().sum() > 0
    assert not torch.equal(before, m.conv.bn.running_mean)
    m.eval()
    before = m.conv.bn.running_mean.clone()
    assert torch.equal(m(images()), m(images())) and torch.equal(before, m.conv.bn.running_mean)


def test_step_folding_follows_float():
    m = trained()
    q = linger.init(copy.deepcopy(m), fold_bn="step")
    twin = copy.deepcopy(m)
    q(images()), twin(images())
    torch.testing.assert_close(q.conv.bn.running_var, twin.bn.running_var, rtol=0.05, atol=0.01)
    once = linger.init(copy.deepcopy(m))
    q = linger.init(m.eval(), fold_bn="step")
    torch.testing.assert_close(q.conv._folded()[0], once.conv.weight)


def test_pickle_deepcopy_and_whole_model_save(tmp_path):
    m = linger.init(trained(), example_inputs=images())
    m(images())
    m.eval()
    torch.save(m, tmp_path / "whole.pt")
    for twin in (
        copy.deepcopy(m),
        pickle.loads(pickle.dumps(m)),
        torch.load(tmp_path / "whole.pt", weights_only=False),
    ):
        assert torch.equal(twin(images()), m(images()))
        twin.load_state_dict(m.state_dict())


def test_import_and_init_change_nothing_in_torch():
    spots = [(torch, "relu"), (torch, "cat"), (nn.Conv2d, "forward"), (torch.Tensor, "__add__"), (torch.onnx, "export")]
    before = [getattr(o, n) for o, n in spots]
    linger.init(linger.constrain(Net()))
    assert [getattr(o, n) for o, n in spots] == before


def test_trace_layers():
    m = trained().eval()
    want = m(images())
    adapter = linger.trace_layers(m, images())
    assert repr(adapter) == "CheckpointAdapter(2 fusions)" and adapter.mappings == [
        ("conv", "bn"),
        ("body.0", "body.1"),
    ]
    text = repr(m)
    assert "normalize_data:None,normalize_weight:None,normalize_bias:None,ahead_relu:True" in text
    torch.testing.assert_close(m(images()), want, rtol=1e-5, atol=1e-5)
    assert repr(linger.trace_layers(m, images())) == "CheckpointAdapter(2 fusions)" and m.conv.blend == 1.0
    m.load_state_dict(trained().state_dict())
    torch.testing.assert_close(m(images()), want, rtol=1e-5, atol=1e-5)
    linger.constrain(m)
    assert m.conv.blend == 0.1 and m.conv.normalize_data == 8
    linger.init(m)
    assert isinstance(m.conv, Conv2dInt) and m.conv.fused_relu


def test_checkpoint_adapter(tmp_path):
    adapter = linger.CheckpointAdapter()
    adapter.add("conv", "bn")
    adapter.add("conv", "bn")
    adapter.save(tmp_path / "map.json")
    adapter = linger.CheckpointAdapter.load(tmp_path / "map.json")
    state = {"p.conv.weight": 1, "p.bn.weight": 2, "p.bn.running_mean": 3, "p.fc.weight": 4}
    assert adapter.adapt(state, "p.") is state
    assert state == {"p.conv.conv.weight": 1, "p.conv.bn.weight": 2, "p.conv.bn.running_mean": 3, "p.fc.weight": 4}
