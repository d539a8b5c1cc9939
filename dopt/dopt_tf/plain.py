"""The operators in TensorFlow's own operations, for GPUs and where there is no library: the same bits, slower.

Sums have the order of ``csrc/include/lgr/squared_error.h``. No operand of an addition is an addition of the same shape: the graph
optimizer would merge the two and change that order.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

__all__ = ["LOW", "N_EXP2", "exponent", "quantize", "quantize_weight"]

LOW, N_EXP2, BLOCK = -16, 40, 16384


def _power(e: Any) -> Any:
    """2**e as float32, exactly."""
    return tf.bitcast((tf.cast(e, tf.int32) + 127) * (1 << 23), tf.float32)


def _bits(peak: Any) -> Any:
    return tf.bitcast(tf.maximum(peak, 1e-6), tf.int32)


def _clip(e: Any) -> Any:
    return tf.clip_by_value(e, LOW, LOW + N_EXP2 - 1)


def exponent(peak: Any) -> Any:
    """The nearest exponent for a running maximum."""
    bits = _bits(peak)
    above_root = tf.cast(tf.bitwise.bitwise_and(bits, 0x7FFFFF) > 0x3504F3, tf.int32)
    return _clip(7 - (tf.bitwise.right_shift(bits, 23) - 127 + above_root))


def _rounded(x: Any, e: Any, even: bool) -> Any:
    v = x * _power(e)
    return tf.round(v) if even else tf.floor(v + 0.5)


def _value(rounded: Any, e: Any) -> Any:
    code = tf.cast(tf.cast(tf.clip_by_value(rounded, -128.0, 127.0), tf.int32), tf.float32)  # never -0
    return code * _power(-e)


def _errors(x: Any, exps: Any, even: bool) -> Any:
    """Squared errors at each exponent, float64: neighbours first, then lanes, then blocks."""
    flat = tf.reshape(x, [-1])
    n = tf.size(flat)
    n_blocks = (n + BLOCK - 1) // BLOCK

    def lanes(e: Any) -> Any:
        d = tf.cast(flat - _value(_rounded(flat, e, even), e), tf.float64)
        t = tf.reshape(tf.pad(tf.square(d), [[0, n_blocks * BLOCK - n]]), [n_blocks, BLOCK // 8, 8])
        for rows in (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1):
            t = tf.reshape(t, [n_blocks, rows, 2, 8])
            t = t[:, :, 0] + t[:, :, 1]
        for half in (4, 2, 1):  # 0 + 4, 1 + 5 ...; then (0 + 4) + (2 + 6) ...
            t = tf.reshape(t, [n_blocks, 2, half])
            t = t[:, 0] + t[:, 1]
        return tf.reshape(t, [n_blocks])

    if exps.shape[0] == 2:  # quicker to build than a loop
        blocks = tf.stack([lanes(exps[0]), lanes(exps[1])], 1)
    else:
        blocks = tf.transpose(tf.map_fn(lanes, exps, fn_output_signature=tf.float64, parallel_iterations=1))
    return tf.foldl(
        lambda a, b: a + b, blocks, initializer=tf.zeros_like(exps, dtype=tf.float64), parallel_iterations=1
    )


def _passing(x: Any, e: Any, quant: Any, nan: Any, even: bool) -> Any:
    """The values; gradients pass where the code is inside, and everywhere when nothing is quantized."""

    def compute(x: Any, e: Any, quant: Any, nan: Any) -> Any:
        r = _rounded(x, e, even)
        inside = tf.logical_and(tf.logical_and(r >= -128.0, r <= 127.0), tf.logical_not(nan))
        value = tf.where_v2(nan, float("nan"), _value(tf.where_v2(nan, 0.0, r), e))
        passes = tf.logical_or(quant <= 0, inside)
        y = tf.where_v2(quant > 0, value, x)
        return y, lambda dy: (tf.where_v2(passes, dy, tf.zeros_like(dy)), None, None, None)

    return tf.custom_gradient(compute)(x, e, quant, nan)


def _peak(x: Any) -> tuple[Any, Any]:
    """The largest magnitude without regard to NaN (0 when empty), and whether there is a NaN."""
    magnitude = tf.where_v2(tf.math.is_nan(x), 0.0, tf.abs(x))
    return tf.reduce_max(tf.concat([tf.reshape(magnitude, [-1]), [0.0]], 0)), tf.reduce_any(tf.math.is_nan(x))


def quantize(x: Any, state: Any, quant: Any, observe: Any, calibrate: Any) -> tuple[Any, Any]:
    """The values and the new state."""
    seen = tf.stop_gradient(x)
    peak, nan = _peak(seen)
    m, old = tf.maximum(peak, 1e-6), state[0]
    on = quant > 0
    moves = tf.logical_and(tf.logical_and(on, tf.logical_and(peak < float("inf"), tf.logical_not(nan))), tf.size(x) > 0)
    averaged = tf.where_v2(old > 1e-6, 0.9 * old + 0.1 * m, m)
    trained = tf.concat([averaged[None], tf.zeros([1 + N_EXP2])], 0)
    exps = tf.range(LOW, LOW + N_EXP2)
    now = tf.cond(
        tf.logical_and(calibrate, moves),
        lambda: tf.cast(_errors(seen, exps, False), tf.float32),
        lambda: tf.zeros([N_EXP2]),
    )
    errors = state[2:] + now
    finest = tf.cast(N_EXP2 - 1 - tf.argmin(tf.reverse(errors, [0])), tf.int32)
    best = tf.where_v2(tf.reduce_min(errors) < float("inf"), finest, 0)
    calibrated = tf.concat([_power(7 - LOW - best)[None], state[1:2] + 1.0, errors], 0)
    moved = tf.where_v2(calibrate, calibrated, tf.where_v2(observe, trained, state))
    after = tf.where_v2(moves, moved, state)
    e = exponent(tf.where_v2(after[0] > 0, after[0], m))
    return _passing(x, e, quant, nan, False), after


def quantize_weight(w: Any, quant: Any) -> tuple[Any, Any]:
    """The values and the exponent (0 where nothing is quantized, -2**31 with NaN), as the native operator."""
    seen = tf.stop_gradient(w)
    peak, nan = _peak(seen)
    coarse = _clip(7 - (tf.bitwise.right_shift(_bits(peak), 23) - 126))
    error = _errors(seen, tf.stack([coarse, coarse + 1]), True)
    e = _clip(tf.where_v2(error[1] < error[0], coarse + 1, coarse))
    exp2 = tf.where_v2(quant > 0, tf.where_v2(nan, tf.int32.min, e), 0)
    return _passing(w, e, quant, nan, True), exp2
