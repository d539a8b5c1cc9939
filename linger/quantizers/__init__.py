"""Quantizers, what they observe, calibration and freezing. Rules: docs/numerics.md, "Training"."""

from .calibration import calibrating, calibration, in_float, register_calibrate_method, switched_off, unobserved
from .clamp_once import clamp_weight_once
from .eager import eagerly
from .freeze import freeze_statistics
from .processes import sync_statistics
from .quantizer import Quantizer
from .running import in_ddp_forward, in_recomputation
from .saturation import TRAIN_LIMIT, highest, layer_of, remedy, saturation
from .weight_limit import CUT_SAID, WEIGHT_CUT, WeightCut, cut_note, weight_cut

__all__ = [
    "CUT_SAID",
    "TRAIN_LIMIT",
    "WEIGHT_CUT",
    "Quantizer",
    "WeightCut",
    "calibrating",
    "calibration",
    "clamp_weight_once",
    "cut_note",
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
    "sync_statistics",
    "unobserved",
    "weight_cut",
]
