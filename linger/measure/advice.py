"""The settings of all findings as the lines of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from linger.settings import ClampInfo, QuantInfo, Section, Settings, section_text

__all__ = ["in_words", "yaml_of"]


def in_words(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Settings in a line: ``output_bits: 16 (head)``."""
    groups: dict[str, list[str]] = {}
    for name, keys in sections.items():
        shown = ", ".join(f"{key.rpartition('.')[2]}: {_plain(value)}" for key, value in keys.items())
        groups.setdefault(shown, []).append(name)
    return "; ".join(f"{shown} for {', '.join(names)}" for shown, names in groups.items())


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def yaml_of(sections: Mapping[str, Mapping[str, Any]], settings: Settings) -> str:
    """The lines of a configuration, to stand in front of its other sections.

    Args:
        sections: Qualified name -> dotted key -> value.
        settings: What the model has: a section that covers a name hands its own keys on, since the first one that covers it
            is used alone.
    """
    groups: dict[tuple[Any, ...], tuple[Section, list[str]]] = {}
    for name, keys in sections.items():
        base = next((s for s in settings.sections if s.matches(name)), None)
        section = base or Section("", (name,), ClampInfo(), QuantInfo(), settings.platform)
        for dotted, value in keys.items():
            part, _, key = dotted.partition(".")
            now = replace(getattr(section, part), **{key: value}) if key else value
            changed: dict[str, Any] = {part: now}
            section = replace(section, **changed)
        section = replace(section, given=tuple({*section.given, *keys}))
        same = (section.clamp_info, section.quant_info, section.platform, section.open_quant, section.given)
        groups.setdefault(same, (section, []))[1].append(name)
    taken, text = {s.key for s in settings.sections}, []
    for section, names in groups.values():
        key = next(k for k in (f"diagnosed_{i}" for i in range(1, 10**6)) if k not in taken)
        taken.add(key)
        said = "" if section.open_quant is not False else "# in float: no chip runs what this section names"
        text.append(f"{said}{section_text(replace(section, key=key, name=tuple(names)))}")
    return "".join(text).lstrip("\n")
