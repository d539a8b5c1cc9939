"""TensorFlow in one of its two graph modes; ``tests/dopt/test_tf.py`` runs the cases here in a process for each."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dopt.dopt_tf import native
from dopt.dopt_tf.opt_main import generate_config_file

MODE = os.environ.get("DOPT_TEST_MODE", "v2")
if MODE == "v1":
    tf.disable_v2_behavior()
else:
    tf.disable_eager_execution()
assert tf.control_flow_v2_enabled() == (MODE == "v2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an empty graph."""
    monkeypatch.chdir(tmp_path)
    tf.reset_default_graph()
    tf.set_random_seed(0)
    return tmp_path


@pytest.fixture(params=["native", "plain"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms of the operators."""
    assert native.lib is not None, "the library was not built"
    if request.param == "plain":
        monkeypatch.setattr(native, "use_native", lambda: False)
    return str(request.param)


@pytest.fixture
def build() -> Callable[..., tuple[Any, Any]]:
    """Builds the network of the cases: convolutions with and without BatchNorm, depthwise, a shared weight, matrix products."""

    def model(training: Any = False) -> tuple[Any, Any]:
        x = tf.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        with tf.variable_scope("model"):
            h = conv(x, "conv2d", 3, 8)
            h = tf.nn.relu(batch_norm(h, "bn", 8, training))
            h = conv(h, "conv2d_1", 8, 8, bias=True, stride=2)
            h = tf.nn.relu(batch_norm(h, "bn_1", 8, training))
            w = variable("depthwise/kernel", [3, 3, 8, 2])
            h = tf.nn.relu(tf.nn.depthwise_conv2d(h, w, [1, 1, 1, 1], "SAME", name="depthwise/op"))
            h = tf.reduce_mean(h, [1, 2])
            w = variable("fc/kernel", [16, 16])
            h = tf.nn.relu(tf.matmul(h, w, name="fc/MatMul"))
            scores = tf.matmul(h, h, transpose_b=True, name="attention/MatMul")
            h = tf.matmul(tf.nn.softmax(scores), h, name="attention/MatMul_1")
            h = tf.matmul(h, tf.transpose(w) * 2.0, name="head/MatMul")  # a weight that is computed
        return x, tf.identity(h, name="logits")

    return model


def variable(name: str, shape: list[int]) -> Any:
    return tf.get_variable(name, shape, initializer=tf.initializers.glorot_normal(seed=len(name)))


def conv(x: Any, name: str, n_in: int, n_out: int, bias: bool = False, stride: int = 1) -> Any:
    y = tf.nn.conv2d(
        x, variable(f"{name}/kernel", [3, 3, n_in, n_out]), [1, stride, stride, 1], "SAME", name=f"{name}/Conv2D"
    )
    if bias:
        y = tf.nn.bias_add(
            y, tf.get_variable(f"{name}/bias", [n_out], initializer=tf.random_normal_initializer(seed=1))
        )
    return y


def batch_norm(x: Any, name: str, n: int, training: Any) -> Any:
    """With factors of both signs, as an inference node unless it is told otherwise."""
    with tf.variable_scope(name):
        init = tf.random_uniform_initializer
        gamma = tf.get_variable("gamma", [n], initializer=init(-1.5, 1.5, seed=2))
        beta = tf.get_variable("beta", [n], initializer=init(-0.5, 0.5, seed=3))
        mean = tf.get_variable("mean", [n], initializer=init(-0.2, 0.2, seed=4), trainable=False)
        var = tf.get_variable("var", [n], initializer=init(0.5, 2.0, seed=5), trainable=False)
        assert training is False
        return tf.nn.fused_batch_norm(x, gamma, beta, mean, var, is_training=False, name="FusedBatchNorm")[0]


@pytest.fixture
def configured(build: Any) -> Callable[..., str]:
    """Writes a configuration that quantizes all layers, or those whose names hold one of the words."""

    def write(*words: str, model: Any = build) -> str:
        with tf.Graph().as_default(), tf.Session() as sess:
            model()
            generate_config_file(sess, "config.json")
        content = json.loads(Path("config.json").read_text())
        for name, layer in content["layer_strategy"].items():
            if not words or any(word in name for word in words):
                layer["quant_strategy"] = "Quant_INT8-8"
        Path("config.json").write_text(json.dumps(content))
        return "config.json"

    return write


@pytest.fixture
def flags() -> Callable[[], tuple[Any, Any]]:
    """The document's placeholders: quant_flag, is_train_flag."""
    return lambda: (tf.placeholder(tf.int32), tf.placeholder(tf.bool, name="is_train"))


@pytest.fixture
def batch() -> Callable[..., Any]:
    """Random images."""
    return lambda seed=0, n=16: np.random.default_rng(seed).normal(size=(n, 8, 8, 3)).astype(np.float32)
