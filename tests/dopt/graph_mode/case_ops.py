"""native == plain, bit for bit: values, states, gradients; and the flags do what they say."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dopt.dopt_tf import native, plain


def data(n: int, seed: int = 0, span: float = 3.0) -> Any:
    x = np.random.default_rng(seed).normal(size=n).astype(np.float32) * np.float32(span)
    edges = np.array([0.5, -0.5, 127.5, -128.5, -0.0, 1e-30, 0.49999997, 0.0], np.float32) / 32
    x[: min(n, 8)] = edges[: min(n, 8)]
    return x


def bits(a: Any) -> list[bytes]:
    return [np.where(np.isnan(v), np.float32("nan"), v).tobytes() if v.dtype == np.float32 else v.tobytes() for v in a]


class Both:
    """One activation in both forms; a call gives values, state and gradients after checking that they are the same bits."""

    def __init__(self) -> None:
        self.x = tf.placeholder(tf.float32, [None])
        self.flags = tf.placeholder(tf.int32, []), tf.placeholder(tf.bool, []), tf.placeholder(tf.bool, [])
        self.found = []
        for form in ("native", "plain"):
            state = tf.get_variable(form, [native.N_STATE], initializer=tf.zeros_initializer(), use_resource=True)
            before = state.read_value()
            if form == "native":
                y, _, after = native.lib.dopt_quantize(
                    x=self.x, state=before, quant=self.flags[0], observe=self.flags[1], calibrate=self.flags[2]
                )
            else:
                y, after = plain.quantize(self.x, before, *self.flags)
            with tf.control_dependencies([tf.raw_ops.AssignVariableOp(resource=state.handle, value=after)]):
                self.found.append(
                    (tf.identity(y), after, tf.gradients(y, self.x, tf.range(tf.cast(tf.size(y), tf.float32)))[0])
                )
        self.sess = tf.Session()
        self.sess.run(tf.global_variables_initializer())

    def __call__(self, x: Any, quant: int, observe: bool, calibrate: bool) -> tuple[Any, Any, Any]:
        values = (quant, observe, calibrate)
        a, b = self.sess.run(self.found, dict(zip(self.flags, values, strict=True)) | {self.x: x})
        assert bits(a) == bits(b)
        return a


def test_both_forms_agree_in_every_mode() -> None:
    run = Both()
    train, calibrate = (1, True, False), (1, False, True)
    for n, span in itertools.product([1, 7, 33, 1000, 16384, 40001], [1e-5, 3.0, 300.0]):
        for seed, mode in enumerate(
            [(1, False, False), train, train, (0, True, True), calibrate, (1, True, True), (2, True, False)]
        ):
            y, _, dx = run(data(n, seed, span), *mode)
            assert np.isfinite(y).all() and np.isfinite(dx).all()


def test_the_rules_of_the_state() -> None:
    run, x = Both(), data(100)
    _, state, _ = run(x, 1, True, False)
    assert state[0] == np.abs(x).max() and not state[1:].any()
    y, state, dx = run(2 * x, 1, True, False)
    m = np.abs(x).max()
    want = np.float32(np.float32(0.9) * m) + np.float32(np.float32(0.1) * (m + m))
    assert state[0] == want
    e = 7 - round(math.log2(want))
    rounded = np.floor(2 * x * np.float32(2.0**e) + np.float32(0.5))
    assert np.array_equal(y, np.clip(rounded, -128, 127) / np.float32(2.0**e))
    assert np.array_equal(dx, np.where((rounded >= -128) & (rounded <= 127), np.arange(100, dtype=np.float32), 0))
    _, after, _ = run(50 * x, 1, False, False)
    assert np.array_equal(after, state)
    y, after, dx = run(x, 0, True, True)  # quant_flag 0: x itself
    assert y.tobytes() == x.tobytes() and np.array_equal(after, state) and np.array_equal(dx, np.arange(100))
    _, after, _ = run(x, 1, False, True)
    errors = [
        (
            (x.astype(np.float64) - np.clip(np.floor(x * np.float32(2.0**e) + np.float32(0.5)), -128, 127) / 2.0**e)
            ** 2
        ).sum()
        for e in range(-16, 24)
    ]
    assert np.allclose(after[2:], errors, rtol=1e-6) and after[1] == 1
    assert after[0] == 2.0 ** (7 - (int(np.argmin(errors)) - 16))
    _, after, _ = run(x, 1, True, False)
    assert not after[1:].any()


@pytest.mark.parametrize("mode", [(False, False), (True, False), (False, True)], ids=["eval", "observe", "calibrate"])
def test_what_is_not_finite_moves_no_range_and_nan_stays(mode: tuple[bool, bool]) -> None:
    for known in (False, True):
        tf.reset_default_graph()
        run = Both()
        state = run(data(50), 1, True, False)[1] if known else np.zeros(native.N_STATE, np.float32)
        for bad in (math.nan, math.inf, -math.inf):
            x = data(70)
            x[40] = bad
            y, after, dx = run(x, 1, *mode)
            assert np.array_equal(after, state)
            assert np.isnan(y).all() and not dx.any() if math.isnan(bad) else np.isfinite(y).all()


def test_zeros_emptiness_and_huge_numbers() -> None:
    run = Both()
    assert not run(data(0), 1, True, False)[1].any() and not run(data(0), 1, False, True)[1].any()
    assert run(np.zeros(9, np.float32), 1, True, False)[1][0] == np.float32(1e-6)
    assert run(np.full(9, 5, np.float32), 1, True, False)[1][0] == 5.0
    assert run(np.full(9, 1e30, np.float32), 1, False, True)[1][0] == 2.0**23


def test_weights_agree() -> None:
    w, quant = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.int32, [])
    one = native.lib.dopt_quantize_weight(w=w, quant=quant)
    two = plain.quantize_weight(w, quant)
    up = tf.range(tf.cast(tf.size(w), tf.float32))
    found = [(y, e, tf.gradients(y, w, up)[0]) for y, e in ((one.y, one.exp2), two)]
    with tf.Session() as sess:
        for n, span, seed in itertools.product([0, 1, 64, 40001], [1e-9, 0.3, 7.0, 5e4, 1e9], range(4)):
            x = data(n, seed, span) ** (1 + 2 * (seed % 2))
            for flag in (0, 1):
                a, b = sess.run(found, {w: x, quant: flag})
                assert bits(a) == bits(b)
            if n:
                coarse = max(-16, min(23, 7 - math.frexp(max(float(np.abs(x).max()), 1e-6))[1]))
                assert a[1] in (coarse, coarse + 1)
                assert np.array_equal(
                    a[0], np.clip(np.rint(x * np.float32(2.0 ** a[1])), -128, 127) / np.float32(2.0 ** a[1])
                )
        x = data(10)
        x[3] = np.nan
        a, b = sess.run(found, {w: x, quant: 1})
        assert bits(a) == bits(b) and np.isnan(a[0]).all()


def test_gradients_of_gradients_pass_the_mask() -> None:
    x = tf.placeholder(tf.float32, [None])
    state, true = np.zeros(native.N_STATE, np.float32), np.bool_(False)
    y = native.lib.dopt_quantize(x=x, state=state, quant=1, observe=true, calibrate=true).y
    (g,) = tf.gradients(y**3, x)
    (h,) = tf.gradients(g, x)
    with tf.Session() as sess:
        value, second = sess.run([y, h], {x: data(40)})
    assert np.allclose(second, 6 * value)


def test_shapes_are_known_and_wrong_states_refused() -> None:
    x = tf.placeholder(tf.float32, [None, 3, 5])
    out = native.lib.dopt_quantize(x=x, state=tf.zeros([42]), quant=1, observe=False, calibrate=False)
    assert out.y.shape.as_list() == [None, 3, 5] and out.new_state.shape.as_list() == [42]
    state = tf.placeholder_with_default(np.zeros(41, np.float32), [None])
    short = native.lib.dopt_quantize(x=x, state=state, quant=1, observe=False, calibrate=False)
    with tf.Session() as sess:
        assert sess.run(out.y, {x: np.ones((2, 3, 5))}).shape == (2, 3, 5)
        with pytest.raises(tf.errors.InvalidArgumentError, match="DoptQuantize: state must have 42 elements"):
            sess.run(short.y, {x: np.ones((2, 3, 5))})
