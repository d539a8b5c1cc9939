"""The exponent and rounding rules once more, in plain Python and float64."""

import math

import numpy as np


def exp2_of(limit: float, bits: int) -> int:
    """clip(bits - 1 - log2(limit) to nearest, 0, 23) for a float32 limit of at least 1e-6."""
    return min(max(bits - 1 - math.floor(math.log2(max(float(limit), float(np.float32(1e-6)))) + 0.5), 0), 23)


def threshold_exp2(t: float, bits: int) -> int:
    """clip(rint(bits - 1 - t), 0, 23); Python's round is half to even."""
    return min(max(round(bits - 1 - t), 0), 23)


def codes_of(x: np.ndarray, exp2: int, bits: int, rounding: str = "floor_add") -> np.ndarray:
    """Codes before and after saturation; up to 16 bits the sum is a float32 one."""
    v = (x * np.float32(2.0**exp2)).astype(np.float32 if bits <= 16 else np.float64)
    half = v.dtype.type(0.5)
    rounded = {"floor_add": np.floor(v + half), "floor": np.floor(v), "round": np.rint(v), "ceil": np.ceil(v)}[rounding]
    return np.clip(rounded, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
