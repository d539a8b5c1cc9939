"""Choosing the settings of a quantized model by trying them: calibration, strategies, widths, scales between layers."""

from .tune import Step, Tuning, tune

__all__ = ["Step", "Tuning", "tune"]
