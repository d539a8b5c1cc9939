"""Our files for other tools: standard operators with the same integers, QDQ, the names of 3.x."""

from __future__ import annotations

from .linger3 import to_linger3
from .qdq import to_qdq
from .translate import to_standard

TARGETS = {"standard": to_standard, "qdq": to_qdq, "linger3": to_linger3}
"""What ``linger.onnx.export(target=...)`` writes beside our own form, ``linger``."""

__all__ = ["TARGETS", "to_linger3", "to_qdq", "to_standard"]
