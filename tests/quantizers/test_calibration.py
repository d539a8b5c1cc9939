"""Calibration in every combination: methods, several batches, nesting, exceptions, registered functions, threads."""

import copy
import logging
import math
import threading

import pytest
import torch
from quantizer_oracle import exp2_of
from quantizers_seen import METHODS, assert_untouched, range_of, spread
from torch import nn

import linger
from linger.quantizers import Quantizer, calibrating, calibration, freeze_statistics
from linger.quantizers import calibration as _entry
from linger.quantizers.quantizer import FIRST_THRESHOLD


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "ranges", "want"),
    [
        ("abs_max", [20.0], 20),
        ("abs_max", [20.0, 30.0, 25.0], 30),
        ("top_10", [20.0], 11),
        ("top_10", [20.0, 30.0, 25.0], 16),
    ],
)
def test_several_batches(method, name, ranges, want, train):
    quantizer = Quantizer(8, method=method, calibrate=name).train(train)
    with calibration():
        for largest in ranges:
            quantizer.observe_calibration(spread(largest))
            assert_untouched(quantizer)  # nothing moves before the end
    assert range_of(quantizer) == pytest.approx(want, rel=1e-6)
    assert float(quantizer.scale) == 2.0 ** exp2_of(want, 8)
    assert quantizer.ready and quantizer.n_batches.tolist() == [len(ranges)]
    assert float(quantizer.eval()(torch.tensor([1.0])).scale) == float(quantizer.scale)


@pytest.mark.parametrize(
    ("n", "place"), [(1, 1), (12, 1), (51, 1), (52, 2), (102, 2), (103, 3), (460, 9), (461, 10), (512, 10), (9000, 10)]
)
def test_top_10_takes_an_earlier_place_in_small_tensors(n, place):
    """k = min(10, ceil(10 n / 512)): of twelve logits the largest counts, not the tenth."""
    quantizer = Quantizer(8)
    x = torch.arange(1.0, n + 1)[torch.randperm(n)]
    with calibration():
        quantizer.observe_calibration(x * torch.tensor(-1.0).pow(torch.arange(n)))
    assert float(quantizer.running_data) == n + 1 - place


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["abs_max", "top_10", "w_like"])
def test_zeros_never_give_minus_infinity(method, name):
    quantizer = Quantizer(8, method=method, calibrate=name)
    with calibration():
        quantizer.observe_calibration(torch.zeros(20))
    assert math.isfinite(range_of(quantizer)) and range_of(quantizer) > 0
    assert all(t.isfinite().all() for t in quantizer.state_dict().values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_is_left_out(method, bad):
    quantizer = Quantizer(8, method=method, calibrate="abs_max")
    with calibration():
        quantizer.observe_calibration(torch.tensor([1.0, bad]))
        quantizer.observe_calibration(torch.tensor([4.0]))
    assert range_of(quantizer) == pytest.approx(4) and quantizer.n_skipped == 1 and quantizer.n_batches.item() == 1
    other = Quantizer(8, method=method)
    with calibration():
        other.observe_calibration(torch.tensor([bad]))
    assert_untouched(other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [4, 8])
def test_w_like_minimises_the_squared_error(method, bits):
    torch.manual_seed(0)
    batches = [torch.randn(400) * 0.3, torch.randn(400) * 0.2]
    errors = {}
    for power in range(-10, 10):
        step = 2.0 ** (power - bits + 1)
        q = [
            (b.double() / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step - b.double()
            for b in batches
        ]
        errors[power] = sum(float((e * e).sum()) for e in q)
    best = min(errors, key=errors.__getitem__)
    quantizer = Quantizer(bits, method=method, role="weight", calibrate="w_like")
    with calibration():
        for batch in batches:
            quantizer.observe_calibration(batch)
    assert range_of(quantizer) == 2.0**best and float(quantizer.scale) == 2.0 ** (bits - 1 - best)


def test_a_fused_relu_counts_positive_values():
    quantizer = Quantizer(8, calibrate="abs_max")
    with calibration():
        quantizer.observe_calibration(torch.tensor([-8.0, 1.0]), relu=True)
    assert float(quantizer.running_data) == 1


def test_half_precision_input():
    quantizer = Quantizer(8, calibrate="abs_max")
    with calibration():
        quantizer.observe_calibration(torch.tensor([60000.0], dtype=torch.float16))
    assert float(quantizer.running_data) == 60000


def test_names_given_to_the_context():
    activation, weight = Quantizer(8), Quantizer(8, role="weight", calibrate="abs_max")
    with calibration(None, "abs_max", "top_10"):
        activation.observe_calibration(spread(20.0))
        weight.observe_calibration(spread(20.0))
    assert (float(activation.running_data), float(weight.running_data)) == (20, 11)


@pytest.mark.parametrize("where", ["a_calibrate_name", "w_calibrate_name"])
def test_unknown_names_list_the_known_ones(where):
    with pytest.raises(ValueError, match=r"unknown method 'top10'; known methods: abs_max, .*top_10, w_like"):
        calibration(**{where: "top10"})
    with pytest.raises(ValueError, match="'absmax'; known methods: abs_max"), calibration():
        Quantizer(8, calibrate="absmax").observe_calibration(torch.ones(1))
    assert not calibrating()


def test_outside_a_context_is_an_error():
    assert not calibrating()
    with pytest.raises(RuntimeError, match="no calibration is running"):
        Quantizer(8).observe_calibration(torch.ones(1))


@pytest.mark.parametrize("method", METHODS)
def test_forward_collects_and_moves_nothing(method):
    quantizer = Quantizer(8, method=method, calibrate="abs_max")
    with calibration():
        quantizer(torch.tensor([3.0]))
        quantizer(torch.tensor([5.0]))
        assert_untouched(quantizer)
    assert range_of(quantizer) == pytest.approx(5)


@pytest.mark.parametrize("method", METHODS)
def test_calibrating_again_replaces(method):
    quantizer = Quantizer(8, method=method, calibrate="abs_max")
    for value in (100.0, 3.0):
        with calibration():
            quantizer.observe_calibration(torch.tensor([value]))
        assert range_of(quantizer) == pytest.approx(value)
    assert quantizer.n_batches.item() == 2
    with calibration():
        pass
    assert range_of(quantizer) == pytest.approx(3)


def test_finalise_before_the_end():
    quantizer = Quantizer(8, calibrate="abs_max")
    with calibration():
        quantizer.observe_calibration(torch.tensor([3.0]))
        quantizer.finalise_calibration()
        assert float(quantizer.running_data) == 3
    assert float(quantizer.running_data) == 3 and quantizer.n_batches.item() == 1


@pytest.mark.parametrize("method", METHODS)
def test_nested_contexts_are_one_calibration(method):
    quantizer = Quantizer(8, method=method)
    with calibration():
        quantizer.observe_calibration(spread(20.0))
        with calibration():
            quantizer.observe_calibration(spread(30.0))
        assert calibrating()
        assert_untouched(quantizer)
        quantizer.observe_calibration(spread(25.0))
    assert range_of(quantizer) == pytest.approx(16) and quantizer.n_batches.item() == 3 and not calibrating()


def test_an_inner_context_may_name_another_method():
    first, second = Quantizer(8), Quantizer(8)
    with calibration():
        with calibration(a_calibrate_name="abs_max"):
            first.observe_calibration(spread(20.0))
            second.observe_calibration(spread(20.0))
        second.observe_calibration(spread(30.0))
    assert float(first.running_data) == 20
    assert float(second.running_data) == 21  # the method used last decides


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_restores_everything_and_says_so(error, caplog):
    quantizer, other = Quantizer(8), Quantizer(8, method="TQT")
    with caplog.at_level(logging.WARNING, "linger"), pytest.raises(error), calibration():
        quantizer.observe_calibration(spread(20.0))
        other.observe_calibration(spread(20.0))
        raise error
    assert not calibrating()
    assert_untouched(quantizer)
    assert_untouched(other)
    assert f"left by {error.__name__}: what 2 quantizers saw in it is not used" in caplog.text


def test_an_exception_in_an_inner_context_drops_only_its_batches(caplog):
    quantizer = Quantizer(8, calibrate="abs_max")
    with caplog.at_level(logging.WARNING, "linger"), calibration():
        quantizer.observe_calibration(torch.tensor([3.0]))
        with pytest.raises(ValueError, match="bad batch"), calibration():
            quantizer.observe_calibration(torch.tensor([9.0]))
            raise ValueError("bad batch")
        assert calibrating()
        quantizer.observe_calibration(torch.tensor([4.0]))
    assert float(quantizer.running_data) == 4 and quantizer.n_batches.item() == 2
    assert "1 quantizers" in caplog.text


def test_a_context_cannot_be_entered_twice_at_a_time_but_twice_in_turn():
    context, quantizer = calibration(), Quantizer(8, calibrate="abs_max")
    with context, pytest.raises(RuntimeError, match="entered already"), context:
        pass
    with context:
        quantizer.observe_calibration(torch.tensor([3.0]))
    assert float(quantizer.running_data) == 3 and not calibrating()


def test_a_model_limits_the_calibration_and_hears_what_was_missed(caplog):
    model = nn.ModuleDict({"a": Quantizer(8), "b": Quantizer(8), "bias": Quantizer(32, role="bias")})
    other = Quantizer(8)
    with caplog.at_level(logging.WARNING, "linger"), calibration(model):
        model["a"].observe_calibration(spread(20.0))
        other.observe_calibration(spread(20.0))
    assert model["a"].ready and not other.ready
    assert caplog.messages == ["calibration: no data for b"]


def test_no_data_at_all_is_reported(caplog):
    with caplog.at_level(logging.WARNING, "linger"), calibration():
        pass
    assert "no quantizer saw any data" in caplog.text


def test_frozen_and_bias_quantizers_stay():
    frozen, bias = Quantizer(8), Quantizer(32, role="bias")
    with freeze_statistics(frozen), calibration():
        frozen.observe_calibration(spread(20.0))
        bias.observe_calibration(spread(20.0))
        Quantizer(8).observe_calibration(torch.empty(0))
    assert_untouched(frozen)
    assert not bias.ready


def test_threads_have_their_own_calibration():
    seen, enter, leave = [], threading.Event(), threading.Event()

    def other():
        with calibration(a_calibrate_name="abs_max"):
            enter.set()
            leave.wait(10)
            seen.append(calibrating())

    thread = threading.Thread(target=other)
    thread.start()
    assert enter.wait(10)
    assert not calibrating()
    leave.set()
    thread.join()
    assert seen == [True]


def test_compiled_code_is_calibrated():
    quantizer, x = Quantizer(8), torch.ones(40)
    compiled = torch.compile(lambda x: quantizer(x).value, backend="aot_eager")
    for step in (1, 2):
        compiled(x)
        assert quantizer.n_batches.item() == 2 * step - 1
        with calibration(a_calibrate_name="abs_max"):
            compiled(5 * x)
        assert float(quantizer.running_data) == 5 and quantizer.n_batches.item() == 2 * step


def test_a_copy_made_inside_is_not_calibrated():
    quantizer = Quantizer(8)
    with calibration():
        quantizer.observe_calibration(spread(20.0))
        other = copy.deepcopy(quantizer)
    assert quantizer.ready and not other.ready


def test_first_threshold_is_the_documented_one():
    assert Quantizer(8, method="TQT").learning_data.tolist() == pytest.approx([2.1]) and FIRST_THRESHOLD == 2.1
    assert _entry is calibration


def test_layers_that_did_not_run_are_told_and_operands_that_arrive_as_codes_are_not(caplog):
    model = linger.init(nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)]))
    with caplog.at_level(logging.WARNING, "linger"), calibration(model):
        model[1](model[0](torch.randn(3, 4)))
    assert caplog.messages == ["calibration: no data for 2"]
