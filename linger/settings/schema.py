"""A configuration as frozen dataclasses. Every value is checked on construction; nothing here changes afterwards."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from linger.errors import ConfigError, config_error
from linger.settings.enums import QuantMode
from linger.settings.rules import CLAMP, SECTION_QUANT, TOP, Rule, check

__all__ = ["ClampInfo", "LayerSettings", "QuantInfo", "Section", "Settings"]


def _verify(part: object, rules: Mapping[str, Rule], prefix: str = "") -> None:
    for key, rule in rules.items():
        error = check(prefix + key, getattr(part, key), rule)
        if error is not None:
            raise error


@dataclass(frozen=True)
class ClampInfo:
    """Limits of the constrained stage, in real units; None switches one off. A static weight limit wins over the factor."""

    clamp_activation_value: float | None = 8
    clamp_bias_value: float | None = None
    clamp_factor_value: float | None = 7
    clamp_weight_value: float | None = None

    def __post_init__(self) -> None:
        _verify(self, CLAMP, "clamp_info.")


@dataclass(frozen=True)
class QuantInfo:
    """Number formats and methods. `input_bits` and `output_bits` exist in sections only; None means `activate_bits`."""

    a_calibrate_name: str = "top_10"
    a_strategy: str = "RANGE_MEAN"
    activate_bits: int = 8
    activation_type: str = "none"
    average_scale: str = "input"
    bias_bits: int = 32
    is_perchannel: bool = False
    is_symmetry: bool = True
    qat_method: str = "MOM"
    round_mode: str = "floor_add"
    w_calibrate_name: str = "abs_max"
    w_strategy: str = "RANGE_MEAN"
    weight_bits: int = 8
    input_bits: int | None = None
    output_bits: int | None = None

    def __post_init__(self) -> None:
        optional = {key for key in ("input_bits", "output_bits") if getattr(self, key) is None}
        _verify(self, {k: r for k, r in SECTION_QUANT.items() if k not in optional}, "quant_info.")


@dataclass(frozen=True)
class LayerSettings:
    """What one layer is built from, after sections and inheritance. Kept by the layer as ``layer.quant``.

    `input_bits`, `weight_bits`, `output_bits` are widths in bits; `rounding` is the output quantizer's rounding;
    `own_average`: means over whole axes have a scale of their own.
    """

    platform: str
    method: str
    input_bits: int
    weight_bits: int
    output_bits: int
    rounding: QuantMode
    clamp: ClampInfo
    a_calibrate: str
    w_calibrate: str
    open_quant: bool = True
    own_average: bool = False
    a_strategy: str = "RANGE_MEAN"
    w_strategy: str = "RANGE_MEAN"


@dataclass(frozen=True)
class Section:
    """Settings of some layers. `given` holds the dotted keys the section names itself; the others are inherited.

    Args:
        key: The section's key in the file.
        name: Qualified names or globs (`*`, `?`, `[...]`); each covers what it names and everything below.
        open_quant: False: what the section covers stays in float, layers and operators of user code.
        line: Line of the section's key in the file, 0 when it comes from code.
    """

    key: str
    name: tuple[str, ...]
    clamp_info: ClampInfo
    quant_info: QuantInfo
    platform: str
    given: tuple[str, ...] = ()
    open_quant: bool = True
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", tuple(sorted(self.given)))

    def matches(self, qualified_name: str) -> bool:
        """Return whether one of the section's names covers a layer."""
        return any(covers(pattern, qualified_name) for pattern in self.name)

    def inherit(self, settings: "Settings") -> "Section":
        """Return this section with everything it does not name taken from the global settings."""
        own: dict[str, dict[str, Any]] = {"clamp_info": {}, "quant_info": {}}
        for dotted in self.given:
            part, _, key = dotted.partition(".")
            if key:
                own[part][key] = getattr(getattr(self, part), key)
        return replace(
            self,
            clamp_info=replace(settings.clamp_info, **own["clamp_info"]),
            quant_info=replace(settings.quant_info, **own["quant_info"]),
            platform=self.platform if "platform" in self.given else settings.platform,
        )


def covers(pattern: str, qualified_name: str) -> bool:
    """Return whether a pattern names a module or one of its parents: sections and ``disable_submodel`` mean the same.

    Args:
        pattern: A qualified name or a shell glob; a wildcard stands for dots too.
        qualified_name: Name of the module; empty for the root, which a glob can match.
    """
    ends = [i for i, c in enumerate(qualified_name) if c == "."]
    levels = (qualified_name[:end] for end in (*ends, len(qualified_name)))
    return any(level == pattern or fnmatch.fnmatchcase(level, pattern) for level in levels)


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Settings:
    """A whole configuration.

    Args:
        engine: Release of the engine that files are for, ``562ddc7`` (the shipped one) or ``later``. None: a model from before
            this key, which keeps its arithmetic; its files have the forms of the shipped engine.
        operators: (operator of user code, whether it runs in integers); those that are not named have their default.
        sections: Per-layer sections in file order; the first one that matches a layer is used.
        file: Where it was loaded from; None when it comes from code.
        explicit: Top-level keys that the file contains.
        marks: Dotted key to (line, column) in the file, both 1-based; for messages.
    """

    calibration: bool = False
    clamp_info: ClampInfo = ClampInfo()
    device: str = field(default_factory=_default_device)
    dtype: str = "torch.float32"
    engine: str | None = "562ddc7"
    open_quant: bool = True
    platform: str = "venusA"
    quant_info: QuantInfo = QuantInfo()
    quant_method: str = "NATIVE"
    seed: int = 42
    operators: tuple[tuple[str, bool], ...] = ()
    mix_parts: tuple[()] = ()
    sections: tuple[Section, ...] = ()
    file: str | None = field(default=None, compare=False)
    explicit: frozenset[str] = field(default=frozenset(), compare=False)
    marks: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        _verify(self, TOP)
        for key, kind in (("clamp_info", ClampInfo), ("quant_info", QuantInfo)):
            if not isinstance(getattr(self, key), kind):
                raise TypeError(f"Settings: {key} must be a {kind.__name__}, got {type(getattr(self, key)).__name__}")
        object.__setattr__(self, "sections", tuple(section.inherit(self) for section in self.sections))
        chosen = dict(self.operators)
        for name, integers in chosen.items():
            if not isinstance(name, str) or not isinstance(integers, bool):
                raise TypeError(f"Settings: operators must map names to true or false, got {name!r}: {integers!r}")
        object.__setattr__(self, "operators", tuple(sorted(chosen.items())))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Models that were pickled before the engine was recorded keep their arithmetic."""
        self.__dict__.update({"engine": None} | state)

    def with_sections(self, sections: tuple[Section, ...]) -> "Settings":
        """Return these settings with other sections."""
        return replace(self, sections=sections)

    @property
    def float_operators(self) -> frozenset[str]:
        """The operators of user code that stay in float in the whole model."""
        return frozenset(name for name, integers in self.operators if not integers)

    def with_operators(self, chosen: Mapping[str, bool]) -> "Settings":
        """Return these settings with some operators switched on (integers) or off (float)."""
        return replace(self, operators=tuple((dict(self.operators) | dict(chosen)).items()))

    def layer(self, qualified_name: str) -> LayerSettings:
        """Return what the layer of that name is built from."""
        section = next((s for s in self.sections if s.matches(qualified_name)), None)
        chosen = self if section is None else section
        quant = chosen.quant_info
        return LayerSettings(
            platform=chosen.platform,
            method=quant.qat_method,
            input_bits=quant.activate_bits if quant.input_bits is None else quant.input_bits,
            weight_bits=quant.weight_bits,
            output_bits=quant.activate_bits if quant.output_bits is None else quant.output_bits,
            rounding=QuantMode[quant.round_mode],
            clamp=chosen.clamp_info,
            a_calibrate=quant.a_calibrate_name,
            w_calibrate=quant.w_calibrate_name,
            open_quant=True if section is None else section.open_quant,
            a_strategy=quant.a_strategy,
            w_strategy=quant.w_strategy,
            own_average=quant.average_scale == "own",
        )

    def error(self, dotted_key: str, what: str) -> ConfigError:
        """Return (not raise) the error that blames a key, with its place in the file when there is one."""
        line, column = self.marks.get(dotted_key, (None, None))
        key = dotted_key.rpartition(".")[2]
        return config_error(f"{dotted_key}: {what}", file=self.file, line=line, column=column, key=key)
