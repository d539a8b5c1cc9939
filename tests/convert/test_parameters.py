"""Every parameter of a converted model takes part: loops over ``parameters()`` find none without a gradient."""

import pytest
import torch
from convert.nets import Net, images, trained
from torch import nn

import linger


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
        )


class Frozen(Normed):
    def __init__(self):
        super().__init__()
        self[0].weight.requires_grad_(False)


class NoAffine(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False))


class Rows(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.ReLU())


class Transposed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.ConvTranspose2d(3, 4, 2, 2), nn.SyncBatchNorm(4))


@pytest.mark.parametrize("way", ["init", "step", "constrain", "constrain init"])
@pytest.mark.parametrize("cls", [Net, Normed, Frozen, NoAffine, Rows, Transposed])
def test_every_parameter_has_a_gradient(cls, way):
    m = cls() if cls is Transposed else trained(cls)
    if way == "step" and cls is Transposed:
        way = "init"
    if "constrain" in way:
        m = linger.constrain(m)
    if way != "constrain":
        m = linger.init(m, fold_bn="step" if way == "step" else "once")
    m.train()
    wanted = [p for p in m.parameters() if p.requires_grad]
    assert len(wanted) == len(list(m.parameters())) or cls is Frozen
    m(images())
    gradients = torch.autograd.grad(m(images()).square().mean(), wanted)
    assert all(g is not None for g in gradients)
    assert any("_linger_ignore_parameter" in key for key in m.state_dict())
