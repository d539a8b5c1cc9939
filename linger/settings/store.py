"""Load and save files, and the configuration that calls without a file use."""

import os
import warnings

from linger.errors import ConfigError, config_error
from linger.files import replaced
from linger.settings.read import read
from linger.settings.rules import CLAMP, QUANT, TOP
from linger.settings.schema import Settings
from linger.settings.tree import write_scalar
from linger.settings.write import dumps, section_text

__all__ = ["config_save_to_yaml", "current", "defaults", "load", "loads", "save", "use"]

_MAX_BYTES = 1024 * 1024
_current: Settings | None = None  # the one process-wide value; models keep their own frozen copies


def defaults() -> Settings:
    """Return the settings of an empty file; `device` is cuda where CUDA is available, else cpu."""
    return Settings()


def current() -> Settings:
    """Return the process-wide settings: those given to `use` last, else the defaults."""
    global _current
    if _current is None:
        _current = defaults()
    return _current


def use(settings: Settings) -> None:
    """Make settings the process-wide ones. Models that exist already keep theirs."""
    if not isinstance(settings, Settings):
        raise TypeError(f"use: settings must be a linger.settings.Settings, got {type(settings).__name__}")
    global _current
    _current = settings


def loads(text: str | bytes, file: str | None = None) -> Settings:
    """Return the settings that a YAML text describes. `file` is the name used in messages.

    Raises:
        ConfigError: See `load`.
    """
    return read(text, file)


def load(path: str | os.PathLike[str]) -> Settings:
    """Return the settings in a YAML file. The process-wide settings stay as they are.

    Raises:
        ConfigError: The file is missing, unreadable or not UTF-8; it is not YAML; a key is unknown, duplicate or has
            a value of the wrong type or outside its set. The error names file, line, column, key and what is allowed.
    """
    file = os.fspath(path)
    if not isinstance(file, str):
        raise TypeError(f"load: path must be str or os.PathLike[str], got {type(path).__name__}")
    try:
        with open(file, "rb") as stream:
            text = stream.read(_MAX_BYTES + 1)  # one more byte than allowed: the parser then says so
    except FileNotFoundError as exc:
        what = "no such file; linger.config_save_to_yaml(path) writes one with all defaults"
        raise config_error(what, file=file) from exc
    except (OSError, ValueError) as exc:
        raise config_error(f"cannot be read: {getattr(exc, 'strerror', None) or exc}", file=file) from exc
    return loads(text, file)


def save(settings: Settings, path: str | os.PathLike[str]) -> None:
    """Write settings as YAML. The file appears complete or not at all; a link's target is replaced, not the link.

    Raises:
        OSError: The folder is missing or not writable.
    """
    with replaced(path) as stream:
        stream.write(dumps(settings).encode())


def config_save_to_yaml(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the current configuration as a YAML file with comments, ready to be edited.

    A file that exists is never touched: where its settings are others, one warning lists them and the file stays as it is.

    Args:
        path: Any path; without a folder it is in the current one.
        overwrite: Replace a file that exists.

    Raises:
        OSError: The folder is missing or not writable.

    Example:
        >>> linger.config_save_to_yaml("config.yaml")  # doctest: +SKIP
    """
    if overwrite or not os.path.isfile(path):
        save(current(), path)
        return
    file = os.fsdecode(path)
    try:
        found = differences(load(file), current())
    except ConfigError as error:
        what = f"linger: {file} exists, is no configuration ({error}) and stays as it is; overwrite=True replaces it"
        warnings.warn(what, stacklevel=2)
        return
    if found:
        listed = "\n  ".join(f"{key}: {theirs} / {ours}" for key, theirs, ours in found)
        what = f"linger: {file} exists and stays as it is; overwrite=True replaces it. Settings that differ (file / current):"
        warnings.warn(f"{what}\n  {listed}", stacklevel=2)


def differences(a: Settings, b: Settings) -> list[tuple[str, str, str]]:
    """The settings in which two configurations differ: dotted key, value in the first, value in the second, as YAML."""
    first, second = _flat(a), _flat(b)
    keys = [key for key in (first | second) if first.get(key) != second.get(key)]
    return [(key, first.get(key, "none"), second.get(key, "none")) for key in keys]


def _flat(settings: Settings) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key in TOP:
        flat[key] = write_scalar(getattr(settings, key))
    for part, keys in (("clamp_info", CLAMP), ("quant_info", QUANT)):
        flat |= {f"{part}.{key}": write_scalar(getattr(getattr(settings, part), key)) for key in keys}
    flat |= {f"operators.{name}": write_scalar(integers) for name, integers in settings.operators}
    for section in settings.sections:
        flat[f"section {section.key}"] = " ".join(section_text(section).partition(":\n")[2].split())
    if len(settings.sections) > 1:
        flat["order of sections"] = ", ".join(section.key for section in settings.sections)
    return flat
