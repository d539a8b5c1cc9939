"""Assignments to masks, steps and indices run in float: said with the line, and export says how to write them."""

import pytest
import torch
from torch import nn

import linger
from linger.onnx import OnnxRunner

FORMS = {
    "step": lambda y, h: y.__setitem__((slice(None), slice(None), slice(None, None, 2)), h[:, :, ::2]),
    "mask": lambda y, h: y.__setitem__(h > 0, 0.5),
    "rows of a mask": lambda y, h: y.__setitem__((slice(None), torch.tensor([True, False, True])), 0.25),
    "list": lambda y, h: y.__setitem__((slice(None), [0, 2]), h[:, :2]),
    "tensor": lambda y, h: y.__setitem__((slice(None), torch.tensor([2, 0])), h[:, 1:]),
}


class Net(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.conv, self.form = nn.Conv1d(3, 3, 3, padding=1), form

    def forward(self, x):
        h = self.conv(x)
        if self.form is None:  # the same as "mask"
            return self.conv(torch.where(h > 0, 0.5, h))
        y = h.clone()
        self.form(y, h)
        return self.conv(y)


def made(form):
    torch.manual_seed(0)
    q, x = linger.init(Net(form)), torch.randn(1, 3, 8)
    with linger.calibration(q):
        q.eval()(x)
    return q, x


@pytest.mark.parametrize("how", FORMS)
def test_other_assignments_are_said_and_export_has_the_cure(how, tmp_path, caplog):
    q, x = made(FORMS[how])
    q(x)
    assert any("__setitem__ stays in float" in i for i in linger.summary(q).islands), linger.summary(q).islands
    assert "__setitem__ stays in float" in caplog.text
    with pytest.raises(linger.onnx.ExportError, match=r"torch\.where, other places as slices of step 1"):
        linger.onnx.export(q, x, tmp_path / "m.onnx")


def test_the_cure_of_masks_is_written(tmp_path):
    q, x = made(None)
    linger.onnx.export(q, x, tmp_path / "m.onnx")
    got = next(iter(OnnxRunner(tmp_path / "m.onnx").run(x.numpy()).values()))
    assert torch.equal(torch.from_numpy(got), q(x))
