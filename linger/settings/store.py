"""Load and save files, and the configuration that calls without a file use."""

import os

from linger.errors import config_error
from linger.files import replaced
from linger.settings.read import read
from linger.settings.schema import Settings
from linger.settings.write import dumps

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


def config_save_to_yaml(path: str | os.PathLike[str]) -> None:
    """Write the current configuration as a YAML file with comments, ready to be edited.

    Args:
        path: Any path; without a folder it is in the current one. An existing file is replaced.

    Raises:
        OSError: The folder is missing or not writable.

    Example:
        >>> linger.config_save_to_yaml("config.yaml")  # doctest: +SKIP
    """
    save(current(), path)
