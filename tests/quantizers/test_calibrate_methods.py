"""Calibration methods that users register: what they may set, what goes wrong, and how it is undone."""

import math

import pytest
import torch
from quantizer_oracle import exp2_of
from quantizers_seen import METHODS, assert_untouched, range_of

from linger.quantizers import Quantizer, calibration, register_calibrate_method


@pytest.fixture
def method_name():
    from linger.quantizers.calibration import _registered

    names = set(_registered)
    yield "test_method"
    for name in set(_registered) - names:
        del _registered[name]


@pytest.mark.parametrize("method", METHODS)
def test_registered_method_sets_the_range(method, method_name):
    calls = []

    @register_calibrate_method(method_name)
    def mean_x4(quantizer, tensor, *args):
        calls.append(args)
        limit = 4 * tensor.abs().mean()
        if quantizer.method == "MOM":
            quantizer.running_data = limit
        else:
            quantizer.learning_data.data.copy_(torch.log2(limit).reshape(1))

    assert mean_x4.__name__ == "mean_x4"
    quantizer = Quantizer(8, method=method, calibrate=method_name)
    with calibration():
        quantizer.observe_calibration(torch.full((10,), 2.0))
        quantizer.observe_calibration(torch.full((10,), 3.0))
    assert range_of(quantizer) == pytest.approx(12) and float(quantizer.scale) == 2.0 ** exp2_of(12, 8)
    assert calls == [(8,), (8,)] and quantizer.n_batches.item() == 2 and quantizer.ready


@pytest.mark.parametrize("method", METHODS)
def test_registered_method_sets_only_the_scale(method, method_name):
    @register_calibrate_method(method_name)
    def fixed(quantizer, tensor, bits):
        quantizer.scale.fill_(64.0)

    quantizer = Quantizer(8, method=method)
    with calibration(a_calibrate_name=method_name):
        quantizer.observe_calibration(torch.ones(3))
    assert float(quantizer.scale) == 64 and range_of(quantizer) == 2  # 2^(8 - 1 - 6)
    assert float(quantizer.eval()(torch.ones(3)).scale) == 64


def test_registered_method_sets_range_and_scale(method_name):
    @register_calibrate_method(method_name)
    def both(quantizer, tensor, bits):
        quantizer.running_data, quantizer.scale = 5.0, 8.0

    quantizer = Quantizer(8)
    with calibration(a_calibrate_name=method_name):
        quantizer.observe_calibration(torch.ones(3))
    assert (float(quantizer.running_data), float(quantizer.scale)) == (5, 8)


@pytest.mark.parametrize("method", METHODS)
def test_registered_method_on_zeros(method, method_name):
    @register_calibrate_method(method_name)
    def log(quantizer, tensor, bits):
        limit = tensor.abs().max()
        if quantizer.method == "MOM":
            quantizer.running_data = limit - 1e-7
        else:
            quantizer.learning_data = torch.log2(limit)

    quantizer = Quantizer(8, method=method)
    with calibration(a_calibrate_name=method_name):
        quantizer.observe_calibration(torch.zeros(3))
    assert range_of(quantizer) == pytest.approx(1e-6) and float(quantizer.scale) == 2.0**23


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda q: None, "set running_data or scale"),
        (lambda q: q.scale.fill_(3.0), "power of two, got 3.0"),
        (lambda q: q.scale.fill_(math.nan), "power of two"),
        (lambda q: q.running_data.fill_(math.nan), "must be finite"),
        (lambda q: q.running_data.fill_(math.inf), "must be finite"),
    ],
)
def test_registered_method_that_goes_wrong_is_named(body, message, method_name):
    @register_calibrate_method(method_name)
    def wrong(quantizer, tensor, bits):
        body(quantizer)

    quantizer = Quantizer(8)
    quantizer.name = "conv.output_quantizer"
    with pytest.raises(ValueError, match=f"'{method_name}' on conv.output_quantizer.*{message}"):  # noqa: SIM117
        with calibration(a_calibrate_name=method_name):
            quantizer.observe_calibration(torch.ones(3))
    assert_untouched(quantizer)


def test_an_exception_undoes_registered_methods(method_name):
    @register_calibrate_method(method_name)
    def largest(quantizer, tensor, bits):
        quantizer.running_data = torch.maximum(quantizer.running_data, tensor.abs().max())

    quantizer = Quantizer(8)
    with calibration(a_calibrate_name=method_name):
        quantizer.observe_calibration(torch.tensor([3.0]))
        with pytest.raises(ValueError, match="inner"), calibration():
            quantizer.observe_calibration(torch.tensor([9.0]))
            raise ValueError("inner")
        with calibration():
            quantizer.observe_calibration(torch.tensor([4.0]))
    assert float(quantizer.running_data) == 4
    with pytest.raises(ValueError, match="outer"), calibration(a_calibrate_name=method_name):
        with calibration():
            quantizer.observe_calibration(torch.tensor([9.0]))
        raise ValueError("outer")
    assert float(quantizer.running_data) == 4


def test_registering_is_checked():
    with pytest.raises(ValueError, match="built-in"):
        register_calibrate_method("top_10")
    with pytest.raises(TypeError, match="@register_calibrate_method"):
        register_calibrate_method(lambda q, x, b: None)
