"""Inputs that are no float tensors: every layer says so in one sentence, in training and in calibration."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

import linger

LAYERS = {
    "conv": (lambda: nn.Conv2d(3, 4, 3), 1),
    "conv 1d": (lambda: nn.Conv1d(3, 4, 3), 1),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), 1),
    "linear": (lambda: nn.Linear(4, 3), 1),
    "batch norm": (lambda: nn.BatchNorm2d(3), 1),
    "layer norm": (lambda: nn.LayerNorm(4), 1),
    "attention": (lambda: nn.MultiheadAttention(4, 2), 3),
}


@pytest.mark.parametrize("calibrating", [False, True])
@pytest.mark.parametrize(
    ("given", "named"), [(None, "NoneType"), (np.zeros((2, 4), np.float32), "ndarray"), ([1.0], "list")]
)
@pytest.mark.parametrize("layer", LAYERS)
def test_an_operand_that_is_no_tensor(layer, given, named, calibrating):
    make, n = LAYERS[layer]
    model = linger.init(nn.Sequential(make()))
    with (
        pytest.raises(TypeError, match=rf"'0\..*input_quantizer': expected a floating point tensor, got {named}"),
        linger.calibration() if calibrating else contextlib.nullcontext(),
    ):
        model[0](*[given] * n)


@pytest.mark.parametrize("calibrating", [False, True])
def test_integers_are_no_operand(calibrating):
    model = linger.init(nn.Sequential(nn.Linear(4, 3)))
    with (
        pytest.raises(TypeError, match=r"'0.input_quantizer': expected a floating point tensor, got torch.int64"),
        linger.calibration() if calibrating else contextlib.nullcontext(),
    ):
        model(torch.zeros(2, 4, dtype=torch.int64))
