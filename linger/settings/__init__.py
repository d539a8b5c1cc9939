"""Configuration: YAML files, frozen dataclasses, and the one process-wide value. Used as ``settings.load(path)``."""

from linger.settings.enums import (
    ActivationType,
    FakeQuantMethod,
    PlatForm,
    PlatFormQuant,
    QatMethod,
    QuantMethod,
    QuantMode,
    QuantStrategy,
)
from linger.settings.rules import allow_calibration
from linger.settings.schema import ClampInfo, LayerSettings, QuantInfo, Section, Settings, covers
from linger.settings.store import config_save_to_yaml, current, defaults, load, loads, save, use
from linger.settings.view import QUANT_CONFIGS, ConfigView
from linger.settings.write import dumps, section_text

__all__ = [
    "QUANT_CONFIGS",
    "ActivationType",
    "ClampInfo",
    "ConfigView",
    "FakeQuantMethod",
    "LayerSettings",
    "PlatForm",
    "PlatFormQuant",
    "QatMethod",
    "QuantInfo",
    "QuantMethod",
    "QuantMode",
    "QuantStrategy",
    "Section",
    "Settings",
    "allow_calibration",
    "config_save_to_yaml",
    "covers",
    "current",
    "defaults",
    "dumps",
    "load",
    "loads",
    "save",
    "section_text",
    "use",
]
