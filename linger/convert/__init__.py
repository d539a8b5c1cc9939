"""From a user's model to a constrained or quantized one, and what is told about it."""

from __future__ import annotations

from .checkpoint import LoadReport, load, load_report, save
from .constrain import constrain
from .optimizer import OptimizerReport, check_optimizer
from .prepare import ConversionRecord, record_of
from .quantization import quantization
from .quantize import init
from .report import Report, Row, Summary, report_of, summary
from .self_check import FloatComparison, compare_float
from .state import converted_models, translate_keys, when_converted
from .trace import CheckpointAdapter, trace_layers

__all__ = [
    "CheckpointAdapter",
    "ConversionRecord",
    "FloatComparison",
    "LoadReport",
    "OptimizerReport",
    "Report",
    "Row",
    "Summary",
    "check_optimizer",
    "compare_float",
    "constrain",
    "converted_models",
    "init",
    "load",
    "load_report",
    "quantization",
    "record_of",
    "report_of",
    "save",
    "summary",
    "trace_layers",
    "translate_keys",
    "when_converted",
]
