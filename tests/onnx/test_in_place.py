"""In-place writes on float tensors: written like their plain forms, and never lost where another tensor sees them."""

import pytest
import torch
import torch.nn.functional as F
from float_calls import X
from test_write_float import check, written
from torch import nn

from linger.onnx import ExportError

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
