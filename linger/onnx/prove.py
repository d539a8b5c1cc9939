"""``linger.onnx.prove``: a model or a file, in our runner and without our code."""

from __future__ import annotations

import io
import os
from typing import Any

from torch import nn

from .export import export
from .proof import Proof, compare, prove_written

__all__ = ["prove"]


def prove(
    model_or_file: nn.Module | str | os.PathLike[str] | bytes,
    inputs: Any,
    path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Proof:
    """Run evaluation, ``OnnxRunner`` and, translated by :func:`to_standard`, onnxruntime, and count the integers that differ.

    Args:
        model_or_file: A model that ``linger.init`` has returned, or a file that ``linger.onnx.export`` has written.
        inputs: Of a model: as ``args`` of ``linger.onnx.export``; of a file: as ``OnnxRunner.run`` takes them.
        path: Where the file in standard operators is kept, for others to run; None: nowhere.
        **options: Of ``linger.onnx.export``, for a model.

    Raises:
        ImportError: onnxruntime is missing.
        UnsupportedError: The file has no exact form in standard operators.
        ExportError, ModelError: The model or the file is refused.

    Example:
        >>> print(linger.onnx.prove(model, x, "standard.onnx"))  # doctest: +SKIP

    Source: docs/onnx.md.
    """
    if not isinstance(model_or_file, nn.Module):
        if options:
            raise TypeError(f"prove: {next(iter(options))!r} is an option of export; a file is written already")
        return compare(model_or_file, inputs, None, path)
    file = io.BytesIO()
    export(model_or_file, inputs, file, **options)
    return prove_written(model_or_file, inputs, file.getvalue(), path, options.get("kwargs"))
