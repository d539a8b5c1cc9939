"""The calls of the TensorFlow form."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf2
import tensorflow.compat.v1 as tf

from dopt import config

from . import checkpoints, freeze, graph

__all__ = ["generate_config_file", "generate_final_model", "load_weights", "optimize_model", "set_calibrate_state"]

_FLAG = f"{graph.SCOPE}/calibrating"


def generate_config_file(sess: Any, dst_path: str | os.PathLike[str] = "./config_gen.json") -> None:
    """Writes the template: every layer of the session's graph that can be quantized, with the strategy ``float``.

    Args:
        sess: Session with the float model in its graph; no variable is read.
        dst_path: The file; it is replaced.

    Raises:
        TypeError: ``sess`` is no session.
        ValueError: The graph has no float32 Conv2D, DepthwiseConv2dNative or MatMul, or is optimized already.
        FileNotFoundError: The folder of ``dst_path`` does not exist.
    """
    g = _graph("generate_config_file", sess)
    _check_float("generate_config_file", g)
    layers = graph.layers(g)
    if not layers:
        raise ValueError(
            f"generate_config_file: the session's graph has no {', '.join(graph.OP_TYPES)} in float32; build the model "
            "in it first"
        )
    extra = [t for t in dict.fromkeys(layers.values()) if t not in ("Conv2D", "MatMul")]
    config.write(dst_path, layers, ["Conv2D", "MatMul", *extra])


def optimize_model(sess: Any, config_file: str | os.PathLike[str], is_train_flag: Any, quant_flag: Any) -> None:
    """Rewrites ``tf.get_default_graph()``: the layers that the file names get 8-bit operands.

    Call it before the first ``sess.run`` and before the optimizer is built, load the weights afterwards.

    Args:
        sess: Session of the default graph, which has run nothing yet.
        config_file: The edited configuration.
        is_train_flag: bool scalar tensor: whether ranges follow the data while quantizing.
        quant_flag: int32 scalar tensor: 0 computes in float, bit for bit as before; positive quantizes.

    Raises:
        TypeError: ``sess`` is no session, or a flag has another type or shape.
        ConfigError: The file cannot be read, or names a layer or strategy that the graph does not have.
        ValueError: Another graph than the default one, one that is optimized already, that holds gradients of these layers, or
            that the session has run: TensorFlow would ignore the changes.
    """
    g = _graph("optimize_model", sess)
    if g is not tf.get_default_graph():
        raise ValueError(
            "optimize_model: sess belongs to another graph than tf.get_default_graph(); call it inside "
            "`with tf.Session() as sess:`"
        )
    _check_float("optimize_model", g)
    names = config.quantized(config.read(config_file, graph.layers(g)))
    config.warn_if_float(config_file, names)
    for what, t, dtype in (("is_train_flag", is_train_flag, tf.bool), ("quant_flag", quant_flag, tf.int32)):
        if getattr(t, "dtype", None) != dtype or t.shape.rank not in (0, None):
            raise TypeError(
                f"optimize_model: {what} must be a scalar tensor, tf.placeholder(tf.{dtype.name}), got {t!r}"
            )
    ops = [g.get_operation_by_name(n) for n in names]
    early = [n for op in ops for n in graph.gradients_of(op)]
    if early:
        raise ValueError(
            f"optimize_model: the graph holds gradients already ({early[0]}), which would keep the float weights; build the "
            "optimizer after optimize_model"
        )
    with tf.name_scope(None), tf.device(None), tf.control_dependencies(None):
        quant = tf.reshape(quant_flag, [], name=f"{graph.SCOPE}/quant_flag")
        observe = tf.reshape(is_train_flag, [], name=f"{graph.SCOPE}/is_train_flag")
        # A variable that is on while it exists: off in every new session, and no checkpoint can hold it.
        handle = tf2.raw_ops.VarHandleOp(dtype=tf.bool, shape=[], shared_name=_FLAG, name=_FLAG)
        calibrate = tf2.raw_ops.VarIsInitializedOp(resource=handle, name=f"{_FLAG}/is_on")
        tf2.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(True), name=f"{_FLAG}/turn_on")
        tf2.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True, name=f"{_FLAG}/turn_off")
    for op in ops:
        graph.quantize_edges(op, quant, observe, calibrate)
    if not graph.takes_effect(sess, ops):
        raise ValueError(
            "optimize_model: sess has run this graph already, so TensorFlow ignores the changes; call optimize_model before the "
            "first sess.run (initializers and Saver.restore included), or build the graph anew for a new tf.Session"
        )


def load_weights(sess: Any, ckpt: str | os.PathLike[str]) -> None:
    """Initialises every variable and restores those that the checkpoint has: of a float model or of an optimized one.

    ``tf.train.Saver().restore`` of a float checkpoint fails in an optimized graph, which has ranges besides.

    Raises:
        TypeError: ``sess`` is no session.
        FileNotFoundError: No such checkpoint.
        ValueError: A trainable variable is not in the checkpoint, or has another shape there.
    """
    checkpoints.load(_graph("load_weights", sess), sess, os.fspath(ckpt))


def set_calibrate_state(sess: Any, calibration_mode: bool) -> None:
    """Turns the training-free mode on or off: while it is on, every forward with ``quant_flag > 0`` improves the ranges.

    Args:
        sess: Session whose graph is optimized.
        calibration_mode: True or False.

    Raises:
        TypeError: ``sess`` is no session, or the mode no bool.
        ValueError: The graph is not optimized.
    """
    g = _graph("set_calibrate_state", sess)
    if not isinstance(calibration_mode, (bool, int)):
        raise TypeError(
            f"set_calibrate_state: calibration_mode must be True or False, got {type(calibration_mode).__name__}"
        )
    try:
        op = g.get_operation_by_name(f"{_FLAG}/turn_{'on' if calibration_mode else 'off'}")
    except KeyError:
        raise ValueError(
            "set_calibrate_state: the session's graph is not optimized; call optimize_model first"
        ) from None
    sess.run(op)


def generate_final_model(
    sess: Any,
    config_file: str | os.PathLike[str],
    output_name_list: list[str],
    ckpt_file: str | os.PathLike[str],
    output_dir: str | os.PathLike[str] = "./",
) -> None:
    """Writes ``quant_model.pb`` (frozen, BatchNorms fused, weights on their 8-bit grids) and ``quant_params.json``.

    Args:
        sess: Session with the float model, built anew; its graph and variables stay as they are.
        config_file: The configuration that ``optimize_model`` was given.
        output_name_list: Names of the output nodes, ``"logits"`` or ``"logits:0"``.
        ckpt_file: Checkpoint of the trained or calibrated graph, saved by a ``tf.train.Saver()`` made after ``optimize_model``.
        output_dir: An existing folder.

    Raises:
        TypeError: ``sess`` is no session, or the outputs are no list of names.
        ConfigError: As ``optimize_model``.
        FileNotFoundError: No checkpoint, or no folder.
        ValueError: An optimized graph, an output that it does not have, or a checkpoint without ranges, data or variables.
    """
    g = _graph("generate_final_model", sess)
    _check_float("generate_final_model", g)
    names = config.quantized(config.read(config_file, graph.layers(g)))
    freeze.write(g, names, output_name_list, os.fspath(ckpt_file), output_dir)


def _graph(call: str, sess: Any) -> Any:
    if not hasattr(sess, "run") or not hasattr(sess, "graph"):
        raise TypeError(f"{call}: sess must be a tf.compat.v1.Session, got {type(sess).__name__}")
    return sess.graph


def _check_float(call: str, g: Any) -> None:
    if graph.is_optimized(g):
        advice = "it cannot be done twice" if call == "optimize_model" else "build the float model in a new graph"
        raise ValueError(f"{call}: the graph is optimized already; {advice} (tf.reset_default_graph())")
