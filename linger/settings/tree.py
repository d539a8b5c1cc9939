"""YAML nodes, as `_C.load_yaml` returns them, and the meaning of their scalars."""

import re
from typing import NamedTuple

from linger import _C
from linger.settings.rules import Scalar

__all__ = ["YamlNode", "parse", "plain_value", "write_scalar"]

_BOOLS = {word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())}
_NULLS = {"", "~", "null", "Null", "NULL"}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 400  # beyond it a number is out of every range, and costs time to convert


class YamlNode(NamedTuple):
    """One YAML node: `kind` is null, plain, quoted, list or map; line and column are 1-based.

    `value` is None, the text, a list of nodes, or a list of (key node, value node) pairs. The nodes inside are
    plain tuples of this form.
    """

    kind: str
    value: object
    line: int
    column: int

    @property
    def scalar(self) -> Scalar:
        """The typed value of a scalar. Only call it for null, plain and quoted nodes."""
        if self.kind == "null":
            return None
        return plain_value(str(self.value)) if self.kind == "plain" else str(self.value)

    @property
    def items(self) -> list["YamlNode"]:
        """The elements of a list node."""
        return [YamlNode(*item) for item in self.value] if isinstance(self.value, list) else []

    @property
    def pairs(self) -> list[tuple["YamlNode", "YamlNode"]]:
        """The pairs of a map node, in file order. Keys are scalars and differ from each other."""
        return [(YamlNode(*key), YamlNode(*value)) for key, value in self.value] if isinstance(self.value, list) else []


def parse(text: str | bytes, file: str | None = None) -> YamlNode:
    """Parse one YAML document.

    Raises:
        ConfigError: The text is not UTF-8, not YAML, too large, too deep, or has duplicate keys.
    """
    return YamlNode(*_C.load_yaml(text, file=file))


def plain_value(text: str) -> Scalar:
    """Type a scalar without quotes by the YAML 1.2 core schema: null, booleans, integers, reals, else a string."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _REAL.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def write_scalar(value: Scalar) -> str:
    """Write a value so that reading it gives the same value and type."""
    if isinstance(value, str):
        return _C.yaml_scalar(value, quoted=not isinstance(plain_value(value), str))
    if value is None:
        return _C.yaml_scalar("null")
    return _C.yaml_scalar(str(value).lower() if isinstance(value, bool) else repr(value))
