"""generate_final_model: the frozen graph is the quantized one, its weights are on their grids, the parameter file names those."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import tensor_util

from dopt.dopt_tf.opt_main import generate_final_model, load_weights, optimize_model, set_calibrate_state


def calibrated(build: Any, path: str, flags: Any, batch: Any, change: Any = None) -> Any:
    """Results of the calibrated graph with float activations in mind, and its checkpoint quant.ckpt."""
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(0)
        x, logits = build()
        quant_flag, is_train = flags()
        optimize_model(sess, path, is_train, quant_flag)
        sess.run(tf.global_variables_initializer())
        if change is not None:
            change(sess)
        set_calibrate_state(sess, True)
        for seed in range(4):
            sess.run(logits, {x: batch(seed), quant_flag: 1, is_train: False})
        set_calibrate_state(sess, False)
        tf.train.Saver().save(sess, "./quant.ckpt")
        return sess.run(logits, {x: batch(9), quant_flag: 1, is_train: False})


def final(build: Any, path: str, outputs: Any = ("logits",), folder: str = "./") -> None:
    with tf.Graph().as_default(), tf.Session() as sess:
        build()
        before = len(sess.graph.get_operations())
        generate_final_model(sess, path, list(outputs), "./quant.ckpt", folder)
        assert len(sess.graph.get_operations()) == before


def load() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    gd = tf.GraphDef.FromString(Path("quant_model.pb").read_bytes())
    values = {n.name: tensor_util.MakeNdarray(n.attr["value"].tensor) for n in gd.node if n.op == "Const"}
    return gd, values, json.loads(Path("quant_params.json").read_text())["layers"]


def run(gd: Any, params: dict[str, Any], x: Any, quantize: bool) -> Any:
    """The frozen graph; on request with its activations quantized as the parameter file says: what the chip would compute."""
    with tf.Graph().as_default() as g, tf.Session() as sess:
        tf.import_graph_def(gd, name="")
        for layer in params.values() if quantize else ():
            op = g.get_operation_by_name(layer["node"])
            sides = [i for i, t in enumerate(op.inputs) if t.op.name != layer.get("weight", {}).get("tensor")]
            for side, key in zip(sides, ("input", "input_1"), strict=False):
                entry = layer[key]
                assert op.inputs[side].name.removesuffix(":0") == entry["tensor"]
                code = tf.clip_by_value(tf.floor(op.inputs[side] / entry["scale"] + 0.5), -128.0, 127.0)
                op._update_input(side, code * entry["scale"])
        return sess.run("logits:0", {"x:0": x})


def close(a: Any, b: Any, bound: float) -> bool:
    return bool(np.abs(a - b).max() <= bound * np.abs(b).max())


def test_the_file_is_the_calibrated_graph(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured()
    want = calibrated(build, path, flags, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codes of -128: below
        final(build, path)
    gd, values, params = load()
    assert close(run(gd, params, batch(9), True), want, 2e-3)  # float sums in another order, and the codes of -128
    assert close(run(gd, params, batch(9), False), want, 0.05)
    kinds = {n.op for n in gd.node}
    assert not [k for k in kinds if "BatchNorm" in k or "Variable" in k or "Dopt" in k]
    assert len(params) == 7 and "weight" not in params["model/attention/MatMul"]
    assert set(params["model/attention/MatMul_1"]) == {"op_type", "quant_strategy", "node", "input", "input_1"}
    for name, layer in params.items():
        if "weight" in layer:
            scale = np.array(layer["weight"]["scale"])
            if "depthwise" in name:
                scale = scale.reshape(-1, 2) if scale.ndim else scale
            codes = values[layer["weight"]["tensor"]] / scale
            assert np.allclose(codes, np.rint(codes), atol=1e-3) and np.abs(codes).max() <= 127.5 + 0.5 * (
                scale.ndim == 0
            )
    assert isinstance(params["model/conv2d/Conv2D"]["weight"]["scale"], list)
    assert params["model/fc/MatMul"]["weight"]["scale"] == 2.0 ** -params["model/fc/MatMul"]["weight"]["exp2"]
    # one variable, two layers: each has a grid of its own
    assert np.array_equal(values["model/head/MatMul/weights"].T / 2, values["model/fc/MatMul/weights"])


def test_equal_calls_give_equal_bytes_and_names_take_a_port(
    build: Any, configured: Any, flags: Any, batch: Any
) -> None:
    path = configured("conv2d", "fc")
    calibrated(build, path, flags, batch)
    files = []
    for outputs, folder in ((["logits"], "./"), (["logits:0"], "out")):
        Path(folder).mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            final(build, path, outputs, folder)
        files.append([Path(folder, name).read_bytes() for name in ("quant_model.pb", "quant_params.json")])
    assert files[0] == files[1] and sorted(p.name for p in Path("out").iterdir()) == [
        "quant_model.pb",
        "quant_params.json",
    ]


def test_a_code_of_minus_128_and_a_negative_factor(configured: Any, flags: Any, batch: Any) -> None:
    def build() -> tuple[Any, Any]:
        x = tf.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        w = tf.get_variable("w", initializer=np.array([[[[0.37, 0.37], [-1.0, -1.0], [0.5, 0.25]]]], np.float32))
        one, beta = np.array([-1.0, 1.0], np.float32), np.zeros(2, np.float32)
        h = tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME", name="Conv2D")
        h = tf.nn.fused_batch_norm(
            h, one, beta, beta, np.ones(2, np.float32), epsilon=0.0, is_training=False, name="bn"
        )[0]
        return x, tf.identity(h, name="logits")

    path = configured(model=build)
    want = calibrated(build, path, flags, batch)
    match = "layer 'Conv2D': 1 weights have the code -128 and a negative factor of the BatchNorm 'bn' behind; they become 127"
    with pytest.warns(UserWarning, match=match):
        final(build, path)
    gd, values, params = load()
    assert params["Conv2D"]["weight"]["exp2"] == 7
    codes = values["Conv2D/weights"] / np.array(params["Conv2D"]["weight"]["scale"])
    assert np.array_equal(codes.reshape(3, 2), [[-47, 47], [127, -128], [-64, 32]])
    assert close(run(gd, params, batch(9), True), want, 0.01)


def test_what_is_read_elsewhere_is_not_folded(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured("conv2d/")
    calibrated(build, path, flags, batch)
    final(build, path, ["logits", "model/conv2d/Conv2D"])
    gd, _, params = load()
    assert [n.op for n in gd.node].count("FusedBatchNormV3") == 2
    assert isinstance(params["model/conv2d/Conv2D"]["weight"]["scale"], float)


def test_layers_that_no_output_needs_are_named(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured("fc", "head")
    calibrated(build, path, flags, batch)
    with pytest.warns(
        UserWarning, match=r"outputs \['model/fc/MatMul'\] do not need layer 'model/head/MatMul'; it is left out"
    ):
        final(build, path, ["model/fc/MatMul"])
    assert list(load()[2]) == ["model/fc/MatMul"]


def test_a_trained_checkpoint_with_an_optimizers_slots(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured("fc")
    with tf.Session() as sess:
        x, logits = build()
        quant_flag, is_train = flags()
        optimize_model(sess, path, is_train, quant_flag)
        step = tf.train.AdamOptimizer(0.01).minimize(tf.reduce_mean(tf.square(logits)))
        sess.run(tf.global_variables_initializer())
        for seed in range(3):
            sess.run(step, {x: batch(seed), quant_flag: 1, is_train: True})
        tf.train.Saver().save(sess, "./quant.ckpt")
        load_weights(sess, "./quant.ckpt")
    final(build, path)
    assert list(load()[2]) == ["model/fc/MatMul"]


def test_refusals(build: Any, configured: Any, flags: Any, batch: Any) -> None:
    path = configured("fc")
    with tf.Session() as sess:
        build()
        call = [sess, path, ["logits"], "./quant.ckpt", "./"]
        for i, value, error, message in (
            (4, "none", FileNotFoundError, "output_dir 'none' does not exist"),
            (2, "logits", TypeError, "output_name_list must be a list of node names, got 'logits'"),
            (2, ["logit"], ValueError, "output 'logit' is not in the graph; did you mean 'logits'"),
            (3, "./none.ckpt", FileNotFoundError, r"cannot read checkpoint '\./none\.ckpt'"),
        ):
            with pytest.raises(error, match=f"generate_final_model: {message}"):
                generate_final_model(*call[:i], value, *call[i + 1 :])
        sess.run(tf.global_variables_initializer())
        tf.train.Saver().save(sess, "./quant.ckpt")
        with pytest.raises(
            ValueError, match=r"holds no range of layer 'model/fc/MatMul'; save it with a tf.train.Saver\(\) made"
        ):
            generate_final_model(*call)
    tf.reset_default_graph()
    with tf.Session() as sess:
        build()
        quant_flag, is_train = flags()
        optimize_model(sess, path, is_train, quant_flag)
        sess.run(tf.global_variables_initializer())
        tf.train.Saver().save(sess, "./quant.ckpt")
        with pytest.raises(ValueError, match="the graph is optimized already; build the float model in a new graph"):
            generate_final_model(sess, *call[1:])
    with pytest.raises(
        ValueError, match=r"layer 'model/fc/MatMul' has seen no data in checkpoint './quant.ckpt'; run batches"
    ):
        final(build, path)
    assert not Path("quant_model.pb").exists()
