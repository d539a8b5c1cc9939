"""The users' FAQ on building networks: pools, packed sequences, shapes in any spelling, BatchNorm behind Linear, functions."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linger
from tests.faq.nets import Net, X, float_net, graph_of, operators, ready, sqnr


class Between(nn.Module):
    """Something between two convolutions."""

    def __init__(self, middle):
        super().__init__()
        self.a, self.b, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), middle

    def forward(self, x):
        return self.b(self.middle(self.a(x)))


def quantized_throughout(kind, tmp_path, x=X) -> bool:
    """Whether the file is one chain of integers; else the summary must say what is not."""
    torch.manual_seed(0)
    model = ready(kind, x)
    graph = graph_of(model, x[:1], tmp_path / "m.onnx")
    whole = operators(graph).count("Dequant") == 1 and operators(graph).count("Quant") == 1
    islands = linger.summary(model).islands
    assert whole is not bool(islands), islands
    return whole


POOLS = {
    "nn.AvgPool2d": nn.AvgPool2d(2),
    "F.avg_pool2d": lambda y: F.avg_pool2d(y, 2),
    "nn.MaxPool2d": nn.MaxPool2d(2),
    "F.max_pool2d": lambda y: F.max_pool2d(y, 2),
    "nn.AdaptiveAvgPool2d(1)": nn.AdaptiveAvgPool2d(1),
    "nn.AdaptiveAvgPool2d(2)": nn.AdaptiveAvgPool2d(2),
    "F.adaptive_avg_pool2d": lambda y: F.adaptive_avg_pool2d(y, 1),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1),
    "F.adaptive_max_pool2d": lambda y: F.adaptive_max_pool2d(y, 2),
    "mean": lambda y: y.mean((2, 3), keepdim=True),
    "amax": lambda y: y.amax((2, 3), keepdim=True),
    "nn.AvgPool1d": lambda y: F.avg_pool1d(y.flatten(2), 4).unsqueeze(-1),
    "nn.MaxPool1d": lambda y: nn.MaxPool1d(4)(y.flatten(2)).unsqueeze(-1),
    "nn.AdaptiveAvgPool1d": lambda y: nn.AdaptiveAvgPool1d(1)(y.flatten(2)).unsqueeze(-1),
}


@pytest.mark.parametrize("name", POOLS)
def test_faq_f13_pools_in_any_spelling(name, tmp_path):
    assert quantized_throughout(Between(POOLS[name]), tmp_path)


def test_faq_f13_a_pool_that_no_chip_has_is_reported_with_its_line(tmp_path):
    model = ready(Between(lambda y: F.lp_pool2d(y, 2, 2)))
    (island,) = linger.summary(model).islands
    assert "lp_pool2d stays in float" in str(island) and "test_network.py" in str(island)
    with pytest.raises(linger.onnx.ExportError, match=r"`lp_pool2d` .*test_network\.py"):
        linger.onnx.export(model, X[:1], tmp_path / "m.onnx")


SHAPES = {
    "Tensor.transpose": lambda y: y.transpose(2, 3),
    "torch.transpose": lambda y: torch.transpose(y, 2, 3),
    "permute": lambda y: y.permute(0, 1, 3, 2),
    "torch.permute": lambda y: torch.permute(y, (0, 1, 3, 2)),
    "swapaxes": lambda y: y.swapaxes(2, 3),
    "T": lambda y: y.flatten(2).mT.mT.unflatten(2, (8, 8)),
    "slice": lambda y: y[:, :, 1:5, ::2],
    "transpose and slice": lambda y: torch.transpose(y, 2, 3)[..., :4],
}


@pytest.mark.parametrize("name", SHAPES)
def test_faq_f19_shape_operators_keep_integers(name, tmp_path):
    assert quantized_throughout(Between(SHAPES[name]), tmp_path)


MORE_SHAPES = {
    "Tensor.squeeze": lambda y: y.unsqueeze(1).squeeze(1),
    "torch.squeeze": lambda y: torch.squeeze(torch.unsqueeze(y, 1), 1),
    "flatten": lambda y: y.flatten(2).unflatten(2, (8, 8)),
    "torch.flatten": lambda y: torch.flatten(y, 2).unsqueeze(-1),
    "reshape": lambda y: y.reshape(-1, 8, 4, 16),
    "torch.reshape": lambda y: torch.reshape(y, (-1, 8, 16, 4)),
    "view": lambda y: y.view(-1, 8, 64, 1),
    "chunk": lambda y: torch.cat(y.chunk(2, 2), 3),
    "torch.chunk": lambda y: torch.chunk(y, 2, 3)[1],
    "split": lambda y: y.split(4, 2)[0],
    "torch.split": lambda y: torch.split(y, [2, 6], 3)[1],
}


@pytest.mark.parametrize("name", MORE_SHAPES)
def test_faq_n3_torch_and_tensor_spellings_are_the_same(name, tmp_path):
    assert quantized_throughout(Between(MORE_SHAPES[name]), tmp_path)


class Packed(nn.Module):
    def __init__(self, full, enforce_sorted, state):
        super().__init__()
        self.fc, self.lstm = nn.Linear(5, 8), nn.LSTM(8, 6, batch_first=True)
        self.full, self.enforce_sorted, self.state = full, enforce_sorted, state

    def forward(self, x, lengths, hx):
        pack = torch.nn.utils.rnn.pack_padded_sequence if self.full else pack_padded_sequence
        unpack = torch.nn.utils.rnn.pad_packed_sequence if self.full else pad_packed_sequence
        packed = pack(self.fc(x), lengths, batch_first=True, enforce_sorted=self.enforce_sorted)
        out, last = self.lstm(packed, hx) if self.state else self.lstm(packed)
        return unpack(out, batch_first=True)[0], last[0]


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("state", [True, False])
def test_faq_f14_packed_sequences_in_both_import_styles(enforce_sorted, state):
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    hx = (torch.zeros(1, 3, 6), torch.zeros(1, 3, 6))
    results = []
    for full in (True, False):
        torch.manual_seed(0)
        model = linger.init(Packed(full, enforce_sorted, state))
        with linger.calibration(model):
            want = model(x, torch.tensor([7, 4, 2]), hx)
        y, last = model.eval()(x, torch.tensor([7, 4, 2]), hx)
        assert isinstance(model.lstm, linger.LSTMInt)
        assert sqnr(want[0], y) > 20
        results.append((y.detach(), last.detach()))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


class Flat(nn.Module):
    """A BatchNorm right behind a linear layer, called in a plain forward."""

    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.head = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.fc(x)
        x = self.bn(x)
        return self.head(F.relu(x))


def test_faq_n1_linear_and_batch_norm_become_one_layer(tmp_path):
    x = torch.randn(32, 12)
    net = float_net(Flat, x)
    want = net(x)
    model = linger.init(net)  # no example inputs, no trace
    with linger.quantization(model, False):
        assert torch.allclose(model(x), want, atol=1e-5)
    assert type(model.fc) is linger.LinearInt and isinstance(model.bn, linger.EmptyBatchNorm)
    with linger.calibration(model):
        model(x)
    graph = graph_of(model.eval(), x[:1], tmp_path / "m.onnx")
    assert operators(graph).count("LinearInt") == 2 and not [op for op in operators(graph) if "BatchNorm" in op]


class Nested(nn.Module):
    """A block with BatchNorm that is used twice, inside another module."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.more = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))])

    def forward(self, x):
        return self.more[0](self.block(self.block(x)))


@pytest.mark.parametrize("kind", [Net, Nested])
def test_faq_n2_batch_norms_are_folded_without_a_trace(kind, tmp_path):
    graph = graph_of(ready(float_net(kind)), X[:1], tmp_path / "m.onnx")
    assert not [op for op in operators(graph) if "BatchNorm" in op] and operators(graph).count("Conv2dInt") >= 2
    kept = ready(float_net(kind), disable_module=nn.BatchNorm2d)
    linger.onnx.export(kept, X[:1], tmp_path / "m.onnx")
    assert [n for n in onnx.load(tmp_path / "m.onnx").graph.node if "BatchNorm" in n.op_type]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(4, 3, 3, 3) / 5), nn.Parameter(torch.randn(5, 4) / 2)

    def forward(self, x):
        return F.linear(F.conv2d(x, self.w).relu().mean((2, 3)), self.v)


class Computed(Functional):
    def forward(self, x):
        return F.linear(F.conv2d(x, self.w * 2).mean((2, 3)), self.v)


def test_faq_n4_functions_with_parameters_are_quantized_or_named(tmp_path, caplog):
    torch.manual_seed(0)
    model = ready(Functional())
    graph = graph_of(model, X[:1], tmp_path / "m.onnx")
    assert {"Conv2dInt", "LinearInt"} <= set(operators(graph)) and not linger.summary(model).islands
    caplog.clear()
    model = ready(Computed())
    said = [str(i) for i in linger.summary(model).islands] + [r.getMessage() for r in caplog.records]
    assert [line for line in said if "conv2d" in line and "test_network.py" in line], said
