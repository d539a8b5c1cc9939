"""The runner with the signature of the 3.x generation; ``linger.onnx.OnnxRunner`` is the one to use in new code."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from linger.onnx import runner as core
from linger.onnx.values import Value

__all__ = ["OnnxRunner"]

_FORMATS = {"quantized": "int", "int": "int", "float": "float", "all": "all"}


class OnnxRunner(core.OnnxRunner):
    """Runs a file, and writes what its nodes give where that is asked for.

    Args:
        model_path: Path of the ``.onnx`` file (``path`` is the same).
        dump: Write the result of every node as ``<dump_path>/<name>.npy`` in each ``run``. Files of the same names are
            replaced, others are left alone: nothing is ever deleted.
        dump_format: ``quantized`` or ``int``: codes; ``float``: real values; ``all``: both (``<name>_float.npy``).
        dump_path: Folder, made where it is missing.

    Raises:
        TypeError: No path, or two.
        ValueError: Another format.
        ModelError: The file is refused.
    """

    def __init__(
        self,
        model_path: Any = None,
        dump: bool = False,
        dump_format: str = "quantized",
        *,
        path: Any = None,
        dump_path: str | os.PathLike[str] = "data",
    ) -> None:
        if (model_path is None) == (path is None):
            raise TypeError("OnnxRunner: give the file once, as model_path or as path")
        if dump_format not in _FORMATS:
            raise ValueError(f"OnnxRunner: dump_format must be one of {', '.join(_FORMATS)}, got {dump_format!r}")
        self._dump = None
        super().__init__(path if model_path is None else model_path)
        self._dump = _FORMATS[dump_format] if dump else None
        self._folder = os.fspath(dump_path)

    def run(  # type: ignore[override]
        self, data: Any, special_key: str = "None", out_type: str = "list", integers: bool = False
    ) -> Any:
        """Execute the file.

        Args:
            data: As in ``linger.onnx.OnnxRunner.run``.
            special_key: Name of a graph output: only this one is returned; ``"None"``: all.
            out_type: ``list`` or ``dict``.
            integers: Codes instead of real values.

        Returns:
            Arrays in the order of the graph outputs, or by name; with ``special_key`` that array.

        Raises:
            ValueError: Another ``out_type``, or an output that the graph has not.
        """
        if out_type not in ("list", "dict"):
            raise ValueError(f"run: out_type must be 'list' or 'dict', got {out_type!r}")
        if special_key not in ("None", None) and special_key not in self.outputs:
            raise ValueError(f"run: special_key must be one of {', '.join(self.outputs)}, got {special_key!r}")
        found: Mapping[str, np.ndarray[Any, Any]] = super().run(data, integers)
        if special_key not in ("None", None):
            return found[special_key]
        return dict(found) if out_type == "dict" else list(found.values())

    def _made(self, name: str, value: Value) -> None:
        if self._dump is None:
            return
        os.makedirs(self._folder, exist_ok=True)
        stem = os.path.join(self._folder, re.sub(r"[^\w.-]", "_", name))
        codes = value.codes
        if self._dump in ("int", "all"):
            np.save(f"{stem}.npy", (value.tensor if codes is None else codes).numpy())
        if self._dump in ("float", "all"):
            suffix = "_float" if self._dump == "all" else ""
            real = value.tensor if codes is None or value.exp2 is None else codes.double() / 2.0**value.exp2
            np.save(f"{stem}{suffix}.npy", real.numpy())
