"""Handwritten digits with dopt: chosen layers of a TensorFlow graph in 8 bits, calibrated or trained.

    python examples/dopt_tensorflow.py [--folder FOLDER]

Trains a small network on the 1797 digits that ship with scikit-learn in float, quantizes all its layers by the JSON file of
layer strategies, once by calibration and once by training, and writes quant_model.pb and quant_params.json of both. With
quant_flag 0 the rewritten graph is checked to give the float model's bits. Needs TensorFlow: pip install tensorflow-cpu
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(str(Path(__file__).resolve().parents[1] / "dopt_tf_py3"))  # as the users' document has it

import numpy as np
import tensorflow.compat.v1 as tf
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from dopt.dopt_tf.opt_main import (
    generate_config_file,
    generate_final_model,
    load_weights,
    optimize_model,
    set_calibrate_state,
)


def build_tf_model():
    """Three convolutions with ReLU and a matrix product: 8x8 pixels in, ten scores out."""
    x = tf.placeholder(tf.float32, [None, 8, 8, 1], name="x")
    h, channels = x, 1
    for i, (width, stride) in enumerate(((16, 1), (32, 2), (32, 2))):
        with tf.variable_scope(f"conv{i}"):
            w = tf.get_variable("kernel", [3, 3, channels, width], initializer=tf.initializers.he_normal(seed=i))
            b = tf.get_variable("bias", [width], initializer=tf.zeros_initializer())
            h = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(h, w, [1, stride, stride, 1], "SAME", name="Conv2D"), b))
            channels = width
    w = tf.get_variable("fc/kernel", [128, 10], initializer=tf.initializers.he_normal(seed=9))
    return x, tf.identity(tf.matmul(tf.reshape(h, [-1, 128]), w, name="fc/MatMul"), name="logits")


def load_data():
    """Images in [0, 1], three quarters to train on, one quarter held out."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    train, test = train_test_split(range(len(images)), test_size=0.25, random_state=0, stratify=digits.target)
    return (images[train], digits.target[train]), (images[test], digits.target[test])


def train(sess, x, logits, data, steps, rate, title, flags):
    """Adam; the optimizer is built behind optimize_model, so that it trains the quantized graph."""
    images, labels = data
    y = tf.placeholder(tf.int64, [None])
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
    before = set(tf.global_variables())
    step = tf.train.AdamOptimizer(rate).minimize(loss)
    sess.run(tf.variables_initializer([v for v in tf.global_variables() if v not in before]))
    order = np.random.default_rng(0)
    progress = tqdm(range(steps), desc=f"{title:12}", unit="step", ncols=90)
    for _ in progress:
        batch = order.integers(len(labels), size=64)
        found, _ = sess.run([loss, step], {x: images[batch], y: labels[batch], **flags})
        progress.set_postfix(loss=f"{found:.4f}", refresh=False)


def main(steps=(400, 200), folder=None):
    """Runs all steps; returns the images each model gets wrong, their number and the files."""
    tf.disable_eager_execution()
    folder = Path(folder or tempfile.mkdtemp(prefix="dopt-"))
    folder.mkdir(parents=True, exist_ok=True)
    training, (images, labels) = load_data()
    wrong, files = {}, {}

    def count(stage, scores):
        wrong[stage] = int((scores.argmax(1) != labels).sum())
        return scores

    # The float model, its checkpoint and the file of layer strategies: every layer in 8 bits
    config_file = folder / "config_gen.json"
    with tf.Graph().as_default(), tf.Session() as sess:
        x, logits = build_tf_model()
        generate_config_file(sess, dst_path=config_file)
        model = tf.global_variables()
        sess.run(tf.global_variables_initializer())
        train(sess, x, logits, training, steps[0], 3e-3, "float", {})
        reference = count("float", sess.run(logits, {x: images}))
        tf.train.Saver(model).save(sess, str(folder / "float.ckpt"))
    content = json.loads(config_file.read_text())
    for layer in content["layer_strategy"].values():
        layer["quant_strategy"] = "Quant_INT8-8"
    config_file.write_text(json.dumps(content, indent=4))

    for how in ("calibrated", "trained"):
        out = folder / how
        out.mkdir(exist_ok=True)
        with tf.Graph().as_default(), tf.Session() as sess:
            x, logits = build_tf_model()
            quant_flag, is_train_flag = tf.placeholder(tf.int32), tf.placeholder(tf.bool, name="is_train")
            optimize_model(sess, config_file, is_train_flag, quant_flag)  # before the first sess.run
            load_weights(sess, folder / "float.ckpt")
            in_float = sess.run(logits, {x: images, quant_flag: 0, is_train_flag: False})
            assert np.array_equal(in_float, reference), "quant_flag 0 must be the float model"
            if how == "calibrated":
                set_calibrate_state(sess, True)
                for batch in np.split(training[0][:256], 4):
                    sess.run(logits, {x: batch, quant_flag: 1, is_train_flag: False})
                set_calibrate_state(sess, False)
            else:
                flags = {quant_flag: 1, is_train_flag: True}
                train(sess, x, logits, training, steps[1], 3e-4, how, flags)
            count(how, sess.run(logits, {x: images, quant_flag: 1, is_train_flag: False}))
            tf.train.Saver().save(sess, str(out / "quant.ckpt"))
        with tf.Graph().as_default(), tf.Session() as sess:  # a new float graph
            build_tf_model()
            generate_final_model(sess, config_file, ["logits"], out / "quant.ckpt", out)
        graph = tf.GraphDef.FromString((out / "quant_model.pb").read_bytes())
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.import_graph_def(graph, name="")
            count(f"{how}, quant_model.pb", sess.run("logits:0", {"x:0": images}))
        files[how] = out
    return {"wrong": wrong, "images": len(labels), "files": files}


def show(result, title):
    table = Table(title=title)
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column(f"wrong of {result['images']}", justify="right")
    for stage, wrong in result["wrong"].items():
        table.add_row(stage, f"{1 - wrong / result['images']:.2%}", str(wrong))
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where all files go (default: a temporary folder)")
    result = main(folder=parser.parse_args().folder)
    show(result, "Handwritten digits, dopt for TensorFlow")
    for how, folder in result["files"].items():
        print(f"{how}: {folder}")
