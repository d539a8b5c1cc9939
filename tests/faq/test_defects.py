"""Defects of other tools for these chips, each of which must not occur here; those with tests elsewhere stand in docs/faq.md."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from tests.faq.nets import Net, X, attributes, float_net, graph_of, operators, ready, train


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_defect_01_calibration_works_with_both_methods(method, tmp_path):
    (tmp_path / "c.yaml").write_text(f"quant_info: {{qat_method: {method}}}\n")
    model = ready(float_net(), config_file=str(tmp_path / "c.yaml"))
    assert all(0 < float(b) < 2**24 for name, b in model.named_buffers() if name.endswith("output_quantizer.scale"))
    train(model)


def test_defect_03_disable_module_holds_for_one_call():
    assert type(linger.init(Net(), disable_module=nn.Linear).fc) is nn.Linear
    assert type(linger.init(Net()).fc) is linger.LinearInt
    assert type(linger.constrain(Net(), disable_module=nn.Linear).fc) is nn.Linear
    assert type(linger.constrain(Net()).fc) is linger.NormalizeLinear


def test_defect_04_a_configuration_is_saved_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    linger.config_save_to_yaml("config.yaml")
    assert linger.settings.load("config.yaml") == linger.settings.current()


def test_defect_05_every_key_of_a_file_does_what_it_says_or_is_refused(tmp_path):
    def init(text):
        (tmp_path / "c.yaml").write_text(text)
        return linger.init(Net(), str(tmp_path / "c.yaml"))

    assert type(init("open_quant: false").fc) is nn.Linear
    draws = []
    for _ in range(2):
        init("seed: 7")
        draws.append((random.random(), float(torch.rand(()))))
    assert draws[0] == draws[1]
    assert init("dtype: torch.float64").fc.weight.dtype == torch.float64
    init("quant_method: NATIVE")
    for text in (
        "quant_info: {is_perchannel: true}",
        "quant_info: {is_symmetry: false}",
        "no_such_key: 1",
        "quant_method: NO",
    ):
        with pytest.raises(linger.ConfigError, match="line 1"):
            init(text)


def test_defect_07_a_model_keeps_its_own_frozen_settings():
    model = linger.init(Net())
    before = model.fc.quant
    linger.QUANT_CONFIGS.quant_info.weight_bits = 4
    assert model.fc.quant is before and before.weight_bits == 8
    assert linger.init(Net()).fc.quant.weight_bits == 4


@pytest.mark.parametrize("kind", ["conv", "transposed", "groups"])
@pytest.mark.parametrize("affine", [True, False])
def test_defect_09_a_batch_norm_is_folded_with_its_own_constants(kind, affine):
    torch.manual_seed(0)
    layer = {
        "conv": nn.Conv2d(4, 6, 3),
        "transposed": nn.ConvTranspose2d(4, 6, 3, groups=2),
        "groups": nn.Conv2d(4, 6, 3, groups=2),
    }[kind]
    net = nn.Sequential(layer, nn.BatchNorm2d(6, eps=0.1, affine=affine))
    x = torch.randn(8, 4, 8, 8)
    for _ in range(3):
        net(x)
    want = net.eval()(x)
    state = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    model = linger.init(copy.deepcopy(net))
    for m in model.parameters():
        nn.init.zeros_(m)
    model.load_state_dict(state)
    with linger.quantization(model, False):
        assert torch.allclose(model(x), want, atol=1e-5)


def test_defect_10_constrained_layers_and_subclasses_are_quantized(caplog):
    class Mine(nn.Linear):
        pass

    class Other(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    model = linger.init(linger.constrain(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), Mine(4, 4), Other(4, 4))))
    assert (
        isinstance(model[0], linger.Conv2dInt) and isinstance(model[2], linger.LinearInt) and isinstance(model[2], Mine)
    )
    assert isinstance(model[3], linger.LinearInt) or "3 (Other)" in caplog.text  # never silent


def test_defect_12_every_arithmetic_spelling_is_quantized():
    class Arithmetic(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y, z = self.a(x), self.b(x)
            m = y.unsqueeze(-1) @ z.unsqueeze(1)
            t = torch.add(y, z, alpha=2) - z / 4 + (1 - y) + torch.cat([y, z, y], 1)[:, 2:6]
            return t.clamp(-1, 1) + m.sum(-1) + torch.matmul(m, m).mean(-1)

    x = torch.randn(8, 4)
    model = ready(Arithmetic(), x)
    assert not linger.summary(model).islands


def test_defect_13_a_model_without_data_says_so():
    model = linger.init(float_net()).eval()
    with pytest.warns(UserWarning, match=r"these quantizers have seen no data yet: .*'conv1\.output_quantizer'"):
        y = model(X)
    assert (y - float_net()(X)).abs().max() < 0.2  # nor is the scale 1: the range of the batch is taken


class Stateful(nn.Module):
    """Two directions; the states are given."""

    def __init__(self, kind):
        super().__init__()
        self.fc, self.rnn = nn.Linear(4, 5), kind(5, 6, batch_first=True, bidirectional=True)

    def forward(self, x, *states):
        return self.rnn(self.fc(x), states if isinstance(self.rnn, nn.LSTM) else states[0])[0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_defect_15_and_36_recurrent_layers_with_given_states_are_exported(kind, tmp_path):
    torch.manual_seed(0)
    states = [torch.randn(2, 2, 6) / 2 for _ in range(2 if kind is nn.LSTM else 1)]
    model, x = linger.init(Stateful(kind)), torch.randn(2, 5, 4)
    with linger.calibration(model):
        model(x, *states)
    first = (x[:1], *(s[:, :1] for s in states))
    linger.onnx.export(model.eval(), first, tmp_path / "m.onnx")
    given = list(first)
    if kind is nn.LSTM:  # the cell state enters as the chip's int32
        given[2] = (given[2] * 2**15 + 0.5).floor().to(torch.int32)
        first = (*first[:2], given[2] / 2**15)
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(given).values()
    assert torch.equal(torch.from_numpy(got), model(*first).detach())


def test_defect_15_one_tensor_as_hidden_and_cell_state_is_refused(tmp_path):
    class Same(Stateful):
        def forward(self, x, h):
            return super().forward(x, h, h)

    torch.manual_seed(0)
    model, x, h = linger.init(Same(nn.LSTM)), torch.randn(2, 5, 4), torch.randn(2, 2, 6) / 2
    with linger.calibration(model):
        model(x, h)
    with pytest.raises(linger.onnx.ExportError, match="give hidden and cell state as two tensors"):
        linger.onnx.export(model.eval(), (x[:1], h[:, :1]), tmp_path / "m.onnx")


def test_defect_14_recurrent_layers_without_bias_and_with_several_layers():
    model, x = linger.init(nn.LSTM(4, 5, num_layers=2, bias=False, bidirectional=True)), torch.randn(6, 3, 4)
    with linger.calibration(model):
        want = model(x)[0]
    assert (model.eval()(x)[0] - want).abs().mean() < 0.02


def test_defect_16_layer_norm_without_parameters():
    model, x = linger.init(nn.Sequential(nn.LayerNorm(8, elementwise_affine=False))), torch.randn(16, 8)
    with linger.calibration(model, a_calibrate_name="abs_max"):
        want = model(x)
    assert (model.eval()(x) - want).abs().mean() < 0.02


def test_defect_17_a_transposed_convolution_takes_output_size():
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1)

        def forward(self, x):
            return self.up(x, output_size=[16, 16])

    assert ready(Up())(X).shape == (8, 4, 16, 16)


def test_defect_18_a_pool_reads_the_input_of_the_network(tmp_path):
    model = ready(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3)))
    assert "MaxPool" in operators(graph_of(model, X[:1], tmp_path / "m.onnx"))


def test_defect_19_padding_same():
    net = nn.Sequential(nn.Conv2d(3, 4, (3, 5), padding="same"))
    want = net(X)
    assert (ready(net)(X) - want).abs().mean() < 0.05


def test_defect_21_w_like_stays_on_the_device():
    model = linger.init(float_net())
    with linger.calibration(model, a_calibrate_name="w_like", w_calibrate_name="w_like"):
        model(X)
    assert {b.device.type for b in model.buffers()} == {"cpu"}


def test_defect_22_operators_exist_before_the_optimizer(tmp_path):
    (tmp_path / "c.yaml").write_text("quant_info: {qat_method: TQT}\n")
    model = linger.init(float_net(), str(tmp_path / "c.yaml"), example_inputs=X)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    threshold = model._linger_qtensor_qadd_0.output_quantizer.learning_data
    train(model, optimizer=optimizer)
    assert not linger.check_optimizer(model, optimizer) and threshold.grad is not None


def test_defect_24_a_checkpoint_saved_after_an_export_loads(tmp_path):
    model = ready(float_net(), disable_module=nn.BatchNorm2d)
    linger.onnx.export(model, X[:1], tmp_path / "m.onnx")
    torch.save(model.state_dict(), tmp_path / "m.pt")
    fresh = linger.init(Net(), disable_module=nn.BatchNorm2d)
    fresh.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert torch.equal(fresh.eval()(X), model(X))


def test_defect_28_gru_has_a_constrained_form():
    model = linger.constrain(nn.Sequential(nn.GRU(3, 4)))
    assert isinstance(model[0], linger.NormalizeFastGRU) and isinstance(linger.init(model)[0], linger.GRUInt)


class Chain(nn.Module):
    """The state of a decoder is computed by a trainable encoder."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 6), nn.GRU(3, 6)

    def forward(self, x, y):
        return self.decoder(y, self.encoder(x).unsqueeze(0))[0]


def test_defect_33_a_computed_state_trains_what_computed_it():
    model = linger.init(Chain()).train()
    model(torch.randn(2, 4), torch.randn(5, 2, 3)).sum().backward()
    assert model.encoder.weight.grad.abs().sum() > 0


class Twice(nn.Module):
    """One layer reads a quantized tensor and a float one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.b(self.a(x)) + self.b(torch.exp(x))


def test_defect_34_a_module_used_twice_has_its_quant_node(tmp_path):
    x = torch.randn(8, 4) / 2
    graph = graph_of(ready(Twice(), x), x[:1], tmp_path / "m.onnx")  # the runner's integers are the model's
    assert operators(graph).count("Quant") == 2 and operators(graph).count("LinearInt") == 3


def test_defect_35_a_model_stays_on_its_device_unless_a_file_says_otherwise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for call in (linger.constrain, linger.init):
        assert call(Net()).fc.weight.device.type == "cpu"


def test_defect_39_padding_is_not_taken_for_its_mode(tmp_path):
    """Classic: a fused convolution passed its padding as padding_mode."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="zeros"), nn.BatchNorm2d(4))
    linger.trace_layers(net, net, X)
    linger.normalize_layers(net)
    model = ready(net)
    assert (model[0].padding, model[0].padding_mode) == ((1, 1), "zeros")
    (node,) = [n for n in graph_of(model, X[:1], tmp_path / "m.onnx").node if n.op_type == "Conv2dInt"]
    assert attributes(node)["pads"] == [1, 1, 1, 1]


def test_defect_40_dropout_goes_on_in_training():
    """Classic: init switched F.dropout off for the whole process."""

    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 64)

        def forward(self, x):
            return F.dropout(self.fc(x), 0.5, self.training)

    model = linger.init(Drops())
    assert (model.train()(torch.randn(4, 8)) == 0).float().mean() > 0.3
    assert (F.dropout(torch.ones(1000), 0.5) == 0).any()
