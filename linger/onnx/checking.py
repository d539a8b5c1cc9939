"""``linger.check``: everything that a chip cannot do with a model, at once, with what helps."""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from torch import nn

from linger.chip import FLOAT, Violation, engine_of, file_platform, limits_of
from linger.convert.dry_run import dry_run
from linger.convert.findings import findings, follow, layer_findings
from linger.convert.neighbours_from_forward import bind_inputs
from linger.convert.report import html_table
from linger.errors import ExportError, ModelError, UnsupportedError
from linger.runtime import Tape

from .engine import rewrite
from .export import record_forward
from .float_findings import float_inputs, float_nodes, float_operator, island
from .graph_facts import graph_facts, ports
from .loader import load
from .runner import OnnxRunner
from .serialise import live_nodes

__all__ = ["CheckReport", "check"]

_HEAD = ("layer", "severity", "finding", "helps")
_WIDTH = 100
_RANKS = {"error": 0, "warning": 1, "note": 2}
_PARTIAL = "only layers were looked at; pass example_inputs to have every operator and size looked at"


@dataclass(frozen=True)
class CheckReport:
    """What ``linger.check`` found; true where ``ok`` is, prints as a table, iterates over its findings.

    Attributes:
        platform: The chip.
        findings: Errors first, then warnings, each in the order of the model.
        notes: Sentences about the check itself.
    """

    platform: str
    findings: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the chip runs the model as it was trained: no errors."""
        return not self.errors

    @property
    def errors(self) -> list[Violation]:
        """What is refused, or wrong on the chip."""
        return [v for v in self.findings if v.severity == "error"]

    @property
    def warnings(self) -> list[Violation]:
        """What depends on the data."""
        return [v for v in self.findings if v.severity == "warning"]

    @property
    def options(self) -> list[str]:
        """What the packer needs beside its defaults, each once."""
        return list(dict.fromkeys(v.pack for v in self.findings if v.pack))

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[Violation]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def _title(self) -> str:
        return f"linger.check, {self.platform}: {len(self.errors)} error(s), {len(self.warnings)} warning(s)"

    def _groups(self) -> dict[str, list[Violation]]:
        """The findings by layer, each once: layers that share one are named together, values of one kind, too."""
        layers: dict[Violation, list[str]] = {}
        for v in self.findings:
            layers.setdefault(replace(v, layer="", operator="", pack=""), []).append(v.layer or "(root)")
        kinds: dict[tuple[str, Violation], list[str]] = {}
        for v, names in layers.items():
            kinds.setdefault((", ".join(dict.fromkeys(names)), replace(v, value="")), []).append(v.value)
        groups: dict[str, list[Violation]] = {}
        for (shared, v), values in kinds.items():
            groups.setdefault(shared, []).append(replace(v, value=", ".join(filter(None, values))))
        return groups

    def __str__(self) -> str:
        lines = [self._title()]
        for names, found in self._groups().items():
            lines += ["", *_wrapped(names, "", "  ")]
            for v in found:
                lines += _wrapped(f"{v.severity:<8} {v.sentence()}", "  ", " " * 11)
                lines += _wrapped(f"helps: {v.remedy}", " " * 11, " " * 11) if v.remedy else []
        return "\n".join([*lines, *([""] if self.findings and self.notes else []), *self.notes])

    def _repr_html_(self) -> str:
        rows: list[tuple[str, ...]] = [
            (names if not i else "", v.severity, v.sentence(), v.remedy)
            for names, found in self._groups().items()
            for i, v in enumerate(found)
        ]
        table = html_table(_HEAD, rows) if rows else ""
        return "".join(f"<p>{html.escape(t)}</p>" for t in (self._title(), *self.notes)) + table

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        rows = [v.to_dict() for v in self.findings]
        plain = {"platform": self.platform, "ok": self.ok, "findings": rows, "notes": list(self.notes)}
        return plain | {"options": self.options}


def check(
    model: nn.Module | str | os.PathLike[str] | bytes,
    platform: str | Enum | None = None,
    example_inputs: Any = None,
    engine: str | None = None,
) -> CheckReport:
    """Everything that a chip refuses, computes otherwise or leaves to float, at once.

    The same rules make ``linger.onnx.export`` refuse a model and ``linger.init`` warn. The model, its statistics and the
    random states stay as they are: a copy is converted and run once.

    Args:
        model: A float, constrained or initialised model, or an exported file (its path or bytes).
        platform: ``arcs``, ``mars``, ``venusA`` or ``venus``, or that member of ``linger.settings.PlatForm``; None: the
            model's, or that of the current configuration.
        example_inputs: A tensor, a tuple or a dict of keyword arguments, as the chip will see them (batch 1). Without them
            only the layers themselves are looked at, not the operators between them. Files need none.
        engine: Release of the engine, ``562ddc7`` (the shipped one) or ``later``; None: the model's or the file's.

    Returns:
        A report: ``.ok``, ``.errors``, ``.warnings``, ``.to_dict()``; iterates over the findings, prints as a table. Each
        finding names layer, property, value, limit and what helps. An error is refused or wrong on the chip, a warning
        depends on the data, a note may name an option of the packer. ``ok`` means: the engine returns the integers of
        ``OnnxRunner``, packed with the packer's defaults and the options of ``.options``.

    Raises:
        ValueError: An unknown platform or engine; inputs on which the model does not run; a model that cannot be copied; a
            file for another platform.
        TypeError: ``model`` is neither a module nor a file, ``platform`` no name.
        RuntimeError: A part of the model is initialised, the model is not.
        ModelError: The file cannot be read.

    Example:
        >>> import torch, linger
        >>> print(linger.check(torch.nn.Conv2d(1, 2, 3, 3), "venus").findings[0])
        (root): stride 3, the chip takes one of (1, 2, 4) (a stride of 1, 2 or 4, or a pooling behind the layer)

    Source: docs/numerics.md, "Chips".
    """
    if isinstance(platform, Enum):
        platform = platform.name
    if platform is not None:
        if not isinstance(platform, str):
            raise TypeError(
                f"check: platform must be a chip's name, got {type(platform).__name__}; the order is "
                "check(model, platform, example_inputs)"
            )
        limits_of(platform)
    if engine is not None:
        engine_of(engine, platform or "arcs")
    if not isinstance(model, nn.Module):
        return _file(model, platform, engine)
    with dry_run(model, platform, example_inputs, engine) as (twin, settings):
        chip, release = settings.platform, settings.engine
        if example_inputs is None:
            return _report(chip, layer_findings(twin, chip, release), _PARTIAL)
        return _report(chip, _recorded(twin, chip, release, example_inputs))


def _wrapped(text: str, first: str, further: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=further, break_on_hyphens=False)


def _report(platform: str, found: list[Violation], *notes: str) -> CheckReport:
    ranked = sorted(dict.fromkeys(found), key=lambda v: _RANKS[v.severity])
    return CheckReport(platform, tuple(ranked), notes)


def _recorded(model: nn.Module, platform: str, engine: str | None, example_inputs: Any) -> list[Violation]:
    from .write_float import write_float  # its tables are only needed here

    tape = Tape(file_platform(platform), write_float)
    tape.parameters = {id(t): n for n, t in [*model.named_parameters(), *model.named_buffers()]}
    layers = {name for name, _ in model.named_modules()}
    args, kwargs = bind_inputs(model, example_inputs)
    try:
        inputs, outputs = record_forward(model, (*args, kwargs) if kwargs else args, tape, [], [])
    except (ExportError, UnsupportedError) as error:
        broken = Violation("(model)", "no form in a file", "", str(error), "", "error", True)
        return [*findings(tape, tape.nodes, (), layers, platform, engine), broken]
    except Exception as error:
        raise ValueError(f"check: the model does not run on example_inputs: {type(error).__name__}: {error}") from error
    names = {p.name for p in outputs}
    tape.nodes = live_nodes(tape, names)
    rewrite(tape, names, engine)
    floats = [float_operator(n, platform) for n in float_nodes(tape.nodes, float_inputs(inputs, tape))]
    return findings(tape, tape.nodes, names, layers, platform, engine) + floats


def _file(source: Any, platform: str | None, engine: str | None) -> CheckReport:
    """The findings of a file, whoever wrote it."""
    if not isinstance(source, (str, os.PathLike, bytes)):
        raise TypeError(f"check: model must be a torch.nn.Module or a file, got {type(source).__name__}")
    graph = load(source)
    if platform is not None and file_platform(platform) != graph.platform:
        raise ValueError(f"check: the file is written for {graph.platform}, not for {platform}")
    try:
        found = follow(*graph_facts(graph), engine=engine or graph.engine)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:  # attributes of the wrong kind or length
        said = f"{type(error).__name__}: {error}"
        found = [Violation("(file)", "the attributes of a node make no sense", "", said, "export the model again")]
    floats = {name for name, port in ports(graph).items() if port.bits == FLOAT}
    found += [island(n.name, n.op_type, "its data are float") for n in float_nodes(graph.nodes, floats)]
    try:
        OnnxRunner(source)
    except ModelError as error:
        found.append(Violation("(file)", "the runner refuses it", "", str(error), "export the model again"))
    return _report(graph.platform, found)
