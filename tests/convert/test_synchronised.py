"""SyncBatchNorm behind a layer is a BatchNorm: folded by init, fused by constrain; alone it is reported."""

import copy

import pytest
import torch
from torch import nn

import linger
from linger.nn.constrained.fused import NormalizeConvBN2d

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def pair(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU())
    with torch.no_grad():
        for t in (model[1].weight, model[1].running_var):
            t.uniform_(0.5, 2.0)
        model[1].running_mean.normal_()
    return model


@pytest.mark.parametrize("fold_bn", ["once", "step"])
def test_init_folds_it_as_a_batch_norm(fold_bn):
    models = [linger.init(pair(norm), fold_bn=fold_bn) for norm in (nn.BatchNorm2d, nn.SyncBatchNorm)]
    for model in models:
        assert type(model[0]).__name__.endswith("Int")
        model(X).sum().backward()
    assert torch.equal(models[0].eval()(X), models[1].eval()(X))
    assert torch.equal(models[0][0].weight.grad, models[1][0].weight.grad)


def test_constrain_fuses_it_with_the_statistics_of_this_process(caplog):
    models = [linger.constrain(pair(norm)) for norm in (nn.BatchNorm2d, nn.SyncBatchNorm)]
    for model in models:
        assert type(model[0]) is NormalizeConvBN2d and type(model[0].bn) is nn.BatchNorm2d
    assert torch.equal(models[0](X), models[1](X))
    assert torch.equal(copy.deepcopy(models[0]).eval()(X), models[1].eval()(X))
    assert models[1][0].bn.state_dict().keys() == models[0][0].bn.state_dict().keys()
    row = next(r for r in linger.convert.prepare.record_of(models[1]).report.rows if r.name == "0")
    assert row.note == "with 1, statistics of each process alone"
    linger.init(models[1])


@pytest.mark.parametrize("stage", ["constrain", "init"])
def test_alone_it_is_reported(stage, caplog):
    model = nn.Sequential(nn.SyncBatchNorm(3), nn.Conv2d(3, 4, 3))
    getattr(linger, stage)(model)
    assert type(model[0]) is nn.SyncBatchNorm
    assert "SyncBatchNorm without a layer in front to fold it into: use BatchNorm1d or BatchNorm2d" in caplog.text
