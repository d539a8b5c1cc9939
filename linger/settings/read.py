"""YAML tree to `Settings`. Whatever is wrong is blamed with file, line, column and key."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from linger.errors import ConfigError, config_error
from linger.settings.rules import CLAMP, QUANT, SECTION_QUANT, TOP, Rule, describe
from linger.settings.schema import ClampInfo, QuantInfo, Section, Settings
from linger.settings.tree import YamlNode, parse

__all__ = ["read"]

_PARTS = {"clamp_info": CLAMP, "quant_info": QUANT}
_SECTION_PARTS = {"clamp_info": CLAMP, "quant_info": SECTION_QUANT}
_MAX_KEY = 100  # characters of a section's key; longer ones could not be written as a simple YAML key


def read(text: str | bytes, file: str | None = None) -> Settings:
    """Return the settings that a YAML text describes; what it leaves out has its default.

    Raises:
        ConfigError: With the place, the key and what is allowed there.
    """
    return _Reader(file).top(parse(text, file))


def shown(key: str) -> str:
    """A key as it may stand in a message: one line, not too long."""
    return key if key.isidentifier() and len(key) <= 60 else repr(key[:60])


@dataclass
class _Reader:
    file: str | None
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    suffix: str = ""  # what a message about a section ends with

    def error(self, node: YamlNode, what: str, key: str | None = None) -> ConfigError:
        return config_error(what + self.suffix, file=self.file, line=node.line, column=node.column, key=key)

    def pairs(self, node: YamlNode, name: str) -> list[tuple[str, YamlNode, YamlNode]]:
        """The pairs of a mapping as (key, key node, value node)."""
        if node.kind != "map":
            got = "a list" if node.kind == "list" else describe(node.scalar)
            raise self.error(node, f"{name} must be a mapping (key: value), got {got}", None if " " in name else name)
        return [(str(key.value), key, value) for key, value in node.pairs]

    def unknown(
        self, key: str, node: YamlNode, allowed: Iterable[str], prefix: str = "", more: str = ""
    ) -> ConfigError:
        allowed = list(allowed)
        near = difflib.get_close_matches(key[:60], allowed, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        home = next((part for part, rules in _SECTION_PARTS.items() if key in rules), None)
        if home is not None:
            hint = f" (it belongs into {home}{' of a section' if key not in QUANT and home == 'quant_info' else ''})"
        return self.error(node, f"unknown key {prefix}{shown(key)}{hint}; allowed: {', '.join(allowed)}{more}", key)

    def value(self, key: str, node: YamlNode, rule: Rule, prefix: str = "") -> Any:
        self.marks[prefix + key] = (node.line, node.column)
        value: object = node.value if node.kind in ("list", "map") else node.scalar
        shape: object = {} if node.kind == "map" else value
        problem = rule.problem(shape)
        if problem is None:
            return value
        if node.kind == "quoted" and rule.problem(YamlNode("plain", node.value, 0, 0).scalar) is None:
            problem += " (remove the quotes)"
        raise self.error(node, f"{prefix}{key}: {problem}", key)

    def part(self, name: str, node: YamlNode, rules: Mapping[str, Rule], prefix: str = "") -> dict[str, Any]:
        """The mapping `clamp_info` or `quant_info`, without defaults."""
        out = {}
        for key, key_node, value_node in self.pairs(node, name):
            if key not in rules:
                raise self.unknown(key, key_node, rules, f"{prefix}{name}.")
            out[key] = self.value(key, value_node, rules[key], f"{prefix}{name}.")
        return out

    def top(self, root: YamlNode) -> Settings:
        if root.kind == "null" or (root.kind == "plain" and root.scalar is None):
            return Settings(file=self.file)
        values: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {"clamp_info": {}, "quant_info": {}}
        sections: list[tuple[str, YamlNode, YamlNode]] = []
        explicit = []
        for key, key_node, value_node in self.pairs(root, "the configuration"):
            explicit.append(key)
            if key in TOP:
                values[key] = self.value(key, value_node, TOP[key])
            elif key in _PARTS:
                self.marks[key] = (key_node.line, key_node.column)
                parts[key] = self.part(key, value_node, _PARTS[key])
            elif key == "mix_parts":
                self.mix_parts(value_node)
            elif key == "operators":
                values[key] = self.operators(value_node)
            elif value_node.kind == "map" and any(name.value == "name" for name, _ in value_node.pairs):
                sections.append((key, key_node, value_node))
            else:
                more = "; a mapping with a list `name` is a per-layer section"
                raise self.unknown(key, key_node, [*TOP, *_PARTS, "operators", "mix_parts"], more=more)
        settings = Settings(
            **values,
            clamp_info=ClampInfo(**parts["clamp_info"]),
            quant_info=QuantInfo(**parts["quant_info"]),
            file=self.file,
            explicit=frozenset(explicit),
            marks=self.marks,
        )
        found = tuple(self.section(key, at, node, settings) for key, at, node in sections)
        return settings.with_sections(found)

    def mix_parts(self, node: YamlNode) -> None:
        empty = node.kind == "list" and not node.items
        if not empty and not (node.kind == "plain" and node.scalar is None):
            raise self.error(node, "mix_parts must be []: per-layer settings are written as sections", "mix_parts")

    def operators(self, node: YamlNode) -> tuple[tuple[str, bool], ...]:
        rule = Rule("true (integers) or false (float)", lambda v: type(v) is bool)
        return tuple(
            (key, self.value(key, value, rule, "operators.")) for key, _, value in self.pairs(node, "operators")
        )

    def section(self, key: str, key_node: YamlNode, node: YamlNode, settings: Settings) -> Section:
        if len(key) > _MAX_KEY or not key:
            raise self.error(key_node, f"a section's key must have 1 to {_MAX_KEY} characters, got {len(key)}", key)
        self.suffix = f" (in section {shown(key)}, line {key_node.line})"
        self.marks[key] = (key_node.line, key_node.column)
        prefix = f"{shown(key)}."
        name: tuple[str, ...] = ()
        platform, open_quant = settings.platform, True
        own: dict[str, dict[str, Any]] = {"clamp_info": {}, "quant_info": {}}
        given = []
        for inner, inner_node, value_node in self.pairs(node, shown(key)):
            if inner == "name":
                name = self.names(prefix, value_node)
            elif inner == "platform":
                platform = self.value(inner, value_node, TOP[inner], prefix)
                given.append(inner)
            elif inner == "open_quant":
                open_quant = self.value(inner, value_node, TOP[inner], prefix)
                given.append(inner)
            elif inner in _SECTION_PARTS:
                own[inner] = self.part(inner, value_node, _SECTION_PARTS[inner], prefix)
                given += [f"{inner}.{k}" for k in own[inner]]
            else:
                raise self.unknown(inner, inner_node, ["name", "platform", "open_quant", *_SECTION_PARTS], prefix)
        self.suffix = ""
        return Section(
            key=key,
            name=name,
            clamp_info=ClampInfo(**own["clamp_info"]),
            quant_info=QuantInfo(**own["quant_info"]),
            platform=platform,
            given=tuple(given),
            open_quant=open_quant,
            line=key_node.line,
        )

    def names(self, prefix: str, node: YamlNode) -> tuple[str, ...]:
        expected = "a list of layer names, such as [encoder.layers.0, head*]"
        if node.kind != "list":
            got = "a mapping" if node.kind == "map" else describe(node.scalar)
            raise self.error(node, f"{prefix}name must be {expected}, got {got}", "name")
        if not node.items:
            raise self.error(node, f"{prefix}name must be {expected}, got an empty list", "name")
        for item in node.items:
            value: object = {"list": [], "map": {}}[item.kind] if item.kind in ("list", "map") else item.scalar
            if not isinstance(value, str):
                quotes = f'; a layer of that name needs quotes: "{item.value}"' if item.kind == "plain" else ""
                raise self.error(item, f"{prefix}name must be {expected}, got {describe(value)} in it{quotes}", "name")
            if not value:
                raise self.error(item, f"{prefix}name holds an empty string", "name")
        return tuple(str(item.value) for item in node.items)
