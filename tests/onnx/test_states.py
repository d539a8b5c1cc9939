"""Streaming models: a cache that was zero in calibration has the scale of the output that it comes from."""

import numpy as np
import pytest
import torch
from torch import nn

import linger


class Streaming(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.pre, self.conv, self.mix = how, nn.Linear(4, 6), nn.Conv1d(6, 3, 3), nn.Linear(6, 6)

    def forward(self, x, cache):
        h = torch.relu(self.pre(x)).transpose(1, 2)
        match self.how:
            case "cat":
                h = torch.cat([cache, h], 2)
                return self.conv(h).transpose(1, 2), h[:, :, -2:]
            case "sum":
                h = torch.cat([cache + h, h, h], 2)
                return self.conv(h).transpose(1, 2), h[:, :, :1]
            case "layer":
                new = torch.tanh(self.mix((cache + h).transpose(1, 2))).transpose(1, 2)
                return self.conv(torch.cat([new, h, h], 2)).transpose(1, 2), new
            case "gate":
                new = cache * h + h
                return self.conv(torch.cat([new, h, h], 2)).transpose(1, 2), new
            case "two reads":
                new = torch.cat([cache, h], 2)
                return self.conv(new).transpose(1, 2) + self.conv(torch.cat([h, cache], 2)).transpose(1, 2), new[
                    :, :, -2:
                ]


WIDTH = {"cat": 2, "sum": 1, "layer": 1, "gate": 1, "two reads": 2}


def ready(how):
    torch.manual_seed(0)
    q, x, zero = linger.init(Streaming(how)), torch.randn(8, 1, 4), torch.zeros(8, 6, WIDTH[how])
    with linger.calibration(q, a_calibrate_name="abs_max"):
        q(x, zero)
    return q.eval(), torch.randn(1, 20, 4), zero[:1]


NAMES = {"input_names": ["x", "cache"], "output_names": ["y", "new"]}


@pytest.mark.parametrize("how", WIDTH)
def test_the_file_in_a_loop_is_the_model_in_a_loop(how, tmp_path):
    q, x, cache = ready(how)
    linger.onnx.export(q, (x[:, :1], cache), tmp_path / "m.onnx", states={"cache": "new"}, **NAMES)
    runner, held, c = linger.onnx.OnnxRunner(tmp_path / "m.onnx"), cache.numpy(), cache
    for t in range(20):
        with torch.no_grad():
            y, c = q(x[:, t : t + 1], c)
        out = runner.run({"x": x[:, t : t + 1].numpy(), "cache": held})
        held = out["new"]
        assert np.array_equal(out["y"], y.numpy()) and np.array_equal(held, c.numpy())


def test_without_it_the_export_is_loud(tmp_path):
    q, x, cache = ready("cat")
    with pytest.warns(
        UserWarning, match=r'cache were zero in training and calibration.*states=\{"cache": "<its output>"\}'
    ):
        linger.onnx.export(q, (x[:, :1], cache), tmp_path / "m.onnx", **NAMES)


@pytest.mark.parametrize(
    ("states", "error", "text"),
    [
        (["cache"], TypeError, "must map input names to output names"),
        ({"cache": 1}, TypeError, "must map input names to output names"),
        ({"caches": "new"}, linger.onnx.ExportError, "'caches', which input_names lacks"),
        ({"cache": "old"}, linger.onnx.ExportError, "'old', which output_names lacks"),
        ({"cache": "y"}, linger.onnx.ExportError, "output 'y' has shape"),
    ],
)
def test_wrong_states_are_refused(states, error, text, tmp_path):
    q, x, cache = ready("cat")
    with pytest.raises(error, match=text):
        linger.onnx.export(q, (x[:, :1], cache), tmp_path / "m.onnx", states=states, **NAMES)
    assert not (tmp_path / "m.onnx").exists()


def test_a_float_output_cannot_come_back(tmp_path):
    class Floating(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x, cache):
            return self.a(x), torch.exp(self.a(cache))

    q, x = linger.init(Floating()), torch.randn(1, 4)
    q.train()(x, x)
    with pytest.raises(linger.onnx.ExportError, match="output 'new' is float"):
        linger.onnx.export(q.eval(), (x, x), tmp_path / "m.onnx", states={"cache": "new"}, **NAMES)
