"""What the packer needs for a file: options, and what it will not run, beside the file and in its metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from linger.chip import SHIPPED, Violation
from linger.convert.findings import sentences
from linger.files import replaced

_HEAD = "# How to pack"
_ERRORS = "What this engine does not compute as linger.onnx.OnnxRunner does:"
_NOTES = "Why:"


@dataclass(frozen=True)
class Packing:
    """How a file is packed.

    Args:
        platform: Chip, as files spell it.
        engine: Release of the engine.
        options: Of the packer, without which the file does not run.
        notes: One sentence for each of their causes.
        errors: One sentence for each thing that the engine does not compute.
    """

    platform: str
    engine: str
    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def metadata(self) -> dict[str, str]:
        """For the file itself."""
        lines = {
            "linger.engine": self.engine,
            "linger.pack": " ".join(self.options),
            "linger.errors": "\n".join(self.errors),
        }
        return {key: text for key, text in lines.items() if text}

    def text(self, name: str, before: str = "", after: str = "") -> str:
        """Content of ``<name>.pack.txt``; ``before`` and ``after`` are the files that the application runs around it."""
        lines = [f"{_HEAD} {name} for {self.platform}, engine {self.engine}. Written by linger.onnx.export."]
        lines += ["# Options of the packer, beside its defaults:", " ".join(self.options)] if self.options else []
        for title, sentences_of in ((_NOTES, self.notes), (_ERRORS, self.errors)):
            lines += ["", f"# {title}", *(f"# - {line}" for line in sentences_of)] if sentences_of else []
        if before or after:
            order = " -> ".join(filter(None, (before, name, after)))
            lines += [
                "",
                f"# The application runs {order}: outputs of one are inputs, of the same names, of the next.",
                "# Only the file that this one is named after is packed; the others are float, in standard operators.",
            ]
        return "\n".join(lines) + "\n"


def packing(
    platform: str, engine: str | None, found: Iterable[Violation], symbols: Mapping[str, Sequence[int]] | None = None
) -> Packing:
    """What the findings about a file ask of the packer.

    Args:
        platform: Chip, as files spell it.
        engine: Release of the engine; None: the shipped one.
        found: Findings of the rules.
        symbols: Names of open axes -> smallest and largest size, and their step.
    """
    found = list(found)
    notes = [v for v in found if v.pack]
    options = [v.pack for v in notes]
    said = sentences(notes)
    if symbols:
        ranges = ",".join(f"{name}={':'.join(map(str, sizes))}" for name, sizes in symbols.items())
        options.append(f"--dynamic_shape {ranges}")
        said.append(f"open axes: {', '.join(symbols)}: the chips compute one sample; the application runs the others")
    errors = sentences(v for v in found if v.severity == "error")
    return Packing(platform, engine or SHIPPED, tuple(dict.fromkeys(options)), tuple(said), tuple(errors))


def path_beside(f: str | os.PathLike[str]) -> Path:
    """``model.onnx`` -> ``model.pack.txt``."""
    path = Path(os.fsdecode(f))
    return path.with_name(f"{path.name.removesuffix('.onnx')}.pack.txt")


def write_beside(f: str | os.PathLike[str], packed: Packing, before: str = "", after: str = "") -> None:
    """Write ``<name>.pack.txt`` where there is something to say; one that an earlier export wrote goes where there is not."""
    path = path_beside(f)
    if packed.options or packed.errors or before or after:
        with replaced(path) as file:
            file.write(packed.text(Path(os.fsdecode(f)).name, before, after).encode())
    elif path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(_HEAD):
        path.unlink()


__all__ = ["Packing", "packing", "path_beside", "write_beside"]
