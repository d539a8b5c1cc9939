"""The chips: names, limits of their engines, what each can run."""

from __future__ import annotations

from .limits import Violation, check_convolution, check_pool
from .operators import OPERATORS, Support
from .platforms import LIMITS, MAX_LEFT_BITS, MAX_SHIFT, Limits, file_platform, limits_of

__all__ = [
    "LIMITS",
    "MAX_LEFT_BITS",
    "MAX_SHIFT",
    "OPERATORS",
    "Limits",
    "Support",
    "Violation",
    "check_convolution",
    "check_pool",
    "file_platform",
    "limits_of",
]
