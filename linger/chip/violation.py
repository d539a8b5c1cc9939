"""One finding about a layer and a chip."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Violation:
    """One limit that a layer breaks, or one hazard that it meets.

    Args:
        layer: Qualified name.
        what: The property, e.g. ``"kernel"``.
        value: What the layer has.
        limit: What the chip takes; a sentence where it is no limit: a hazard, or an operator that does not work.
        remedy: What helps.
        severity: ``"error"``: the file is refused or wrong on the chip (on the published engine, where revisions differ).
            ``"warning"``: it depends on the data. ``"note"``: right, with the option of ``pack`` where there is one.
        refused: ``linger.onnx.export`` refuses to write the file.
        operator: Operator of the node; empty where no node exists.
        pack: Option that the packer needs for the file.
    """

    layer: str
    what: str
    value: str
    limit: str
    remedy: str = ""
    severity: Severity = "error"
    refused: bool = True
    operator: str = ""
    pack: str = ""

    def sentence(self) -> str:
        """What was found, without the layer and what helps."""
        text = f"{self.what} {self.value}".rstrip()
        plain = self.refused and self.severity == "error" and self.what != "operator"
        return text + (f", the chip takes {self.limit}" if plain else f": {self.limit}")

    def __str__(self) -> str:
        text = f"{self.layer or '(root)'}: {self.sentence()}"
        return f"{text} ({self.remedy})" if self.remedy else text

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)
