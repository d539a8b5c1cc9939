"""The process-wide configuration as the mutable object that scripts for 3.x use."""

from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from typing import Any

from linger.settings import store
from linger.settings.schema import ClampInfo, QuantInfo, Settings

__all__ = ["QUANT_CONFIGS", "ConfigView", "PartView"]

_PARTS: Mapping[str, type[ClampInfo | QuantInfo]] = {"clamp_info": ClampInfo, "quant_info": QuantInfo}
_KEYS = tuple(f.name for f in fields(Settings) if f.name not in ("sections", "file", "explicit", "marks"))
_SECTION_ONLY = ("input_bits", "output_bits")


def _plain(value: object) -> object:
    return value.name if isinstance(value, Enum) else value


class PartView:
    """`clamp_info` or `quant_info` of the current configuration; assignments are checked and take effect at once."""

    __slots__ = ("_part",)

    def __init__(self, part: str) -> None:
        object.__setattr__(self, "_part", part)

    def __dir__(self) -> list[str]:
        return [f.name for f in fields(_PARTS[self._part]) if f.name not in _SECTION_ONLY]

    def __getattr__(self, key: str) -> Any:
        if key not in dir(self):
            raise AttributeError(f"{self._part} has no {key!r}; it has {', '.join(dir(self))}")
        return getattr(getattr(store.current(), self._part), key)

    def __setattr__(self, key: str, value: object) -> None:
        if key not in dir(self):
            raise AttributeError(f"{self._part} has no {key!r}; it has {', '.join(dir(self))}")
        settings = store.current()
        part: Any = replace(getattr(settings, self._part), **{key: _plain(value)})
        changed: dict[str, Any] = {self._part: part}
        store.use(replace(settings, **changed))

    def __repr__(self) -> str:
        return f"{self._part}({', '.join(f'{key}={getattr(self, key)!r}' for key in dir(self))})"


class ConfigView:
    """The current configuration: attributes are the top-level keys of a file.

    Reading shows what calls without a ``config_file`` use; assigning is checked like a file (`ConfigError`) and
    never reaches models that exist already.
    """

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return list(_KEYS)

    def __getattr__(self, key: str) -> Any:
        if key not in _KEYS:
            raise AttributeError(f"the configuration has no {key!r}; it has {', '.join(_KEYS)}")
        if key == "mix_parts":
            return []
        if key == "operators":
            return dict(store.current().operators)
        return PartView(key) if key in _PARTS else getattr(store.current(), key)

    def __setattr__(self, key: str, value: object) -> None:
        if key not in _KEYS:
            raise AttributeError(f"the configuration has no {key!r}; it has {', '.join(_KEYS)}")
        if key in _PARTS:
            if isinstance(value, PartView):
                value = getattr(store.current(), key)
            elif isinstance(value, Mapping):
                values: dict[str, Any] = {name: _plain(item) for name, item in value.items()}
                value = _PARTS[key](**values)
        elif key == "operators":
            value = tuple(value.items()) if isinstance(value, Mapping) else value
        elif key == "mix_parts":
            if value:
                raise ValueError("mix_parts must stay empty: per-layer settings are written as sections of a file")
            value = ()
        changed: dict[str, Any] = {key: _plain(value)}
        store.use(replace(store.current(), **changed))

    def __repr__(self) -> str:
        return f"QUANT_CONFIGS({', '.join(f'{key}={getattr(self, key)!r}' for key in _KEYS)})"


QUANT_CONFIGS = ConfigView()
