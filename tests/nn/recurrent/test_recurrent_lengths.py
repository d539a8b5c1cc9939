"""A length that is an input of the file: every shorter sequence runs in it, in whatever follows the recurrent layer."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linger
from linger.onnx import OnnxRunner

D, H, T = 6, 8, 9


class Chain(nn.Module):
    """Convolution, packed two-way LSTM, a second layer that is not packed and starts from the first one's state, all rows out."""

    def __init__(self, second=nn.LSTM, total=None):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(D, H, 3, padding=1), nn.LayerNorm(H)
        self.first = nn.LSTM(H, H, batch_first=True, bidirectional=True)
        self.start = nn.Linear(H, H)
        self.second = second(2 * H, H, batch_first=True)
        self.fc, self.total = nn.Linear(H, 3), total

    def forward(self, x, lengths):
        x = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        y, (h, _) = self.first(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=self.total)
        h = torch.tanh(self.start(h[0])).unsqueeze(0)
        y, _ = self.second(y, (h, torch.zeros_like(h)) if isinstance(self.second, nn.LSTM) else h)
        return self.fc(self.norm(y))


def trained(model, tmp_path, platform):
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\n")
    model = linger.init(model, str(config)).train()
    for _ in range(3):
        model(torch.randn(3, T, D), torch.tensor([T, 4, 6])).square().sum().backward()
    return model.eval()


@pytest.mark.parametrize("second", [nn.LSTM, nn.GRU], ids=["LSTM", "GRU"])
@pytest.mark.parametrize("platform", ["venus", "mars", "arcs", "venusA"])
def test_every_length_runs_in_one_file(platform, second, tmp_path):
    torch.manual_seed(0)
    model = trained(Chain(second), tmp_path, platform)
    x = torch.randn(1, T, D)
    linger.onnx.export(model, (x, torch.tensor([T])), tmp_path / "m.onnx", output_names=["rows"])
    runner = OnnxRunner(tmp_path / "m.onnx")
    for length in range(1, T + 1):
        with torch.no_grad():
            want = model(x, torch.tensor([length]))
        got = runner.run([x, np.array([length])])["rows"]
        assert np.array_equal(got, want.numpy())


def test_a_file_of_a_shorter_sequence_says_so_and_runs_the_longest(tmp_path, caplog):
    torch.manual_seed(0)
    model = trained(Chain(), tmp_path, "arcs")
    x = torch.randn(1, T, D)
    with caplog.at_level(logging.WARNING, "linger"):
        linger.onnx.export(model, (x, torch.tensor([4])), tmp_path / "m.onnx", output_names=["rows"])
    assert "exported with 4 of its 9 steps" in caplog.text
    with torch.no_grad():
        want = model(x, torch.tensor([T]))
    assert np.array_equal(OnnxRunner(tmp_path / "m.onnx").run([x, np.array([T])])["rows"], want.numpy())


def test_rows_behind_a_length_that_is_an_input_are_announced(tmp_path, caplog):
    torch.manual_seed(0)
    model = trained(Chain(total=T), tmp_path, "arcs")
    with caplog.at_level(logging.WARNING, "linger"):
        linger.onnx.export(model, (torch.randn(1, T, D), torch.tensor([T])), tmp_path / "m.onnx")
    assert "no chip writes the rows behind the length" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "linger"):
        linger.onnx.export(model, (torch.randn(1, T, D), [T]), tmp_path / "m.onnx")
    assert "no chip writes" not in caplog.text


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("moved", [lambda y: y.transpose(1, 2), lambda y: y.flatten(2).permute(0, 2, 1)])
def test_float_rows_that_were_moved_in_front_of_the_layer(kind, moved, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(D, H, 3, padding=1), kind(H, H, batch_first=True)

        def forward(self, x):
            return self.rnn(moved(torch.exp(-self.conv(x).abs())))[0]

    torch.manual_seed(0)
    model, x = linger.init(Net()), torch.randn(1, D, T)
    model(x)
    want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x.numpy()).values()
    assert np.array_equal(got, want.detach().numpy())
