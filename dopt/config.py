"""The JSON file of layer strategies, shared by both frameworks."""

from __future__ import annotations

import difflib
import json
import os
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "FLOAT",
    "INT8",
    "STRATEGIES",
    "ConfigError",
    "nearest",
    "quantized",
    "read",
    "replace",
    "warn_if_float",
    "write",
    "write_content",
]

INT8, FLOAT = "Quant_INT8-8", "float"
STRATEGIES = (FLOAT, INT8)


class ConfigError(ValueError):
    """A configuration that cannot be used; the text names the file and the line or the layer."""


def write(dst: str | os.PathLike[str], layers: Mapping[str, str], op_types: Iterable[str], **more: str) -> None:
    """Writes the template: every layer with strategy ``float``.

    Args:
        dst: The file; it is replaced.
        layers: Name of each layer and its type.
        op_types: The types that can be quantized.
        more: Further entries, as ``input_shape``.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    content: dict[str, Any] = {f"quant_strategy_for op '{op}'": [INT8] for op in op_types}
    content |= more
    content["layer_strategy"] = {n: {"op_type": op, "quant_strategy": FLOAT} for n, op in layers.items()}
    write_content(dst, content)


def write_content(dst: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a configuration as it stands.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    replace(Path(dst), json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def nearest(name: str, known: Iterable[str]) -> str:
    """What an error adds to a name that is not known."""
    near = difflib.get_close_matches(name, list(known), 1, 0.0)
    return f"; did you mean '{near[0]}'?" if near else ""


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: readers see the old one until it is complete.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder '{path.parent}' does not exist")
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def read(path: str | os.PathLike[str], layers: Mapping[str, str] | None) -> dict[str, Any]:
    """The file's content, checked against the layers (name -> op_type) of the model at hand; None: there is no model.

    Raises:
        ConfigError: No such file, no JSON, or a layer or strategy that the model does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file; generate_config_file(...) writes one")
    content = _parse(path)
    strategies = content.get("layer_strategy")
    if not isinstance(strategies, dict):
        raise ConfigError(f"{path}: 'layer_strategy' is missing; generate_config_file(...) writes a complete file")
    for name, entry in strategies.items():
        where = f"{path}: layer '{name}'"
        if layers is not None and name not in layers:
            near = nearest(name, layers) or "; the model has none"
            raise ConfigError(f"{where} is not a layer of the model that can be quantized{near}")
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: expected an object with op_type and quant_strategy, got {entry!r}")
        op_type = entry.get("op_type") if layers is None else layers[name]
        if entry.get("op_type", op_type) != op_type:
            raise ConfigError(f"{where}: op_type is {entry['op_type']!r}, the model's layer is {op_type!r}")
        strategy = entry.get("quant_strategy")
        if not isinstance(strategy, str) or strategy not in STRATEGIES:
            raise ConfigError(
                f"{where}: quant_strategy {strategy!r} is not one of {', '.join(map(repr, STRATEGIES))}, "
                f"which {op_type} layers can have"
            )
    return content


def quantized(content: Mapping[str, Any]) -> list[str]:
    """Names of the layers to quantize, in the file's order."""
    return [n for n, e in content["layer_strategy"].items() if e["quant_strategy"] == INT8]


def warn_if_float(path: str | os.PathLike[str], names: list[str]) -> None:
    """Says so when a file quantizes nothing: the template, for one, does not."""
    if not names:
        warnings.warn(f"{path}: no layer has the strategy '{INT8}'; the model stays in float", stacklevel=3)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not a UTF-8 text file: {e.reason} at byte {e.start}") from None
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except json.JSONDecodeError as e:
        raise ConfigError(_explained(path, text, e)) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [k for k, _ in pairs if k != "//"]
    if len(set(keys)) != len(keys):
        twice = next(k for k in keys if keys.count(k) > 1)
        raise ConfigError(f"{path}: '{twice}' occurs twice in one object")
    return dict(pairs)


def _explained(path: Path, text: str, e: json.JSONDecodeError) -> str:
    """What is wrong, where, and what to write instead."""
    at = _stop(text, e.pos)
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    where = f"{path}, line {line}, column {column}"
    sign, ascii_sign = text[at : at + 1], _ascii(text[at : at + 1])
    if ascii_sign is not None:
        return f"{where}: full-width sign '{sign}' (U+{ord(sign):04X}); write '{ascii_sign}'"
    if text.startswith("...", at):
        return f"{where}: '...' stands for more layers in the document; generate_config_file(...) writes them all"
    before = text[:at].rstrip()
    if sign in ("}", "]") and before.endswith(","):
        line = text.count("\n", 0, len(before)) + 1
        return f"{path}, line {line}: a comma before '{sign}', which JSON does not allow; remove it"
    return f"{where}: {e.msg}"


def _stop(text: str, pos: int) -> int:
    """The sign that stopped the parser: at pos, or the one before or after blanks that it speaks of."""
    for at in (pos, pos - 1):
        if 0 <= at < len(text) and _ascii(text[at]) is not None:
            return at
    while pos < len(text) and (text[pos] in " \t\r\n" or (text[pos] == "," and _closes(text, pos + 1))):
        pos += 1
    return pos


def _closes(text: str, pos: int) -> bool:
    return text[pos:].lstrip()[:1] in ("}", "]")


def _ascii(sign: str) -> str | None:
    """The sign of JSON that a full-width one stands for."""
    if sign in ("\u201c", "\u201d", "\u201e", "\u300c", "\u300d"):
        return '"'
    if sign == "\u3001":
        return ","
    plain = unicodedata.normalize("NFKC", sign)
    return plain if plain != sign and plain in tuple(',:{}[]"') else None
