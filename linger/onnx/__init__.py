"""Files for the chips: ``export`` writes them, ``OnnxRunner`` executes them with the same kernels as the layers."""

from __future__ import annotations

from linger.errors import ExportError, ModelError

from .checking import CheckReport, check
from .export import export
from .metadata import fingerprint
from .pack_report import PackReport, pack_report
from .proof import Proof
from .prove import prove
from .runner import OnnxRunner
from .standard import to_linger3, to_qdq, to_standard

__all__ = [
    "CheckReport",
    "ExportError",
    "ModelError",
    "OnnxRunner",
    "PackReport",
    "Proof",
    "check",
    "export",
    "fingerprint",
    "pack_report",
    "prove",
    "to_linger3",
    "to_qdq",
    "to_standard",
]
