"""Our files in standard ONNX operators, with the same integers."""

from __future__ import annotations

from .translate import to_standard

__all__ = ["to_standard"]
