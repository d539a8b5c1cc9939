"""MOM and TQT against the rules, written again in quantizer_oracle.py."""

import copy
import math

import numpy as np
import pytest
import torch
from quantizer_oracle import codes_of, exp2_of, threshold_exp2
from quantizers_seen import seen
from torch import nn
from torch.utils.checkpoint import checkpoint

from linger.quantizers import Quantizer, clamp_weight_once, freeze_statistics, in_recomputation
from linger.settings import ClampInfo, QuantMode

SQRT2 = np.array([0x3FB504F3, 0x3FB504F4], dtype=np.uint32).view(np.float32)  # last below, first above


def bits_of(t: torch.Tensor) -> list[int]:
    return t.detach().reshape(-1).view(torch.int32).tolist()


@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("power", [-24, -20, -8, -3, -1, 0, 1, 3, 6, 7, 8, 20, 30])
def test_exponent_rule_at_the_sqrt2_boundary(bits, power):
    for mantissa, up in zip(SQRT2, (0, 1), strict=True):
        value = float(mantissa) * 2.0**power
        want = min(max(bits - 1 - max(power + up, -20), 0), 23)
        assert want == exp2_of(value, bits)
        assert float(seen(value, bits).scale) == 2.0**want


@pytest.mark.parametrize("power", range(-6, 9))
def test_exponent_of_exact_powers_of_two(power):
    assert float(seen(2.0**power).scale) == 2.0 ** min(max(7 - power, 0), 23)


def test_zeros_have_the_smallest_range():
    quantizer = Quantizer(8)
    out = quantizer(torch.zeros(5))
    assert bits_of(quantizer.running_data) == bits_of(torch.tensor(1e-6))
    assert float(quantizer.scale) == 2.0**23 and torch.equal(out.codes, torch.zeros(5, dtype=torch.int8))


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_moving_average_over_batches(bits):
    torch.manual_seed(0)
    quantizer, running = Quantizer(bits), None
    for step in range(30):
        x = torch.randn(50) * 2.0 ** (step % 5)
        m = np.float32(x.abs().max())
        running = m if running is None else np.float32(np.float32(0.9) * running + np.float32(np.float32(0.1) * m))
        out = quantizer(x)
        assert bits_of(quantizer.running_data) == bits_of(torch.tensor(running))
        exp2 = exp2_of(running, bits)
        assert float(out.scale) == float(quantizer.scale) == 2.0**exp2  # this batch's own exponent
        want = codes_of(x.numpy(), exp2, bits)
        assert np.array_equal(out.codes.double().numpy(), want)
        assert np.array_equal(out.value.double().numpy(), (want / 2.0**exp2).astype(np.float32).astype(np.float64))
    assert quantizer.n_batches.tolist() == [30] and quantizer.ready


def test_a_fused_relu_counts_the_largest_value():
    from linger import ops

    quantizer = Quantizer(8)
    ops.quantize(torch.tensor([-8.0, 1.0]), quantizer.output(relu=True))
    assert float(quantizer.running_data) == 1.0 and float(quantizer.scale) == 2.0**7


def test_the_training_clamp_comes_before_the_statistics():
    from linger import ops

    quantizer = Quantizer(8)
    out = ops.quantize(torch.tensor([-100.0, 1.0]), quantizer.output(clamp=8.0))
    assert float(quantizer.running_data) == 8.0 and out.value.tolist() == [-8.0, 1.0]


@pytest.mark.parametrize("rounding", list(QuantMode)[:4])
def test_round_mode_replaces_the_rounding(rounding):
    name = getattr(rounding, "name", str(rounding))
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 0.25, -0.25, 0.75, -0.75, 64.0]) / 1.0
    quantizer = Quantizer(8, rounding=rounding).eval()
    quantizer.set_range(torch.tensor(128.0))
    assert np.array_equal(quantizer(x).codes.numpy(), codes_of(x.numpy(), 0, 8, name).astype(np.int8))


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_never_enters_the_statistics(method, bad):
    quantizer = seen(3.0, method=method)
    before = quantizer.state()
    out = quantizer(torch.tensor([0.5, bad, 1000.0]))
    assert all(torch.equal(a, b) for a, b in zip(before, quantizer.state(), strict=True))
    assert quantizer.n_skipped == 1
    if math.isnan(bad):
        assert out.value.isnan().all() and out.scale.isnan() and out.codes.eq(0).all()
    else:
        assert out.codes.tolist() == [int(0.5 * float(out.scale)), 127 if bad > 0 else -128, 127]
    assert quantizer.eval()(torch.tensor([math.nan])).scale.isnan() and quantizer.n_skipped == 1  # eval counts nothing


def test_eval_without_data_takes_the_batch_and_stores_nothing():
    quantizer = Quantizer(8).eval()
    assert float(quantizer(torch.tensor([3.0])).scale) == 2.0**5
    assert float(quantizer(torch.tensor([0.1])).scale) == 2.0**10
    assert not quantizer.ready and float(quantizer.running_data) == 0.0 and quantizer.n_batches.item() == 0


def test_eval_uses_the_stored_scale():
    quantizer = seen(3.0).eval()
    out = quantizer(torch.tensor([100.0]))
    assert float(out.scale) == 2.0**5 and out.codes.tolist() == [127] and float(quantizer.running_data) == 3.0


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("t", [-30.0, -3.5, -2.5, 0.5, 1.5, 2.1, 2.49, 2.51, 7.5, 9.0])
def test_threshold_gives_the_exponent(bits, t):
    quantizer = Quantizer(bits, method="TQT")
    quantizer.learning_data = t
    for mode in (True, False):
        out = quantizer.train(mode)(torch.tensor([0.3, -0.7]))
        assert float(out.scale) == 2.0 ** threshold_exp2(np.float32(t), bits)


@pytest.mark.parametrize("t", [-20.0, -1.0, 0.3, 1.1, 2.1, 9.5])
def test_threshold_gradient(t):
    torch.manual_seed(1)
    quantizer = Quantizer(8, method="TQT")
    quantizer.learning_data = t
    x = (torch.randn(300) * 3).requires_grad_()
    dy = torch.randn(300)
    quantizer(x).value.backward(dy)
    exp2 = threshold_exp2(np.float32(t), 8)
    v = x.detach().double() * 2.0**exp2
    r = torch.floor((x.detach() * 2.0**exp2) + 0.5).double()
    inside = (r >= -128) & (r <= 127)
    slope = torch.where(inside, r - v, r.clamp(-128, 127)) * math.log(2) / 2.0**exp2
    want = (dy.double() * slope).sum() if 0 <= round(7 - t) <= 23 else torch.tensor(0.0)
    assert quantizer.learning_data.grad.shape == (1,)
    assert quantizer.learning_data.grad.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-6)  # float32 slopes
    assert torch.equal(x.grad, dy * inside)


def test_codes_at_the_limit_keep_their_gradient():
    quantizer = Quantizer(8).eval()
    quantizer.set_range(torch.tensor(128.0))
    x = torch.tensor([127.49, 127.5, -128.5, -128.6, 126.0], requires_grad=True)
    quantizer(x).value.sum().backward()
    assert x.grad.tolist() == [1, 0, 1, 0, 1]


def test_frozen_statistics_do_not_move():
    model = nn.ModuleList([seen(3.0), seen(3.0, method="TQT")])
    before = copy.deepcopy(model.state_dict())
    with freeze_statistics(model):
        for quantizer in model:
            assert float(quantizer(torch.tensor([1000.0])).scale) == float(quantizer.scale)
        with freeze_statistics(model, frozen=False):
            assert not model[0].frozen
        assert model[0].frozen
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not model[0].frozen
    freeze_statistics(model)
    assert model[0].frozen and model[1].frozen
    freeze_statistics(model, frozen=False)
    model[0](torch.tensor([1000.0]))
    assert model[0].n_batches.item() == 2


def test_freezing_batch_norm():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=None))
    x, before = torch.randn(8, 2) + 5, copy.deepcopy(model.state_dict())
    with freeze_statistics(model, batch_norm=True):
        model(x)
        model.train()
        model(x)
        for name in ("running_mean", "running_var"):
            assert torch.equal(getattr(model[0], name), before[f"0.{name}"])
            assert torch.equal(getattr(model[1], name), before[f"1.{name}"])
    assert model[0].training and model[0].momentum == 0.1 and model[1].momentum is None
    freeze_statistics(model, batch_norm=True)
    assert model[0].momentum == 0.0 and not model[0].training
    freeze_statistics(model, batch_norm=True)  # twice is once
    freeze_statistics(model, frozen=False, batch_norm=True)
    assert model[0].momentum == 0.1 and model[0].training
    model(x)
    assert not torch.equal(model[0].running_mean, before["0.running_mean"])


def test_recomputation_moves_nothing():
    quantizer = Quantizer(8)
    inside = []

    def run(x):
        inside.append(in_recomputation())
        return quantizer(x).value

    x = torch.tensor([1.0, -3.0], requires_grad=True)
    checkpoint(run, x, use_reentrant=False).sum().backward()
    assert inside == [False, True] and quantizer.n_batches.item() == 1 and x.grad.tolist() == [1, 1]


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize(
    ("clamp", "limit"),
    [
        (ClampInfo(clamp_factor_value=2), 2 * 19 / 4),
        (ClampInfo(clamp_weight_value=3), 3.0),
        (ClampInfo(clamp_factor_value=2, clamp_weight_value=3), 3.0),
        (ClampInfo(clamp_factor_value=None), 13.0),
    ],
)
def test_weights_are_clamped_once(method, clamp, limit):
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, -13.0]))
    quantizer = Quantizer(8, method=method, role="weight")
    clamp_weight_once(weight, quantizer, clamp)
    assert weight.tolist() == [1, -2, 3, -limit] and weight.requires_grad and weight.is_leaf
    quantizer(weight)  # what a training step does after it
    with torch.no_grad():
        weight[3] = -50.0
    restored = Quantizer(8, method=method, role="weight")
    restored.load_state_dict(quantizer.state_dict())
    for again in (quantizer, restored, copy.deepcopy(quantizer)):
        clamp_weight_once(weight, again, clamp)
        assert weight[3].item() == -50.0


def test_a_weight_without_gradient_is_not_clamped():
    weight = nn.Parameter(torch.tensor([1.0, 100.0]), requires_grad=False)
    quantizer = Quantizer(8, role="weight")
    clamp_weight_once(weight, quantizer, ClampInfo(clamp_weight_value=8))
    assert weight.tolist() == [1, 100]
    clamp_weight_once(weight.requires_grad_(), quantizer, ClampInfo(clamp_weight_value=8))
    assert weight.tolist() == [1, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits must be in"),
        ({"bits": 33}, "bits must be in"),
        ({"bits": 8, "method": "LSQ"}, "one of MOM, TQT"),
        ({"bits": 8, "role": "gradient"}, "activation, weight, bias"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Quantizer(**arguments)


def test_a_module_shows_its_format():
    assert repr(Quantizer(4, method="TQT", role="weight")) == "Quantizer(bits=4, method=TQT, role=weight)"


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's own doing
@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_compiled_without_graph_breaks(method):
    torch.manual_seed(0)
    quantizer, eager = Quantizer(8, method=method), Quantizer(8, method=method)
    compiled = torch.compile(lambda x: quantizer(x).value, fullgraph=True, backend="aot_eager")
    for step in range(1, 4):
        x = (torch.randn(40) * step).requires_grad_()
        y, want = compiled(x), eager(x).value
        assert torch.equal(y, want)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(want.sum(), x)[0])
    with freeze_statistics(quantizer):
        compiled(torch.ones(40))
    assert all(torch.equal(a, b) for a, b in zip(quantizer.state(), eager.state(), strict=True))
