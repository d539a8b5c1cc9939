"""Reading checkpoints: weights into a session, ranges for the final model."""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from dopt import config

from . import graph

__all__ = ["load", "open_checkpoint", "peak"]


def open_checkpoint(call: str, ckpt: str) -> Any:
    """A reader.

    Raises:
        FileNotFoundError: No checkpoint of that name.
    """
    try:
        return tf.train.NewCheckpointReader(ckpt)
    except (tf.errors.OpError, ValueError, RuntimeError) as e:
        raise FileNotFoundError(f"{call}: cannot read checkpoint '{ckpt}': {e}") from None


def matching(call: str, variables: list[Any], trainable: list[Any], reader: Any, ckpt: str) -> list[Any]:
    """The variables that a checkpoint has.

    Raises:
        ValueError: It lacks a trainable one, or has it in another shape.
    """
    shapes = reader.get_variable_to_shape_map()
    needed = {v.op.name for v in trainable}
    found = []
    for v in variables:
        name, shape = v.op.name, v.shape.as_list()
        if name not in shapes:
            if name in needed:
                near = config.nearest(name, shapes)
                raise ValueError(f"{call}: checkpoint '{ckpt}' has no variable '{name}'{near}")
        elif list(shapes[name]) != shape:
            raise ValueError(
                f"{call}: variable '{name}' has the shape {shape} in the graph, {list(shapes[name])} in checkpoint '{ckpt}'"
            )
        else:
            found.append(v)
    return found


def load(g: Any, sess: Any, ckpt: str) -> None:
    """See ``load_weights``."""
    reader = open_checkpoint("load_weights", ckpt)
    with g.as_default():
        wanted = matching("load_weights", tf.global_variables(), tf.trainable_variables(), reader, ckpt)
        sess.run(tf.global_variables_initializer())
        if wanted:
            tf.train.Saver(wanted).restore(sess, ckpt)


def peak(reader: Any, layer: str, side: int, ckpt: str) -> float:
    """The running maximum of a layer's operand.

    Raises:
        ValueError: The checkpoint has none, or it has seen no data.
    """
    key = graph.state_name(layer, side)
    if not reader.has_tensor(key):
        raise ValueError(
            f"generate_final_model: checkpoint '{ckpt}' holds no range of layer '{layer}'; save it with a tf.train.Saver() made "
            "after optimize_model, of the same configuration"
        )
    found = float(reader.get_tensor(key)[0])
    if not found > 0:
        raise ValueError(
            f"generate_final_model: layer '{layer}' has seen no data in checkpoint '{ckpt}'; run batches with quant_flag 1 and "
            "is_train_flag True, or after set_calibrate_state(sess, True), and save again"
        )
    return found
