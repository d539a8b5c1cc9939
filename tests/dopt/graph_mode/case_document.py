"""The TensorFlow half of the users' document, run as printed; only names, paths and full-width signs are filled in."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

sys.path.insert(0, str(Path(__file__).parents[1]))
from plugin_document import TENSORFLOW, ascii_signs, blocks

from dopt import config
from dopt.dopt_tf.opt_main import load_weights, optimize_model

ROOT = Path(__file__).resolve().parents[3]
CODE = [ascii_signs(b) for b in blocks(TENSORFLOW) if not b.startswith("{")]
LISTINGS = [b for b in blocks(TENSORFLOW) if b.startswith("{")]


def block(first: str) -> str:
    (found,) = [b for b in CODE if first in b]
    return found.replace(".../dopt_tf_py3", str(ROOT / "dopt_tf_py3"))


def test_every_block_is_found() -> None:
    assert len(CODE) == 8 and len(LISTINGS) == 2


@pytest.mark.parametrize("how", ["training", "calibration"])
def test_the_flow(build: Any, batch: Any, folder: Path, how: str) -> None:
    def build_tf_model() -> None:
        names["x"], names["logits"] = build()

    with tf.Graph().as_default(), tf.Session() as sess:  # the float checkpoint
        names: dict[str, Any] = {"tf": tf, "sess": sess, "config": tf.ConfigProto(), "build_tf_model": build_tf_model}
        build_tf_model()
        exec(block("import generate_config_file"), names)
        sess.run(tf.global_variables_initializer())
        tf.train.Saver().save(sess, "./float.ckpt")
    listing = json.loads(Path("config_gen.json").read_text())
    for name in ("model/conv2d/Conv2D", "model/conv2d_1/Conv2D"):
        listing["layer_strategy"][name]["quant_strategy"] = "Quant_INT8-8"
    Path("config_gen.json").write_text(json.dumps(listing))

    exec(block("import optimize_model"), names)
    names |= {
        "config_file": "./config_gen.json",
        "ckpt": "./float.ckpt",
        "train_ckpt_path": "./quant.ckpt",
        "load_weights": load_weights,
    }
    (rewrite,) = [b for b in CODE if "optimize_model( " in b]
    head, loading = rewrite.split("    saver = tf.Saver()\n")
    assert loading.split() == "saver.restore(ckpt) tf.global_variables_initializer().run()".split()
    # The three last lines cannot run: tf.Saver is tf.train.Saver, restore wants the session, and the initializer in the end would
    # erase what was restored. What they mean is load_weights(sess, ckpt).
    assert not hasattr(tf, "Saver")
    steps = "    load_weights(sess, ckpt)\n    train(sess)\n"
    saving = "".join(f"    {line}\n" for line in block("## ckpt save").splitlines())
    calibrating = "".join(f"    {line}\n" for line in block("import set_calibrate_state").splitlines())

    def train(sess: Any) -> None:
        loss = tf.reduce_mean(tf.square(names["logits"]))
        feeds = {names["quant_flag"]: 1, names["is_train_flag"]: how == "training"}
        if how == "training":
            optimizer = tf.train.GradientDescentOptimizer(0.01)
            before = set(tf.global_variables())
            loss = [loss, optimizer.minimize(loss)]
            sess.run(tf.variables_initializer(set(tf.global_variables()) - before))
        for seed in range(3):
            sess.run(loss, {names["x"]: batch(seed)} | feeds)
        names["want"] = sess.run(
            names["logits"], {names["x"]: batch(9), names["quant_flag"]: 1, names["is_train_flag"]: False}
        )

    names["train"] = train
    with tf.Graph().as_default():
        exec(head + (calibrating if how == "calibration" else "") + steps + saving, names)

    exec(block("import generate_final_model"), names)
    flags = SimpleNamespace(config_file="./config_gen.json")
    names |= {"FLAGS": flags, "output_name_list": ["logits"], "output_dir": "./"}
    final = block("generate_final_model(\n")
    with pytest.raises(IndentationError):  # the call is indented as if it stood in a block of its own
        compile(final, "document", "exec")
    with tf.Graph().as_default():
        exec(final.replace("        generate_final_model(", "    generate_final_model("), names)
    assert list(json.loads(Path("quant_params.json").read_text())["layers"]) == [
        "model/conv2d/Conv2D",
        "model/conv2d_1/Conv2D",
    ]
    gd = tf.GraphDef.FromString(Path("quant_model.pb").read_bytes())
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.import_graph_def(gd, name="")
        got = sess.run("logits:0", {"x:0": batch(9)})
    assert np.abs(got - names["want"]).max() <= 0.05 * np.abs(names["want"]).max()


def test_the_printed_configurations(folder: Path, flags: Any) -> None:
    """Complete JSON but for the three dots."""
    for listing in LISTINGS:
        with tf.Graph().as_default(), tf.Session() as sess:
            for name in ("conv2d", "conv2d_1"):
                x = tf.placeholder(tf.float32, [1, 4, 4, 1])
                w = tf.get_variable(f"{name}_w", [1, 1, 1, 1])
                tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME", name=f"model/resnet_model/{name}/Conv2D")
            quant_flag, is_train = flags()
            Path("c.json").write_text(listing)
            with pytest.raises(
                config.ConfigError, match=r"line 17, column 9: '\.\.\.' stands for more layers in the document"
            ):
                optimize_model(sess, "c.json", is_train, quant_flag)
            Path("c.json").write_text(listing.replace("},\n        ...", "}"))
            if "Quant_INT8-8" in listing.split("layer_strategy")[1]:
                optimize_model(sess, "c.json", is_train, quant_flag)
                assert len([v for v in tf.global_variables() if v.op.name.startswith("dopt/")]) == 2
