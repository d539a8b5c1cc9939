"""In-place writes on float tensors: written like their plain forms, and never lost where another tensor sees them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from float_calls import X
from test_write_float import check, written
from torch import nn

import linger
from linger.onnx import ExportError, OnnxRunner

pytestmark = pytest.mark.filterwarnings("ignore:.*exported with a batch of")


def twice(m, x):
    y = x.exp()
    y += x
    y.mul_(0.5).clamp_(max=1.0)
    return F.relu(y, inplace=True) - y


def inside_a_view(m, x):
    y = x.exp()
    y[:, 0].mul_(2.0)
    return y


def view_before_the_write(m, x):
    y = x.exp()
    flat = y.flatten(1)
    y.add_(1.0)
    return flat


def assigned(m, x):
    y = x.exp()
    y[:, 0] = 0
    return y


def collected(m, x):
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, 1:]
    return y + x


def test_in_place_operators_are_written():
    check(twice, X)
    check(
        lambda m, x: m.layer(x),
        X,
        layer=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.Hardswish(True), nn.Flatten()),
    )


def test_data_of_a_tensor_is_the_tensor():
    check(lambda m, x: x.exp().data + x, X)


@pytest.mark.parametrize("f", [inside_a_view, view_before_the_write, assigned, collected])
def test_write_that_the_file_cannot_hold_is_an_error(f):
    with pytest.raises(ExportError, match=r"in-place `\w+` on a float tensor(.|\n)*test_in_place.py:\d+"):
        written(f, X)


def _pad_then_overwrite_source(x, conv):
    padded = F.pad(x, (1, 1, 1, 1))
    x.relu_()
    return conv(padded)


def _pad_then_overwrite(x, conv):
    return conv(F.pad(x, (1, 1, 1, 1)).relu_())


def _copy_then_overwrite(x, conv):
    return conv(F.elu(x).clone().mul_(2.0))


def _move_then_overwrite_source(x, conv):
    y = F.elu(x)
    z = y.flip(2)
    y.mul_(0.5)
    return conv(z)


def _consumed_before_and_after(x, conv):
    y = F.elu(x)
    before = conv(y)
    return conv(y.mul_(0.5)) + before


@pytest.mark.parametrize(
    "run",
    [
        _pad_then_overwrite_source,
        _pad_then_overwrite,
        _copy_then_overwrite,
        _move_then_overwrite_source,
        _consumed_before_and_after,
    ],
)
def test_what_was_known_of_a_tensor_ends_with_its_content(run, tmp_path):
    """Pads that a convolution absorbs, moves behind a Quant, one Quant for several consumers."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return run(self.a(x), self.b)

    torch.manual_seed(0)
    model = linger.init(Net())
    for _ in range(3):
        model(torch.randn(2, 2, 5, 5))
    x = torch.randn(1, 2, 5, 5)
    want = model.eval()(x)
    linger.onnx.export(model, x, tmp_path / "m.onnx")
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, want.detach().numpy())
