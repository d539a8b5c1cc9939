"""Evaluation, ``OnnxRunner`` and onnxruntime on the same inputs, integer for integer: what a proof is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linger.convert.report import format_table, html_table
from linger.files import replaced
from linger.runtime import info

from .arguments import arguments, copied, tensors_in
from .runner import OnnxRunner
from .standard import to_standard

__all__ = ["Proof", "ProofRow", "compare", "prove_written"]

Array = np.ndarray[Any, np.dtype[Any]]
_HEAD = ("output", "elements", "evaluation", "onnxruntime")


@dataclass(frozen=True)
class ProofRow:
    """One output, as ``OnnxRunner`` computes it, against the others.

    Attributes:
        output: Name in the file.
        elements: How many it has.
        evaluation: Elements that the model's evaluation has otherwise; None: no model was given.
        onnxruntime: Integers that the translated file has otherwise in onnxruntime.
        distance: Of an output that is float to the end: the largest difference in onnxruntime, which rounds floats otherwise.
    """

    output: str
    elements: int
    evaluation: int | None
    onnxruntime: int
    distance: float | None = None

    def cells(self) -> tuple[str, ...]:
        evaluation = "-" if self.evaluation is None else f"{self.evaluation} differ"
        runtime = f"{self.onnxruntime} differ" if self.distance is None else f"float, within {self.distance:.1e}"
        return self.output, str(self.elements), evaluation, runtime


@dataclass(frozen=True)
class Proof:
    """How many integers differ between evaluation, ``OnnxRunner`` and onnxruntime; prints as a table.

    Attributes:
        rows: One per output.
    """

    rows: tuple[ProofRow, ...]

    @property
    def differing(self) -> int:
        """Integers that are not the same everywhere."""
        return sum((row.evaluation or 0) + row.onnxruntime for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether all integers are the same everywhere."""
        return self.differing == 0

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        elements = sum(row.elements for row in self.rows)
        said = (
            f"{self.differing} of {elements} integers differ"
            if self.differing
            else f"all {elements} integers are the same"
        )
        return f"{format_table(_HEAD, [row.cells() for row in self.rows])}\n{said}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"differing": self.differing, "outputs": [asdict(row) for row in self.rows]}

    def _repr_html_(self) -> str:
        return html_table(_HEAD, [row.cells() for row in self.rows])


def prove_written(
    model: nn.Module, args: Any, data: bytes, path: str | os.PathLike[str] | None = None, kwargs: Any = None
) -> Proof:
    """A model and the bytes that it has been exported to."""
    given: list[Tensor] = []

    def note(t: Tensor) -> Tensor:
        given.append(t)
        return t

    positional, keywords = (copied(part, note) for part in arguments(model, args, kwargs))
    inputs = [t.detach().cpu().numpy() for t in given]
    training = {m: m.training for m in model.modules()}
    try:
        with torch.no_grad():
            results = list(tensors_in(model.eval()(*positional, **keywords)))
    finally:
        for module, flag in training.items():
            module.training = flag
    return compare(data, inputs, results, path)


def compare(source: Any, inputs: Any, evaluated: list[Tensor] | None, path: str | os.PathLike[str] | None) -> Proof:
    """A file in the runner and in onnxruntime, beside the results of an evaluation."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ModuleNotFoundError as exc:
        raise ImportError("prove runs files in onnxruntime, which is not installed: pip install onnxruntime") from exc
    runner, standard = OnnxRunner(source), to_standard(source, outputs="codes")
    if path is not None:
        with replaced(path) as file:
            file.write(to_standard(source).SerializeToString(deterministic=True))
    named = inputs if isinstance(inputs, Mapping) else dict(zip(runner.inputs, _listed(inputs), strict=True))
    named = {name: _array(value) for name, value in named.items()}
    floats, codes = runner.run(named), runner.run(named, integers=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(standard.SerializeToString(), options, providers=["CPUExecutionProvider"])
    others = dict(zip(runner.outputs, session.run(list(runner.outputs), named), strict=True))
    rows = []
    for i, name in enumerate(runner.outputs):
        own, other = codes[name], others[name]
        differing = None if evaluated is None else _differing_values(evaluated[i], floats[name])
        if own.dtype.kind == "f":
            distance = float(np.nan_to_num(np.abs(own - other)).max(initial=0))
            rows.append(ProofRow(name, own.size, differing, 0, distance))
        else:
            rows.append(ProofRow(name, own.size, differing, int(np.sum(own != other))))
    return Proof(tuple(rows))


def _listed(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _array(value: Any) -> Array:
    array: Array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _differing_values(t: Tensor, own: Array) -> int:
    """Elements of an output that evaluation has otherwise; integers of a file against those of the tensor's format."""
    fmt, value = info(t), t.detach().cpu().double().numpy()
    if own.dtype.kind != "f" and fmt is not None:
        value = value * float(fmt.scale)
    return int(np.sum((value != own) & ~((value != value) & (own != own))))
