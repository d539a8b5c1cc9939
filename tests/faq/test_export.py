"""The users' FAQ on export: statistics, Dequant, no_grad, functional layers, training afterwards, arguments."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linger
from tests.faq.nets import Cat, Net, X, attributes, float_net, graph_of, operators, ready, train


class Dead(nn.Module):
    """`unused` is never called."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.unused = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(7, 7)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def test_faq_f01_quantizers_without_data_are_listed_once(tmp_path):
    model = linger.init(Dead())
    with pytest.raises(linger.onnx.ExportError) as error:
        linger.onnx.export(model.eval(), X[:1], tmp_path / "m.onnx")
    for name in ("conv.input_quantizer", "conv.output_quantizer", "fc.output_quantizer"):
        assert name in str(error.value)
    assert "unused" not in str(error.value)
    train(model)
    graph = graph_of(model.eval(), X[:1], tmp_path / "m.onnx")
    assert operators(graph).count("LinearInt") == 1


def scales_of_edges(graph) -> list[tuple[str, float, float]]:
    """Consumer, scale of the Dequant in front of it, and scale of what that reads; for every edge into a float operator."""
    scale = {}
    for node in graph.node:
        given = attributes(node)
        if node.op_type == "Quant":
            scale[node.output[0]] = given["scale_x"]
        elif node.op_type == "Dequant":
            continue
        elif "scale_o" in given:
            scale |= dict.fromkeys(node.output, given["scale_o"])
        elif node.domain == "" and node.input and node.input[0] in scale:
            scale |= dict.fromkeys(node.output, scale[node.input[0]])  # an operator that moves codes
    found = []
    for node in graph.node:
        if node.op_type == "Dequant":
            found.append((node.output[0], attributes(node)["scale_o"], scale[node.input[0]]))
    for output in graph.output:
        assert output.name not in scale, "a quantized tensor leaves the graph without a Dequant"
    return found


class Island(Net):
    def forward(self, x):
        return torch.exp(super().forward(x)) + 0.0


@pytest.mark.parametrize("kind", [Net, Cat, Island])
def test_faq_f02_every_quantized_edge_into_float_has_one_dequant_of_its_scale(kind, tmp_path):
    x = torch.randn(8, 4) if kind is Cat else X
    model = ready(float_net(kind, x), x)
    graph = graph_of(model, x[:1], tmp_path / "m.onnx")
    edges = scales_of_edges(graph)
    assert edges and all(own == made for _, own, made in edges)
    assert len({name for name, _, _ in edges}) == len(edges)
    broken = onnx.load(tmp_path / "m.onnx")
    node = next(n for n in broken.graph.node if n.op_type == "Dequant")
    next(a for a in node.attribute if a.name == "scale_o").f *= 2
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(linger.onnx.ModelError, match="has scale 2"):
        linger.onnx.OnnxRunner(tmp_path / "broken.onnx")


def test_faq_f03_export_needs_no_no_grad(tmp_path):
    model = ready(float_net())
    linger.onnx.export(model, X[:1], tmp_path / "a.onnx")
    with torch.no_grad():
        linger.onnx.export(model, X[:1], tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_faq_f04_functional_layers_come_back_from_the_checkpoint(tmp_path):
    x = torch.randn(8, 4)
    model = linger.init(float_net(Cat, x))
    train(model, x)
    graph = graph_of(model.eval(), x[:1], tmp_path / "here.onnx")
    assert "iqCat" in operators(graph)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    fresh = linger.init(Cat())  # no forward: the operators are made from the file
    fresh.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    linger.onnx.export(fresh.eval(), x[:1], tmp_path / "fresh.onnx")
    assert (tmp_path / "fresh.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


def test_faq_f06_training_goes_on_after_an_export(tmp_path):
    torch.manual_seed(0)
    model = linger.init(float_net())
    train(model)
    twin = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    linger.onnx.export(model, X[:1], tmp_path / "a.onnx")
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[k], after[k]) for k in before)
    linger.onnx.export(model, X[:1], tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert train(model, steps=4) == train(twin, steps=4)


class Leaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


def test_faq_f07_leaky_relu_in_place(tmp_path):
    model = ready(float_net(Leaky))
    y = model.a(X[:1])
    assert linger.QTensor.codes_of(y).min() < 0
    graph_of(model, X[:1], tmp_path / "m.onnx")  # what the runner computes is what torch computes
    assert not linger.summary(model).islands or "leaky_relu" in str(linger.summary(model))


def test_faq_f08_export_moves_no_statistics(tmp_path):
    model = linger.init(float_net())
    train(model)
    model.eval()
    model(X)  # the last evaluation
    scales = {name: float(b) for name, b in model.named_buffers() if name.endswith("output_quantizer.scale")}
    model.train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    linger.onnx.export(model, X[:1], tmp_path / "m.onnx")
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers()) and model.training
    layers = [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type in ("Conv2dInt", "LinearInt")]
    assert [attributes(n)["scale_o"] for n in layers] == [
        scales[f"{n}.output_quantizer.scale"] for n in ("conv1", "conv2", "fc")
    ]


class WithDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, more):
        return self.fc(x) + self.fc(more["m"])


def test_faq_f09_a_dict_as_last_argument(tmp_path):
    model, x, more = linger.init(WithDict()), torch.randn(8, 4), {"m": torch.randn(8, 4)}
    with linger.calibration(model):
        model(x, more)
    args = (x[:1], {"m": more["m"][:1]})
    linger.onnx.export(model.eval(), args, tmp_path / "m.onnx")
    runner = linger.onnx.OnnxRunner(tmp_path / "m.onnx")
    assert len(runner.inputs) == 2
    (got,) = runner.run([x[:1], more["m"][:1]]).values()
    assert np.array_equal(got, model(*args).detach().numpy())


def test_faq_f12_the_file_does_not_depend_on_torchs_exporter(tmp_path, monkeypatch):
    """No torch exporter runs, so its version is in no file; the graph and its integers are those recorded here."""

    def never(*args, **kwargs):
        raise AssertionError("torch's exporter was called")

    monkeypatch.setattr(torch.onnx, "export", never)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_((torch.arange(p.numel()) % 7 - 3).reshape(p.shape) / (4 + i))
    x = ((torch.arange(16) % 5).float() - 2).reshape(1, 1, 4, 4)
    model = ready(net, x)
    graph = graph_of(model, x, tmp_path / "m.onnx")
    assert sorted(operators(graph)) == ["Conv2dInt", "Dequant", "Flatten", "LinearInt", "Quant", "Relu"]
    weight = next(a for a in map(onnx.numpy_helper.to_array, graph.initializer) if a.shape == (2, 1, 3, 3))
    assert weight.reshape(-1).tolist() == [-96, -64, -32, 0, 32, 64, 96, -96, -64, -32, 0, 32, 64, 96, -96, -64, -32, 0]


class Speech(nn.Module):
    """Lengths of the type that the user has at hand."""

    def __init__(self, kind):
        super().__init__()
        self.fc, self.lstm, self.kind = nn.Linear(5, 8), nn.LSTM(8, 6, batch_first=True), kind

    def forward(self, x):
        lengths = self.kind([7, 4])[: len(x)]
        packed = pack_padded_sequence(self.fc(x), lengths, batch_first=True)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


def test_faq_f20_lengths_of_any_type(tmp_path):
    x, files = torch.randn(2, 7, 5), []
    for kind in (list, tuple, np.array, torch.tensor):
        torch.manual_seed(0)
        model = ready(Speech(kind), x)
        linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
        files.append((tmp_path / "m.onnx").read_bytes())
    assert len(set(files)) == 1
    (got,) = linger.onnx.OnnxRunner(tmp_path / "m.onnx").run(x[:1]).values()
    assert np.array_equal(got, model(x[:1]).detach().numpy())
