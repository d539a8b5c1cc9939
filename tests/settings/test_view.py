"""`QUANT_CONFIGS`: the mutable face of the current configuration."""

import pytest

from linger import settings
from linger.errors import ConfigError
from linger.settings import QUANT_CONFIGS, PlatForm, QuantMode


def test_the_view_shows_the_current_configuration():
    assert (QUANT_CONFIGS.platform, QUANT_CONFIGS.seed, QUANT_CONFIGS.mix_parts) == ("venusA", 42, [])
    settings.use(settings.loads("platform: arcs\nquant_info: {weight_bits: 4}"))
    assert QUANT_CONFIGS.platform == "arcs"
    assert QUANT_CONFIGS.quant_info.weight_bits == 4
    assert QUANT_CONFIGS.clamp_info.clamp_weight_value is None
    assert "weight_bits=4" in repr(QUANT_CONFIGS)
    assert {"open_quant", "quant_method", "device", "dtype", "clamp_info", "mix_parts"} <= set(dir(QUANT_CONFIGS))


def test_assignments_change_what_later_calls_use_and_nothing_else():
    before = settings.current()
    bound = before.layer("x")
    QUANT_CONFIGS.seed = 7
    QUANT_CONFIGS.platform = PlatForm.mars
    QUANT_CONFIGS.quant_info.weight_bits = 4
    QUANT_CONFIGS.quant_info.round_mode = QuantMode.ceil
    QUANT_CONFIGS.clamp_info.clamp_factor_value = None
    after = settings.current()
    assert (after.seed, after.platform, after.quant_info.weight_bits) == (7, "mars", 4)
    assert after.layer("x").rounding is QuantMode.ceil
    assert after.clamp_info.clamp_factor_value is None
    assert (before.seed, before.platform, bound.weight_bits) == (42, "venusA", 8)


def test_a_whole_part_can_be_assigned():
    QUANT_CONFIGS.quant_info = {"qat_method": "TQT"}
    QUANT_CONFIGS.clamp_info = settings.ClampInfo(clamp_bias_value=3)
    QUANT_CONFIGS.clamp_info = QUANT_CONFIGS.clamp_info
    QUANT_CONFIGS.mix_parts = []
    assert settings.current().layer("x").method == "TQT"
    assert settings.current().clamp_info.clamp_bias_value == 3


def test_sections_follow_the_global_values_they_inherit():
    settings.use(settings.loads("p: {name: [a], quant_info: {weight_bits: 4}}"))
    QUANT_CONFIGS.quant_info.activate_bits = 16
    QUANT_CONFIGS.platform = "arcs"
    layer = settings.current().layer("a")
    assert (layer.weight_bits, layer.input_bits, layer.platform) == (4, 16, "arcs")


def test_wrong_values_and_names_are_refused_and_change_nothing():
    before = settings.current()
    with pytest.raises(ConfigError, match="weight_bits: must be 4 or 8, got the integer 5"):
        QUANT_CONFIGS.quant_info.weight_bits = 5
    with pytest.raises(ConfigError, match="no kernels exist"):
        QUANT_CONFIGS.platform = PlatForm.jupiter
    with pytest.raises(ConfigError, match="true or false"):
        QUANT_CONFIGS.open_quant = 1
    with pytest.raises(ValueError, match="mix_parts must stay empty"):
        QUANT_CONFIGS.mix_parts = [1]
    for part in (QUANT_CONFIGS, QUANT_CONFIGS.quant_info):
        with pytest.raises(AttributeError, match="weight_bit"):
            part.weight_bit = 4
        with pytest.raises(AttributeError, match="weight_bit"):
            _ = part.weight_bit
    with pytest.raises(AttributeError, match="input_bits"):
        QUANT_CONFIGS.quant_info.input_bits = 8
    assert settings.current() is before
