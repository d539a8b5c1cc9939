"""The constrained stage of subclasses whose own code calls the layer's function: limits at that call, and nowhere else."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from convert.own_code_nets import LinearRelu, NormAct, SameConv, trained
from torch import nn

import linger
from linger.nn.constrained.layers import Constrained

ALONE = ["norm alone", "conv", "both", "conv1d", "conv, relu", "linear", "linear, norm", "norm, silu"]


def constrained(m, tmp_path, **limits):
    given = {"clamp_activation_value": "null", "clamp_factor_value": "null"} | limits
    (tmp_path / "c.yaml").write_text(f"clamp_info: {{{', '.join(f'{k}: {v}' for k, v in given.items())}}}\n")
    return linger.constrain(m, config_file=tmp_path / "c.yaml")


def own(m):
    return [layer for layer in m.modules() if isinstance(layer, Constrained) and layer.own_code]


@pytest.mark.parametrize("kind", ALONE)
def test_without_limits_the_code_runs_as_before(kind, tmp_path, caplog):
    m, x = trained(kind)
    plain, c = copy.deepcopy(m), constrained(m, tmp_path)
    assert own(c) and "train without limits" not in caplog.text
    for a in (plain, c):
        a.eval()
    torch.testing.assert_close(c(x), plain(x))
    torch.testing.assert_close(c.train()(x), plain.train()(x))
    c(x).sum().backward()
    assert all(p.grad is not None for p in c.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(SameConv(3, 4, 2), (2, 3, 6, 6)), (LinearRelu(5, 4), (3, 5)), (NormAct(3), (2, 3, 4, 4))],
    ids=["conv", "linear", "norm"],
)
@pytest.mark.parametrize("training", [False, True])
def test_the_limits_are_those_of_the_layer(layer, shape, training, tmp_path):
    torch.manual_seed(0)
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    want, x = copy.deepcopy(layer).train(training), torch.randn(shape)
    c = constrained(
        nn.Sequential(layer), tmp_path, clamp_weight_value=0.5, clamp_bias_value=0.25, clamp_activation_value=0.4
    )
    with torch.no_grad():
        want.weight.clamp_(-0.5, 0.5)
        want.bias.clamp_(-0.25, 0.25)
    y = c.train(training)(x)
    if isinstance(layer, nn.BatchNorm2d):
        wanted = nn.BatchNorm2d.forward(want, x).clamp(-0.4, 0.4).relu()
    elif isinstance(layer, nn.Conv2d):
        wanted = F.conv2d(F.pad(x, (0, 1, 0, 1)), want.weight, want.bias).clamp(-0.4, 0.4)
    else:
        wanted = F.linear(x, want.weight, want.bias).clamp(-0.4, 0.4).relu()
    torch.testing.assert_close(y, wanted)


@pytest.mark.parametrize("kind", ALONE)
def test_copies_checkpoints_and_the_next_stage(kind, tmp_path):
    m, x = trained(kind)
    fresh = copy.deepcopy(m)
    c = constrained(m, tmp_path, clamp_activation_value=4).eval()
    want = c(x)
    assert torch.equal(copy.deepcopy(c)(x), want)
    file = io.BytesIO()
    torch.save(c, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), want)
    linger.save(c, tmp_path / "c.pt")
    again = linger.load(copy.deepcopy(fresh), tmp_path / "c.pt").eval()
    assert torch.equal(again(x), want) and own(again)
    q = linger.init(c, example_inputs=x)
    assert not own(q)
    with linger.calibration(q, a_calibrate_name="abs_max"):
        q.eval()(x)
    linger.save(q, tmp_path / "q.pt")
    assert torch.equal(linger.load(again, tmp_path / "q.pt").eval()(x), q(x)) and not own(again)
    assert torch.equal(linger.load(fresh, tmp_path / "q.pt").eval()(x), q(x))


def test_what_stays_float_in_the_next_stage_and_a_stage_that_fails_keep_the_limits(tmp_path):
    m, x = trained("linear")
    c = constrained(m, tmp_path, clamp_activation_value=0.25).eval()
    want = c(x)
    with pytest.raises(ValueError, match="example_inputs"):
        linger.init(c, example_inputs=torch.randn(3))
    assert torch.equal(c(x), want) and len(own(c)) == 2
    q = linger.init(c, disable_submodel="0")
    assert [layer is q[0] for layer in own(q)] == [True]
    assert q.eval()[0](x).max() <= 0.25
