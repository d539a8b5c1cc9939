"""Shape operators in the file: each spelling of an argument gives the node that the forward computed."""

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner

CASES = {
    "select": lambda x: torch.select(x, index=1, dim=2),
    "select of a method": lambda x: x.select(index=-1, dim=3),
    "narrow": lambda x: x.narrow(length=3, start=1, dim=3),
    "chunk": lambda x: torch.chunk(chunks=2, dim=1, input=x)[1],
    "split": lambda x: x.split(dim=1, split_size=1)[2],
    "movedim": lambda x: torch.movedim(destination=3, source=1, input=x),
    "flatten": lambda x: torch.flatten(x, end_dim=2, start_dim=1),
}


class _Net(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Conv2d(2, 4, 1), change

    def forward(self, x):
        return self.change(self.layer(x))


@pytest.mark.parametrize("case", CASES)
def test_arguments_by_name_in_any_order(case, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 6)
    model = linger.init(_Net(CASES[case]))
    model.train()(x)
    with torch.no_grad():
        want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, want.numpy())
