"""The chips: names, limits of their engines, what each can run, and the rules that ``linger.check`` applies."""

from __future__ import annotations

from .averages import Average, average_fault, average_rows, average_runs
from .engines import ENGINES, SHIPPED, Engine, coarse_average, coarse_factor, engine_of
from .facts import ALIASES, FLOAT, NodeFacts, TensorFacts
from .functions import CHIPS, CURVES, Curve, curve_of, find_curve, gelu, log_softmax, sigmoid, softmax, swish, tanh
from .limits import check_node, check_total, parameter_bytes
from .nearest import nearest
from .operators import OPERATORS, PLATFORMS, Operator, Support
from .platforms import LIMITS, MAX_LEFT_BITS, MAX_SHIFT, SWAP_INNER, Limits, file_platform, limits_of
from .rules_conv import packs_4_bits, pads_wrongly
from .rules_graph import PREFETCHED, GraphNode, check_graph
from .scratch import scratch_need, scratch_request
from .shapes import outputs as outputs_of
from .taps import Blocks, Taps, blocks_of_taps, most_taps, rows_of_taps
from .violation import Violation

__all__ = [
    "ALIASES",
    "CHIPS",
    "CURVES",
    "ENGINES",
    "FLOAT",
    "LIMITS",
    "MAX_LEFT_BITS",
    "MAX_SHIFT",
    "OPERATORS",
    "PLATFORMS",
    "PREFETCHED",
    "SHIPPED",
    "SWAP_INNER",
    "Average",
    "Blocks",
    "Curve",
    "Engine",
    "GraphNode",
    "Limits",
    "NodeFacts",
    "Operator",
    "Support",
    "Taps",
    "TensorFacts",
    "Violation",
    "average_fault",
    "average_rows",
    "average_runs",
    "blocks_of_taps",
    "check_graph",
    "check_node",
    "check_total",
    "coarse_average",
    "coarse_factor",
    "curve_of",
    "engine_of",
    "file_platform",
    "find_curve",
    "gelu",
    "limits_of",
    "log_softmax",
    "most_taps",
    "nearest",
    "outputs_of",
    "packs_4_bits",
    "pads_wrongly",
    "parameter_bytes",
    "rows_of_taps",
    "scratch_need",
    "scratch_request",
    "sigmoid",
    "softmax",
    "swish",
    "tanh",
]
