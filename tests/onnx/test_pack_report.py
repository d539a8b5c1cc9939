"""What packing a file will take: bytes, work, and the packer's options."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import linger
from linger import settings


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.rnn, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.LSTM(20, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        y = torch.relu(self.conv(x)).permute(0, 2, 1, 3).flatten(2)
        return self.fc(self.rnn(y)[0])


@pytest.fixture
def written(tmp_path):
    before = settings.current()
    settings.use(replace(settings.defaults(), platform="arcs"))
    x = torch.randn(1, 1, 6, 5)
    model = linger.init(Net(), example_inputs=x)
    model.train()(x)
    report = linger.onnx.export(model.eval(), x, tmp_path / "m.onnx", report=True)
    settings.use(before)
    return report, tmp_path / "m.onnx"


def test_bytes_and_work(written):
    report, path = written
    assert report == linger.onnx.pack_report(path) == linger.onnx.pack_report(path.read_bytes())
    rows = {row.operator: row for row in report.rows}
    assert rows["Conv2dInt"].parameters == 4 * 9 + 4 * 4 and rows["Conv2dInt"].activations == 30 + 120
    assert rows["Conv2dInt"].work == 120 * 9
    assert rows["LSTMInt"].parameters == 4 * 8 * (20 + 8) + 2 * 4 * 32 and rows["LSTMInt"].work == 6 * 4 * 8 * (20 + 8)
    assert rows["LinearInt"].parameters == 40 + 20 and rows["LinearInt"].work == 30 * 8
    assert report.work == 120 * 9 + 6 * 4 * 8 * 28 + 240
    assert report.largest == rows["LSTMInt"] and report.parameters == sum(row.parameters for row in report.rows)
    assert (report.shared_bytes, report.psram_bytes) == (384 * 1024, 8 * 1024 * 1024)


def test_what_the_packer_does(written):
    report = written[0]
    assert report.options == ("--dma_prefetch False",) and report.errors == ()
    text = str(report)
    for said in (
        "1 ReLUs run within",
        "2 Quant and Dequant",
        "read where they lie",
        "of 393216 bytes of shared memory",
    ):
        assert said in text
    assert "<table" in report._repr_html_() and report.to_dict()["work"] == report.work
    assert linger.onnx.export.__annotations__["report"] == "bool"


def test_open_sizes_are_said(tmp_path):
    x = torch.randn(1, 1, 6, 5)
    model = linger.init(nn.Sequential(nn.Conv2d(1, 2, 3)), example_inputs=x)
    model.train()(x)
    axes = {"x": {0: "batch"}}
    report = linger.onnx.export(model, x, tmp_path / "o.onnx", input_names=["x"], dynamic_axes=axes, report=True)
    assert "--dynamic_shape batch=1:1:1" in report.options and report.rows[0].work is None and "open" in str(report)
