"""Typed face of the native extension. The operators live in `torch.ops.linger`."""

from typing import Any, Final

__version__: Final[str]
CPU_FLAGS: Final[dict[str, int]]

class ConfigError(ValueError):
    file: str | None
    line: int | None
    column: int | None
    key: str | None

def config_error(
    what: str,
    /,
    *,
    file: str | None = None,
    line: int | None = None,
    column: int | None = None,
    key: str | None = None,
) -> ConfigError: ...
def load_yaml(text: str | bytes, /, *, file: str | None = None) -> tuple[str, Any, int, int]: ...
def yaml_scalar(text: str, /, *, quoted: bool = False) -> str: ...
def cpu_flags() -> int: ...
def set_cpu_mask(mask: int, /) -> int: ...
