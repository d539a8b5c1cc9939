"""The chips: names, limits of their engines, what each can run, and the rules that ``linger.check`` applies."""

from __future__ import annotations

from .facts import ALIASES, FLOAT, NodeFacts, TensorFacts
from .functions import CHIPS, CURVES, Curve, curve_of, find_curve, gelu, log_softmax, sigmoid, softmax, swish, tanh
from .limits import check_node, check_total, parameter_bytes
from .operators import OPERATORS, PLATFORMS, Operator, Support
from .platforms import LIMITS, MAX_LEFT_BITS, MAX_SHIFT, SWAP_INNER, Limits, file_platform, limits_of
from .rules_conv import packs_4_bits, pads_wrongly
from .shapes import outputs as outputs_of
from .violation import Violation

__all__ = [
    "ALIASES",
    "CHIPS",
    "CURVES",
    "FLOAT",
    "LIMITS",
    "MAX_LEFT_BITS",
    "MAX_SHIFT",
    "OPERATORS",
    "PLATFORMS",
    "SWAP_INNER",
    "Curve",
    "Limits",
    "NodeFacts",
    "Operator",
    "Support",
    "TensorFacts",
    "Violation",
    "check_node",
    "check_total",
    "curve_of",
    "file_platform",
    "find_curve",
    "gelu",
    "limits_of",
    "log_softmax",
    "outputs_of",
    "packs_4_bits",
    "pads_wrongly",
    "parameter_bytes",
    "sigmoid",
    "softmax",
    "swish",
    "tanh",
]
