"""Quantizers, what they observe, calibration and freezing. Rules: docs/numerics.md, "Training"."""

from .calibration import calibrating, calibration, in_float, register_calibrate_method, switched_off, unobserved
from .eager import eagerly
from .freeze import freeze_statistics
from .quantizer import Quantizer, clamp_weight_once
from .running import in_ddp_forward, in_recomputation
from .saturation import TRAIN_LIMIT, highest, layer_of, remedy, saturation

__all__ = [
    "TRAIN_LIMIT",
    "Quantizer",
    "calibrating",
    "calibration",
    "clamp_weight_once",
    "eagerly",
    "freeze_statistics",
    "highest",
    "in_ddp_forward",
    "in_float",
    "in_recomputation",
    "layer_of",
    "register_calibrate_method",
    "remedy",
    "saturation",
    "switched_off",
    "unobserved",
]
