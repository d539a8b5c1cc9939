"""The classic generation's tools for looking at weights and layers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linger.convert.state import open_checkpoint
from linger.files import replaced
from linger.runtime import info

_COLUMNS = ("Layer_name", "Mean", "Max", "Multiple(Max/Mean)", "Dynamic 0.99", "Versu(Max/Dynamic)")
_EXTREME = 10.0  # a largest value this many times the 99th percentile is marked


def _row(name: str, t: Tensor) -> tuple[str, ...]:
    flat = t.detach().abs().flatten().double()
    mean, top = float(flat.mean()), float(flat.max())
    dynamic = float(np.quantile(flat.numpy(), 0.99))
    ratios = (top / mean if mean else 0.0, top / dynamic if dynamic else 0.0)
    return (name, *(f"{v:.6g}" for v in (mean, top, ratios[0], dynamic, ratios[1])))


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(r[i]) for r in [_COLUMNS, *rows]) for i in range(len(_COLUMNS))]
    lines = []
    for row in [_COLUMNS, *rows]:
        lines.append("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
        if row is not _COLUMNS and float(row[-1]) > _EXTREME:
            lines.append("!" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(lines) + "\n"


def wb_analyse(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    save_log_path: str | os.PathLike[str] = "wb_analyse.log",
) -> str:
    """Size and spread of every parameter of a checkpoint as a table; a row of ``!`` follows where a few values stand out.

    Args:
        path_or_state_dict: A state dictionary, or a file that holds one; no code in it is run.
        save_log_path: Where the table is written.

    Returns:
        The table.

    Raises:
        TypeError, ValueError: No state dictionary.
        OSError: The file cannot be read or written.
    """
    state = open_checkpoint(path_or_state_dict, None)
    rows = [_row(n, t) for n, t in state.items() if isinstance(t, Tensor) and t.is_floating_point() and t.numel()]
    text = _table(rows)
    with replaced(save_log_path) as file:
        file.write(text.encode())
    return text


class Dumper:
    """Writes inputs and outputs of layers while it is active, or collects how they are spread.

    Example:
        >>> with linger.Dumper() as dumper:                         # doctest: +SKIP
        ...     dumper.enable_dump_quanted(model, path="./dump")
        ...     model(x)
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._outputs: dict[str, list[Tensor]] = {}

    def __enter__(self) -> Dumper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def enable_dump_quanted(self, model: nn.Module, path: str = "./dump", match_pattern: str = ".*") -> None:
        """Write the integer codes of every quantized tensor that enters or leaves a matching layer as ``.npy`` files."""
        self._dump(model, path, match_pattern, codes=True)

    def enable_dump_model(self, model: nn.Module, path: str = "./dump", match_pattern: str = ".*") -> None:
        """Write the real values that enter and leave every matching layer as ``.npy`` files."""
        self._dump(model, path, match_pattern, codes=False)

    def analyse_layer_output(self, model: nn.Module, match_pattern: str = ".*") -> None:
        """Collect the outputs of matching layers for :meth:`save_out_analyse_log`."""

        def hook(name: str) -> Any:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                with torch._C.DisableTorchFunction():
                    for t in _tensors(output):
                        self._outputs.setdefault(name, []).append(t.detach().flatten().float().cpu())

            return keep

        for name, m in _layers(model, match_pattern):
            self._handles.append(m.register_forward_hook(hook(name)))

    def save_out_analyse_log(self, save_log_path: str | os.PathLike[str] = "Analyse_layer_output.log") -> str:
        """Write and return the table of the collected outputs (columns as in :func:`wb_analyse`)."""
        text = _table([_row(name, torch.cat(parts)) for name, parts in self._outputs.items()])
        with replaced(save_log_path) as file:
            file.write(text.encode())
        return text

    def _dump(self, model: nn.Module, path: str, pattern: str, codes: bool) -> None:
        os.makedirs(path, exist_ok=True)
        kind = "quanted" if codes else "float"

        def hook(name: str) -> Any:
            def write(module: nn.Module, args: Any, output: Any) -> None:
                with torch._C.DisableTorchFunction():
                    for where, values in (("input", args), ("output", output)):
                        for i, t in enumerate(_tensors(values)):
                            array = _array(t, codes)
                            if array is not None:
                                tail = "" if i == 0 else f"_{i}"
                                np.save(os.path.join(path, f"root.{name}_{where}_{kind}{tail}.npy"), array)

            return write

        for name, m in _layers(model, pattern):
            self._handles.append(m.register_forward_hook(hook(name)))


def _array(t: Tensor, codes: bool) -> np.ndarray[Any, Any] | None:
    if not codes:
        return np.asarray(t.detach().cpu().numpy())
    fmt = info(t)
    if fmt is None:
        return None
    return np.asarray(torch.round(t.detach().double() * fmt.scale.double()).to(torch.int32).cpu().numpy())


def _layers(model: nn.Module, pattern: str) -> Iterator[tuple[str, nn.Module]]:
    expression = re.compile(pattern)
    for name, m in model.named_modules():
        if name and expression.search(name) and not name.endswith("quantizer"):
            yield name, m


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
