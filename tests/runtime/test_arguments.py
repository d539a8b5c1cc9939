"""What the small public functions say to arguments of another kind."""

import pytest
import torch
from torch import nn

import linger


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linger.calibration("model"), "calibration: model must be a torch.nn.Module or None, got str"),
        (lambda: linger.freeze_statistics("model"), "freeze_statistics: model must be a torch.nn.Module, got str"),
        (lambda: linger.summary(3), "summary: model must be a torch.nn.Module, got int"),
        (
            lambda: linger.check_optimizer(nn.Linear(2, 2), None),
            "check_optimizer: optimizer must be a torch.optim.Optimizer, got NoneType",
        ),
        (lambda: linger.check_optimizer(torch.optim.SGD([torch.zeros(1)]), nn.Linear(2, 2)), "got SGD"),
        (lambda: linger.active(nn.Linear(2, 2)).__enter__(), "active: model must be initialised by linger.init"),
    ],
)
def test_other_kinds_of_arguments_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()
