"""linger.onnx.export seen from outside: which models, arguments and modes it takes, and what the file then holds."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner


def _same(model, inputs, path):
    """Export, run, compare with the model's eval; returns the file."""
    with torch.no_grad():
        want = model.eval()(*inputs)
    linger.onnx.export(model, inputs, path)
    (got,) = OnnxRunner(path).run(list(inputs)).values()
    assert np.array_equal(got, want.numpy())
    return onnx.load(path)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1), (1, 2, 5, 5)),
        (nn.Conv1d(2, 3, 4, padding="same"), (1, 2, 9)),
        (nn.Linear(4, 3), (2, 4)),
        (nn.Linear(4, 3, bias=False), (1, 3, 5, 4)),
        (nn.Linear(4, 3), (4,)),
    ],
)
def test_a_bare_layer_is_a_model(layer, shape, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(shape)
    model = linger.init(layer)
    model.train()(x)
    file = _same(model, (x,), tmp_path / "m.onnx")
    assert [n.op_type for n in file.graph.node].count("Quant") == 1
