"""Measuring a quantized model against its float form, and what is told about it."""

from __future__ import annotations

from .diagnosis import Diagnosis, diagnose
from .drift import Drift, DriftReport, compare_stats
from .findings import Finding
from .measure import measure
from .rows import Measurement, OperandRow, Row, WeightRow

__all__ = [
    "Diagnosis",
    "Drift",
    "DriftReport",
    "Finding",
    "Measurement",
    "OperandRow",
    "Row",
    "WeightRow",
    "compare_stats",
    "diagnose",
    "measure",
]
