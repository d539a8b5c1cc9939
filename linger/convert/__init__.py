"""From a user's model to a constrained or quantized one, and what is told about it."""

from __future__ import annotations

from .constrain import constrain
from .prepare import Record, record_of
from .quantize import init
from .report import Report, Row, Summary, report_of, summary
from .trace import CheckpointAdapter, trace_layers

__all__ = [
    "CheckpointAdapter",
    "Record",
    "Report",
    "Row",
    "Summary",
    "constrain",
    "init",
    "record_of",
    "report_of",
    "summary",
    "trace_layers",
]
