"""Finding layers in a graph, and quantizing the edges that enter them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from . import native

__all__ = [
    "OP_TYPES",
    "SCOPE",
    "gradients_of",
    "is_optimized",
    "is_weight",
    "layers",
    "quantize_edges",
    "state_name",
    "takes_effect",
]

OP_TYPES = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
SCOPE = "dopt"
_VALUES = ("VarHandleOp", "VariableV2", "Variable", "Const")


def _is_gradient(op: Any) -> bool:
    """tf.gradients marks its operations; in an imported meta graph only their names tell."""
    return getattr(op, "_original_op", None) is not None or "_grad/" in op.name


def layers(graph: Any) -> dict[str, str]:
    """The layers that can be quantized: node name -> op type, in the order of the graph.

    Float32 ones of the main graph; what stands in a function or inside cond and while_loop is none of them.
    """
    return {
        op.name: op.type
        for op in graph.get_operations()
        if op.type in OP_TYPES
        and not _is_gradient(op)
        and op._get_control_flow_context() is None
        and op.outputs[0].dtype.base_dtype == tf.float32
        and not op.name.startswith(SCOPE + "/")
    }


def is_optimized(graph: Any) -> bool:
    """Whether optimize_model has been here."""
    return any(op.name.startswith(SCOPE + "/") for op in graph.get_operations())


def is_weight(t: Any) -> bool:
    """Whether a tensor is computed from variables and constants alone."""
    seen, todo = set(), [t.op]
    while todo:
        op = todo.pop()
        if op.name in seen or op.type in _VALUES:
            continue
        seen.add(op.name)
        if (
            op.type.startswith(("Placeholder", "Iterator", "Random"))
            or op.type in ("Merge", "If", "While")
            or not op.inputs
        ):
            return False
        todo += [i.op for i in op.inputs]
    return True


def gradients_of(op: Any) -> list[str]:
    """Names of gradient operations of a layer that exist already."""
    readers = [c for t in (*op.inputs, *op.outputs) for c in t.consumers()]
    return sorted(
        {c.name for c in readers if getattr(c, "_original_op", None) is op or f"/{op.name}_grad/" in f"/{c.name}"}
    )


def state_name(layer: str, side: int) -> str:
    """Name of the variable that holds the range of a layer's operand."""
    return f"{SCOPE}/{layer}/input_{side}_state"


def quantize_edges(op: Any, quant: Any, observe: Any, calibrate: Any) -> None:
    """Puts quantizers on both operands of a layer; every other consumer of those tensors keeps what it had."""
    with tf.name_scope(None), tf.device(None), tf.control_dependencies(None):
        for side in (0, 1):
            x = op.inputs[side]
            if is_weight(x):
                y, _ = native.quantize_weight(x, quant, f"{SCOPE}/{op.name}/weight_{side}")
            else:
                with tf.variable_scope(tf.VariableScope(reuse=False), auxiliary_name_scope=False):
                    state = tf.get_variable(
                        state_name(op.name, side), [native.N_STATE], tf.float32, tf.zeros_initializer(),
                        trainable=False, use_resource=True,
                    )  # fmt: skip
                y = native.quantize(x, state, quant, observe, calibrate, f"{SCOPE}/{op.name}/input_{side}")
            y.set_shape(x.shape)
            op._update_input(side, y)


def takes_effect(sess: Any, ops: list[Any]) -> bool:
    """Whether the session sees the new inputs of rewritten layers: zeros fed there must come out as zeros.

    TensorFlow ignores changes to operations that the session has run before, and only logs it. A layer of unknown shape cannot be
    asked; the next one is.
    """
    for op in ops:
        shapes: list[Any] = [None if t.shape.rank is None else t.shape.as_list() for t in op.inputs]
        if None in shapes or None in shapes[1]:
            continue
        kernel = shapes[1][0] if op.type == "MatMul" else max(shapes[1][:2])
        zeros = [np.zeros([d or (kernel if i else 1) for i, d in enumerate(s)], np.float32) for s in shapes]
        try:
            return not np.any(sess.run(op.outputs[0], dict(zip(op.inputs, zeros, strict=True))))
        except tf.errors.FailedPreconditionError:  # reads a variable: the old edge
            return False
        except tf.errors.OpError as e:
            return "feed a value" not in e.message
    return True
