"""Quantizers, what they observe, calibration and freezing. Rules: docs/numerics.md, "Training"."""

from .calibration import calibrating, calibration, register_calibrate_method
from .eager import eagerly
from .freeze import freeze_statistics
from .quantizer import Quantizer, clamp_weight_once
from .running import in_ddp_forward, in_recomputation

__all__ = [
    "Quantizer",
    "calibrating",
    "calibration",
    "clamp_weight_once",
    "eagerly",
    "freeze_statistics",
    "in_ddp_forward",
    "in_recomputation",
    "register_calibrate_method",
]
