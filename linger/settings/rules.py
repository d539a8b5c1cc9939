"""What each key of a configuration may hold: one rule per key, used for files, for code and for the saved comments."""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch

from linger.errors import ConfigError, config_error
from linger.settings.enums import ActivationType, PlatForm, QatMethod, QuantMethod, QuantMode, QuantStrategy

__all__ = ["CLAMP", "QUANT", "SECTION_QUANT", "TOP", "Rule", "Scalar", "allow_calibration", "check", "describe"]

Scalar = None | bool | int | float | str


def describe(value: object) -> str:
    """Name a value and its type for a message, shortened to one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string {value!r}" if len(value) <= 60 else f"the string {value[:57]!r}..."
    if isinstance(value, int):
        return f"the integer {value}" if abs(value) < 10**20 else "an integer of more than 20 digits"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Iterable):
        return "a list"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class Rule:
    """What one key may hold.

    Args:
        expected: What is allowed, as text for messages.
        accepts: Whether a value is allowed.
        refusals: Documented values that are not supported, each with its reason.
    """

    expected: str
    accepts: Callable[[object], bool]
    refusals: Mapping[str, str] = field(default_factory=dict)

    def problem(self, value: object) -> str | None:
        """Return why `value` is refused, or None when it is allowed."""
        if self.accepts(value):
            return None
        reason = self.refusals.get(value) if isinstance(value, str) else self.refusals.get(describe(value))
        if reason is not None:
            return f"{describe(value)} is not available: {reason}; allowed: {self.expected}"
        return f"must be {self.expected}, got {describe(value)}"


def allow_calibration(name: str) -> None:
    """Accept a registered calibration method's name in configurations from now on."""
    _calibration_methods.add(name)


def check(key: str, value: object, rule: Rule) -> ConfigError | None:
    """Return the error for a value given in code (no file position), or None. `key` may be dotted."""
    problem = rule.problem(value)
    return None if problem is None else config_error(f"{key}: {problem}", key=key.rpartition(".")[2])


def _listed(words: Iterable[object]) -> str:
    *head, last = map(str, words)
    return f"{', '.join(head)} or {last}" if head else last


def _integers(*allowed: int) -> Rule:
    expected = _listed(allowed) if len(allowed) > 1 else f"{allowed[0]} (the only width the chips have)"
    return Rule(expected, lambda v: type(v) is int and v in allowed)


def _names(kind: type[Enum], refusals: Mapping[str, str] | None = None) -> Rule:
    refusals = refusals or {}
    allowed = [name for name in kind.__members__ if name not in refusals and name != "QValue"]
    return Rule(_listed(allowed), lambda v: type(v) is str and v in allowed, refusals)


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    if type(value) is not int and type(value) is not float:
        return False
    try:
        single: float = struct.unpack("f", struct.pack("f", value))[0]
    except (OverflowError, struct.error):
        return False
    return math.isfinite(single) and single >= torch.finfo(torch.float32).tiny


def _is_device(value: object) -> bool:
    if type(value) is not str:
        return False
    try:
        torch.device(value)
    except (RuntimeError, ValueError, TypeError):
        return False
    return True


_ENGINES = ("562ddc7", "later")
_DTYPES = ("torch.float32", "torch.float64", "torch.float16", "torch.bfloat16")
_STRATEGY = _names(
    QuantStrategy,
    {
        name: "this strategy is not implemented"
        for name in QuantStrategy.__members__
        if name not in ("RANGE_MEAN", "LEAST_ERROR")
    },
)
_calibration_methods = {"abs_max", "top_10", "mse", "w_like"}  # and what `linger.register_calibrate_method` has added
_METHOD_NAME = Rule(
    "abs_max, top_10, mse, w_like or a name that linger.register_calibrate_method knows",
    lambda v: type(v) is str and v in _calibration_methods,
)
_BOOL = Rule("true or false", lambda v: type(v) is bool)
_LIMIT = Rule("a finite number above 0, or null", _is_limit)
_ACTIVATION_BITS = _integers(8, 16, 32)

CLAMP: Mapping[str, Rule] = {
    "clamp_activation_value": _LIMIT,
    "clamp_bias_value": _LIMIT,
    "clamp_factor_value": _LIMIT,
    "clamp_weight_value": _LIMIT,
}
QUANT: Mapping[str, Rule] = {
    "a_calibrate_name": _METHOD_NAME,
    "a_strategy": _STRATEGY,
    "activate_bits": _ACTIVATION_BITS,
    "activation_type": _names(ActivationType),
    "average_scale": Rule("input or own", lambda v: v in ("input", "own")),
    "bias_bits": _integers(32),
    "is_perchannel": Rule("false", lambda v: v is False, {"true": "no chip has per-channel scales"}),
    "is_symmetry": Rule("true", lambda v: v is True, {"false": "the chips compute with symmetric codes only"}),
    "qat_method": _names(QatMethod),
    "round_mode": _names(QuantMode),
    "w_calibrate_name": _METHOD_NAME,
    "w_strategy": _STRATEGY,
    "weight_bits": _integers(4, 8),
}
SECTION_QUANT: Mapping[str, Rule] = {**QUANT, "input_bits": _ACTIVATION_BITS, "output_bits": _ACTIVATION_BITS}
TOP: Mapping[str, Rule] = {
    "calibration": _BOOL,
    "device": Rule("a torch device such as cpu, cuda or cuda:0", _is_device),
    "dtype": Rule(_listed(_DTYPES), lambda v: type(v) is str and v in _DTYPES),
    "engine": Rule(
        "562ddc7 or later, or null (a model trained before this key existed)", lambda v: v is None or v in _ENGINES
    ),
    "open_quant": _BOOL,
    "platform": _names(PlatForm, {"jupiter": "no kernels exist for this chip"}),
    "quant_method": _names(QuantMethod),
    "seed": Rule("an integer from 0 to 4294967295", lambda v: type(v) is int and 0 <= v < 2**32),
}
