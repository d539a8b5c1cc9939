"""Rewriting graphs: what is quantized, what stays, and every trap that TensorFlow keeps silent about."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dopt import config
from dopt.dopt_tf import graph
from dopt.dopt_tf.opt_main import generate_config_file, load_weights, optimize_model, set_calibrate_state

NAMES = [
    "model/conv2d/Conv2D", "model/conv2d_1/Conv2D", "model/depthwise/op", "model/fc/MatMul", "model/attention/MatMul",
    "model/attention/MatMul_1", "model/head/MatMul",
]  # fmt: skip

SOME = ["conv2d/", "attention/MatMul_1"]  # the plain form takes a second to build for each layer


def float_checkpoint(build: Any, x: Any) -> Any:
    """A float model's results and its checkpoint float.ckpt."""
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(0)
        xs, logits = build()
        sess.run(tf.global_variables_initializer())
        tf.train.Saver().save(sess, "./float.ckpt")
        return sess.run(logits, {xs: x})


def test_the_template_lists_the_layers_of_the_main_graph(build: Any, folder: Path) -> None:
    with tf.Session() as sess:
        _, logits = build()
        tf.gradients(logits, tf.trainable_variables())
        tf.cond(tf.placeholder(tf.bool), lambda: tf.matmul(logits, logits, name="inside"), lambda: logits)
        tf.matmul(tf.cast(logits, tf.float64), tf.cast(logits, tf.float64), transpose_b=True, name="double")
        generate_config_file(sess)
    content = json.loads(Path("config_gen.json").read_text())
    assert list(content["layer_strategy"]) == NAMES
    assert content["layer_strategy"][NAMES[2]] == {"op_type": "DepthwiseConv2dNative", "quant_strategy": "float"}
    assert [k for k in content if "quant_strategy_for" in k] == [
        f"quant_strategy_for op '{t}'" for t in ("Conv2D", "MatMul", "DepthwiseConv2dNative")
    ]


def test_quant_flag_0_is_the_float_model_bit_for_bit(
    build: Any, configured: Any, flags: Any, batch: Any, form: str
) -> None:
    path, want = configured(*SOME), float_checkpoint(build, batch())
    with tf.Session() as sess:
        x, logits = build()
        quant_flag, is_train = flags()
        optimize_model(sess, path, is_train, quant_flag)
        gradients = tf.gradients(tf.reduce_sum(logits), tf.trainable_variables())
        load_weights(sess, "./float.ckpt")
        feeds = {x: batch(), is_train: True}
        assert sess.run(logits, feeds | {quant_flag: 0}).tobytes() == want.tobytes()
        assert not any(v.any() for v in sess.run([v for v in tf.global_variables() if v.op.name.startswith("dopt/")]))
        quantized = sess.run(logits, feeds | {quant_flag: 1})
        assert 0 < np.abs(quantized - want).max() < 0.1 * np.abs(want).max()
        assert all(np.isfinite(g).all() for g in sess.run(gradients, feeds | {quant_flag: 1}))


def test_both_forms_train_the_same_model(build: Any, configured: Any, flags: Any, batch: Any, monkeypatch: Any) -> None:
    from dopt.dopt_tf import native

    path, found = configured(*SOME), []
    # the sums between are TensorFlow's, and depend on its threads
    one = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    float_checkpoint(build, batch())
    for wanted in (True, False):
        monkeypatch.setattr(native, "use_native", lambda wanted=wanted: wanted)
        with tf.Graph().as_default(), tf.Session(config=one) as sess:
            x, logits = build()
            quant_flag, is_train = flags()
            optimize_model(sess, path, is_train, quant_flag)
            kinds = {op.type for op in sess.graph.get_operations()}
            assert ("DoptQuantize" in kinds) == wanted
            step = tf.train.GradientDescentOptimizer(0.05).minimize(tf.reduce_mean(tf.square(logits - 1.0)))
            load_weights(sess, "./float.ckpt")
            for seed in range(3):
                sess.run(step, {x: batch(seed), quant_flag: 1, is_train: True})
            set_calibrate_state(sess, True)
            values = sess.run(logits, {x: batch(5), quant_flag: 1, is_train: False})
            found.append([values, *sess.run(tf.global_variables())])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_ranges_move_in_training_and_calibration_only(
    build: Any, configured: Any, flags: Any, batch: Any, form: str
) -> None:
    with tf.Session() as sess:
        x, logits = build()
        quant_flag, is_train = flags()
        optimize_model(sess, configured(*SOME), is_train, quant_flag)
        sess.run(tf.global_variables_initializer())
        (state,) = [v for v in tf.global_variables() if v.op.name == "dopt/model/conv2d/Conv2D/input_0_state"]

        def run(seed: int, train: bool, quant: int = 1) -> Any:
            sess.run(logits, {x: batch(seed), quant_flag: quant, is_train: train})
            return sess.run(state)

        assert not run(0, False).any() and not run(0, True, 0).any()
        assert run(0, True)[0] == np.abs(batch(0)).max()
        moved = run(1, True)
        assert moved[0] == np.float32(0.9) * np.abs(batch(0)).max() + np.float32(0.1) * np.abs(batch(1)).max()
        assert np.array_equal(run(2, False), moved)
        set_calibrate_state(sess, True)
        assert run(3, False)[1] == 1 and run(4, False)[1] == 2
        set_calibrate_state(sess, False)
        set_calibrate_state(sess, False)
        assert run(5, False)[1] == 2


def test_the_calibration_flag_is_the_sessions_and_in_no_checkpoint(
    build: Any, configured: Any, flags: Any, batch: Any
) -> None:
    x, logits = build()
    quant_flag, is_train = flags()
    with tf.Session() as sess:
        optimize_model(sess, configured(), is_train, quant_flag)
        sess.run(tf.global_variables_initializer())
        set_calibrate_state(sess, True)
        sess.run(logits, {x: batch(), quant_flag: 1, is_train: False})
        tf.train.Saver().save(sess, "./quant.ckpt")
    keys = tf.train.NewCheckpointReader("./quant.ckpt").get_variable_to_shape_map()
    assert not [k for k in keys if "calib" in k] and "dopt/model/fc/MatMul/input_0_state" in keys
    with tf.Session() as other:
        tf.train.Saver().restore(other, "./quant.ckpt")
        (state,) = [v for v in tf.global_variables() if v.op.name == "dopt/model/fc/MatMul/input_0_state"]
        before = other.run(state)
        other.run(logits, {x: batch(3), quant_flag: 1, is_train: False})
        assert before[1] == 1 and np.array_equal(other.run(state), before)


def test_only_edges_change(build: Any, configured: Any, flags: Any) -> None:
    with tf.Session() as sess:
        _, logits = build()
        other = tf.identity(tf.get_default_graph().get_tensor_by_name("model/Relu:0"), name="reader")
        before = {op.name: [t.name for t in op.inputs] for op in sess.graph.get_operations()}
        quant_flag, is_train = flags()
        with tf.name_scope("elsewhere"), tf.variable_scope("elsewhere"), tf.device("/cpu:0"):
            optimize_model(sess, configured("conv2d_1", "attention/MatMul_1"), is_train, quant_flag)
        changed = {
            n for n, inputs in before.items() if [t.name for t in sess.graph.get_operation_by_name(n).inputs] != inputs
        }
        assert changed == {"model/conv2d_1/Conv2D", "model/attention/MatMul_1"}
        assert other.op.inputs[0].name == "model/Relu:0"
        states = [v.op.name for v in tf.global_variables() if v.op.name.startswith("dopt")]
        assert states == [
            "dopt/model/conv2d_1/Conv2D/input_0_state", "dopt/model/attention/MatMul_1/input_0_state",
            "dopt/model/attention/MatMul_1/input_1_state",
        ]  # fmt: skip
        assert not [v for v in tf.trainable_variables() if v.op.name.startswith("dopt")]
        assert logits.shape.as_list() == [None, 16]


@pytest.mark.parametrize("what", ["initializer", "restore", "forward"])
def test_a_session_that_has_run_is_refused(build: Any, configured: Any, flags: Any, batch: Any, what: str) -> None:
    path = configured(*SOME)
    float_checkpoint(build, batch())
    with tf.Session() as sess:
        x, logits = build()
        quant_flag, is_train = flags()
        if what == "restore":
            tf.train.Saver().restore(sess, "./float.ckpt")
        else:
            sess.run(tf.global_variables_initializer())
        if what == "forward":
            sess.run(logits, {x: batch()})
        with pytest.raises(
            ValueError, match="sess has run this graph already, so TensorFlow ignores the changes; call optimize"
        ):
            optimize_model(sess, path, is_train, quant_flag)


def test_an_optimizer_that_exists_is_refused_and_a_loss_is_not(
    build: Any, configured: Any, flags: Any, batch: Any
) -> None:
    path = configured()
    with tf.Session() as sess:
        x, logits = build()
        loss = tf.reduce_mean(tf.square(logits))
        quant_flag, is_train = flags()
        optimize_model(sess, path, is_train, quant_flag)
        step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        sess.run(tf.global_variables_initializer())
        losses = [sess.run([loss, step], {x: batch(), quant_flag: 1, is_train: True})[0] for _ in range(10)]
        assert losses[-1] < losses[0]
    tf.reset_default_graph()
    with tf.Session() as sess:
        x, logits = build()
        tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(logits))
        quant_flag, is_train = flags()
        with pytest.raises(
            ValueError, match=r"the graph holds gradients already \(gradients/.*build the optimizer after"
        ):
            optimize_model(sess, path, is_train, quant_flag)


def test_refusals(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured()
    with tf.Session() as sess:
        with pytest.raises(
            ValueError, match="the session's graph has no Conv2D, DepthwiseConv2dNative, MatMul in float32"
        ):
            generate_config_file(sess)
        build()
        quant_flag, is_train = flags()
        for wrong in (
            (True, quant_flag),
            (is_train, 1),
            (quant_flag, quant_flag),
            (is_train, tf.placeholder(tf.int32, [2])),
        ):
            with pytest.raises(TypeError, match=r"must be a scalar tensor, tf.placeholder\(tf\.(bool|int32)\), got"):
                optimize_model(sess, path, *wrong)
        with pytest.raises(TypeError, match=r"sess must be a tf.compat.v1.Session, got str"):
            optimize_model("sess", path, is_train, quant_flag)
        with pytest.raises(
            ValueError, match="set_calibrate_state: the session's graph is not optimized; call optimize_model"
        ):
            set_calibrate_state(sess, True)
        with tf.Graph().as_default(), pytest.raises(ValueError, match=r"another graph than tf.get_default_graph\(\)"):
            optimize_model(sess, path, is_train, quant_flag)
        text = Path(path).read_text()
        Path("wrong.json").write_text(text.replace("model/fc/MatMul", "model/fc/Matmul"))
        with pytest.raises(config.ConfigError, match=r"layer 'model/fc/Matmul' .* did you mean 'model/fc/MatMul'"):
            optimize_model(sess, "wrong.json", is_train, quant_flag)
        assert not graph.is_optimized(sess.graph)
        optimize_model(sess, path, is_train, quant_flag)
        for call in (lambda: optimize_model(sess, path, is_train, quant_flag), lambda: generate_config_file(sess)):
            with pytest.raises(ValueError, match="the graph is optimized already; "):
                call()
        with pytest.raises(TypeError, match="calibration_mode must be True or False, got str"):
            set_calibrate_state(sess, "on")


def test_a_file_that_quantizes_nothing_says_so(build: Any, configured: Any, flags: Any) -> None:
    path = configured("nothing")
    with tf.Session() as sess:
        build()
        quant_flag, is_train = flags()
        with pytest.warns(
            UserWarning, match="config.json: no layer has the strategy 'Quant_INT8-8'; the model stays in float"
        ):
            optimize_model(sess, path, is_train, quant_flag)


def test_constants_as_flags(build: Any, configured: Any, batch: Any) -> None:
    with tf.Session() as sess:
        x, logits = build()
        optimize_model(sess, configured(), tf.constant(True), tf.placeholder_with_default(1, []))
        sess.run(tf.global_variables_initializer())
        sess.run(logits, {x: batch()})
        assert all(v[0] > 0 for v in sess.run([v for v in tf.global_variables() if v.op.name.startswith("dopt/")]))


def test_load_weights(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured()
    float_checkpoint(build, batch())
    with tf.Session() as sess:
        x, logits = build()
        quant_flag, is_train = flags()
        optimize_model(sess, path, is_train, quant_flag)
        with pytest.raises(tf.errors.NotFoundError, match="dopt/model"):  # what the document's way meets
            tf.train.Saver().restore(sess, "./float.ckpt")
        load_weights(sess, "./float.ckpt")
        sess.run(logits, {x: batch(), quant_flag: 1, is_train: True})
        tf.train.Saver().save(sess, "./quant.ckpt")
        states = [v for v in tf.global_variables() if v.op.name.startswith("dopt/")]
        before = sess.run(states)
        load_weights(sess, "./float.ckpt")
        assert not any(v.any() for v in sess.run(states))
        load_weights(sess, "./quant.ckpt")
        assert all(np.array_equal(a, b) for a, b in zip(before, sess.run(states), strict=True))
        with pytest.raises(FileNotFoundError, match=r"load_weights: cannot read checkpoint '\./none\.ckpt'"):
            load_weights(sess, "./none.ckpt")
    for rename, message in (
        ("other", "has no variable 'other/w'; did you mean"),
        ("model/fc", "has the shape .* in the graph"),
    ):
        tf.reset_default_graph()
        with tf.Session() as sess:
            tf.get_variable(f"{rename}/w" if rename == "other" else f"{rename}/kernel", [2, 2])
            with pytest.raises(ValueError, match=message):
                load_weights(sess, "./float.ckpt")
