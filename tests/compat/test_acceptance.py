"""Scripts of users that other files do not run: packed sequences in both spellings, a file with a section."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linger


class Words(nn.Module):
    """An LSTM over packed sequences, in the spelling that the classic generation asked for and in the short one."""

    def __init__(self, full):
        super().__init__()
        self.fc, self.lstm, self.out, self.full = (
            nn.Linear(5, 8),
            nn.LSTM(8, 6, batch_first=True),
            nn.Linear(6, 3),
            full,
        )

    def forward(self, x, lengths):
        x = self.fc(x)
        if self.full:
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(y)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor], ids=lambda k: k.__name__)
def test_packed_sequences(kind, tmp_path):
    x, lengths = torch.randn(3, 7, 5), [7, 4, 2]
    files, results = [], []
    for full in (True, False):
        torch.manual_seed(0)
        net = linger.init(Words(full), quant_modules=linger.DefaultQuantIntXOP)
        with linger.calibration(net):
            net(x, torch.tensor(lengths))
        optimizer = torch.optim.SGD(net.train().parameters(), 0.05)
        for _ in range(2):
            optimizer.zero_grad()
            net(x, torch.tensor(lengths)).square().mean().backward()
            optimizer.step()
        net.eval()
        results.append(net(x, torch.tensor(lengths)).detach())
        path = tmp_path / f"{full}.onnx"
        linger.onnx.export(net, (x[:1], kind([7])), path, opset_version=12)
        runner = linger.onnx.OnnxRunner(path)
        given = [x[:1].numpy(), np.array([7])][: len(runner.inputs)]
        (got,) = runner.run(given).values()
        assert torch.equal(torch.from_numpy(got), net(x[:1], torch.tensor([7])).detach())
        files.append(path.read_bytes())
    assert torch.equal(*results)
    assert files[0] == files[1]


SECTION = """
part_head:
  name: [head]
  quant_info: {weight_bits: 4, input_bits: 8, output_bits: 32}
  clamp_info: {clamp_activation_value: 16}
"""


def test_a_section_shows_in_the_file(tmp_path):
    import onnx

    linger.config_save_to_yaml(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text((tmp_path / "c.yaml").read_text() + SECTION)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3, bias=False)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    model, x = linger.init(Net(), config_file=str(tmp_path / "c.yaml")), torch.randn(8, 4)
    with linger.calibration(model):
        model(x)
    linger.onnx.export(model.eval(), x[:1], tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    (head,) = [n for n in graph.node if n.op_type == "LinearInt" and "head" in n.name]
    assert {a.name: a.i for a in head.attribute}["o_bits"] == 32
    weight = onnx.numpy_helper.to_array(next(i for i in graph.initializer if i.name == head.input[1]))
    assert weight.min() >= -8 and weight.max() <= 7
    assert model.head.quant.clamp.clamp_activation_value == 16
