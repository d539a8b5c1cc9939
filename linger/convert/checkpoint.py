"""``linger.save`` and ``linger.load``: a checkpoint that knows what was done to its model."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from linger.files import replaced
from linger.quantizers import Quantizer

from .prepare import GATHER, check_whole, record_of
from .repeat_conversion import repeat_conversion
from .state import StateDict, inner_state, only_tensors, read_file, strip_wrappers, told_by_translators

__all__ = ["LoadReport", "load", "load_report", "save"]

_OPERATOR = "_linger_qtensor_"
_FORMAT = 1
_REPORT = "_linger_load_report"  # in the __dict__ of the model that was loaded
_M = TypeVar("_M", bound=nn.Module)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def save(model: nn.Module, path: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a converted model's state together with its settings, so that :func:`load` can rebuild it from a float model.

    The file is an ordinary one of ``torch.save`` and holds no code: tensors and plain data, readable with
    ``torch.load(path, weights_only=True)``; ``model.load_state_dict(path)`` of a converted model takes it too. It appears
    complete or not at all.

    Args:
        model: A model of ``linger.constrain`` or ``linger.init`` (or one that contains such a model), wrapped or not.
        path: Path or writable binary object.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: Nothing in the model has been converted.
        UnsupportedError: Its parameters are spread over several processes (FSDP).

    Example:
        >>> import io, torch, linger
        >>> model, file = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 2))), io.BytesIO()
        >>> linger.save(model, file)
        >>> position = file.seek(0)
        >>> same = linger.load(torch.nn.Sequential(torch.nn.Linear(4, 2)), file)

    Source: ours.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"save: model must be a torch.nn.Module, got {type(model).__name__}")
    model = _unwrapped(model)
    check_whole(model, "save", GATHER)
    parts = {name: record.metadata() for name, m in model.named_modules() if (record := record_of(m)) is not None}
    if not parts:
        raise ValueError(
            "save: the model was not converted by linger.constrain or linger.init; torch.save(model.state_dict(), path) is "
            "all that a float model needs"
        )
    content = {"state_dict": model.state_dict(), "linger": {"format": _FORMAT, "parts": parts}}
    if not isinstance(path, (str, os.PathLike)):
        torch.save(content, path)
        return
    with replaced(path) as file:
        torch.save(content, file)


@dataclass
class LoadReport:
    """What :func:`load` did, by :func:`load_report`; prints as a list of sentences.

    Attributes:
        source: The file.
        did: One sentence per step, in order.
        missing: Keys of the model that the file lacks (only with ``strict=False``).
        unexpected: Keys of the file that the model lacks (only with ``strict=False``).
        without_data: Quantizers that have seen no data: train or calibrate before export.
    """

    source: str
    did: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    without_data: list[str] = field(default_factory=list)

    def _lines(self) -> list[str]:
        lists = [
            ("missing keys", self.missing),
            ("unexpected keys", self.unexpected),
            ("quantizers without data", self.without_data),
        ]
        return self.did + [f"{what}: {', '.join(names)}" for what, names in lists if names]

    def __str__(self) -> str:
        return "\n".join([f"linger.load {self.source}", *(f"- {line}" for line in self._lines())])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self._lines())
        return f"<p>linger.load {html.escape(self.source)}</p><ul>{lines}</ul>"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def load(model: _M, path: str | os.PathLike[str] | BinaryIO, *, strict: bool = True) -> _M:
    """Load a checkpoint into a model, whatever stage each of them is in.

    Takes files of :func:`save` and of ``torch.save``: state dictionaries, dictionaries that hold one, keys with the prefixes
    of DataParallel and ``torch.compile``. A model that is not as far as the checkpoint (float, or constrained for a
    quantized checkpoint) is converted first, with the settings, fusions and exceptions recorded in it. No code in the file
    is run (``weights_only``). :func:`load_report` says afterwards what was done.

    Args:
        model: Changed in place and returned; wrapped or not (a model that has to be converted must not be wrapped yet).
        path: Path or readable binary object.
        strict: Missing and unexpected keys are errors, except those of quantizers; False lists them in the report.

    Returns:
        ``model``, the object that was given.

    Raises:
        TypeError: The file holds no state dictionary; ``model`` is no module, or wrapped and not yet converted.
        ValueError: The file is no checkpoint, or holds code; the record names modules that this model lacks.
        RuntimeError: Keys or shapes do not fit; the message names the nearest keys.

    Source: ours.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"load: model must be a torch.nn.Module, got {type(model).__name__}; the order is load(model, path)"
        )
    report = LoadReport(repr(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else type(path).__name__)
    target = _unwrapped(model)
    device = next((p.device for p in target.parameters()), None)
    content = read_file(path, device)
    state, parts = _open(content, report)
    for name, recorded in sorted(parts.items()):
        _convert(model, target, name, recorded, report)
    _fill(target, state, strict, report)
    target.__dict__[_REPORT] = report
    return model


def load_report(model: nn.Module) -> LoadReport:
    """What the last :func:`load` into this model did.

    Args:
        model: What was given to :func:`load`, wrapped or not.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: Nothing was loaded into it by :func:`load`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"load_report: model must be a torch.nn.Module, got {type(model).__name__}")
    report = _unwrapped(model).__dict__.get(_REPORT)
    if not isinstance(report, LoadReport):
        raise ValueError("load_report: linger.load has loaded nothing into this model")
    return report


def _open(content: Any, report: LoadReport) -> tuple[Mapping[str, Any], dict[str, Mapping[str, Any]]]:
    """The state dictionary in a file, without wrappers' prefixes, and the records of its converted parts by name."""
    if not isinstance(content, Mapping):
        raise TypeError(f"load: {report.source} holds no state dictionary but {type(content).__name__}")
    recorded = content.get("linger")
    own = recorded.get("parts") if isinstance(recorded, Mapping) else None
    nested, key = inner_state(content)
    only_tensors(nested)
    if key is not None and own is None:
        report.did.append(f"took the state under the key {key!r}")
    state = strip_wrappers(nested)
    removed = len(next(iter(nested), "")) - len(next(iter(state), ""))
    if removed:
        report.did.append(f"removed the prefix {next(iter(nested))[:removed]!r}")
    metadata = getattr(state, "_metadata", None) or {}
    parts = {k: v["linger"] for k, v in metadata.items() if isinstance(v, Mapping) and "linger" in v}
    if isinstance(own, Mapping):
        metadata = {k: dict(v) for k, v in metadata.items()}
        for name, record in own.items():
            metadata.setdefault(str(name), {}).setdefault("linger", record)
            parts.setdefault(str(name), record)
        state = StateDict(state)
        state._metadata = metadata
    if not parts:
        report.did.append("the file carries no record of linger: a float checkpoint, or its metadata was dropped")
    return state, {k: v for k, v in parts.items() if isinstance(v, Mapping)}


def _convert(model: nn.Module, target: nn.Module, name: str, recorded: Mapping[str, Any], report: LoadReport) -> None:
    what = f"{name!r}" if name else "the model"
    report.did.append(
        f"the checkpoint of {what} is of stage {recorded.get('stage')}: platform {recorded.get('platform')}, "
        f"{recorded.get('qat_method')}"
    )
    try:
        part = target.get_submodule(name)
    except AttributeError:
        raise ValueError(f"load: the checkpoint was made of another model: {name!r} is no module of this one") from None
    stage = repeat_conversion(part, recorded)
    if stage is None:
        return
    if model is not target:
        raise TypeError(f"load: load before wrapping the model in {type(model).__name__}: it had to be converted first")
    report.did.append(f"converted {what} with the recorded settings (linger.{stage})")


def _fill(target: nn.Module, state: Mapping[str, Any], strict: bool, report: LoadReport) -> None:
    before = {n for n, _ in target.named_modules()}
    told_by_translators(target)  # of an earlier file
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = target.load_state_dict(state, strict=strict)
    report.did += told_by_translators(target)
    for w in caught:
        report.did.append(str(w.message))
        warnings.warn(w.message, stacklevel=4)
    report.missing, report.unexpected = list(result.missing_keys), list(result.unexpected_keys)
    made = [n for n, _ in target.named_modules() if n not in before and n.rpartition(".")[2].startswith(_OPERATOR)]
    if made:
        report.did.append(f"created {len(made)} operators of user code: {', '.join(made)}")
    tensors = sum(isinstance(v, Tensor) for v in state.values())
    report.did.append(f"loaded {tensors - len(report.unexpected)} tensors")
    report.without_data = [
        n
        for n, m in target.named_modules()
        if isinstance(m, Quantizer)
        and m.role == "activation"
        and n.rpartition(".")[2] == "output_quantizer"
        and not m.ready
    ]
