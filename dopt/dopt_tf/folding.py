"""Folding a BatchNorm of a frozen graph into the convolution in front of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import tensor_util

__all__ = ["batch_norm", "constant", "fold", "set_constant"]


def constant(by_name: dict[str, Any], name: str) -> Any:
    """The value of a tensor that is a constant, else None."""
    node = by_name[name.split(":")[0].lstrip("^")]
    while node.op in ("Identity", "ReadVariableOp"):
        node = by_name[node.input[0].split(":")[0]]
    return tensor_util.MakeNdarray(node.attr["value"].tensor) if node.op == "Const" else None


def set_constant(gd: Any, name: str, value: Any) -> None:
    """Adds a float32 constant to a graph."""
    node = gd.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.asarray(value, np.float32)))


def _only_reader(gd: Any, name: str, outputs: list[str]) -> Any:
    """The one node that reads the first result of a node and nothing else of it, else None."""
    if name in outputs:
        return None
    readers = [n for n in gd.node if any(i.split(":")[0].lstrip("^") == name for i in n.input)]
    plain = len(readers) == 1 and all(i.split(":")[0] != name or i in (name, f"{name}:0") for i in readers[0].input)
    return readers[0] if plain and list(readers[0].input).count(name) <= 1 else None


def batch_norm(gd: Any, by_name: dict[str, Any], conv: Any, outputs: list[str]) -> Any:
    """(bias node or None, BatchNorm node) where an inference BatchNorm is all that reads the convolution, else None."""
    if conv.op not in ("Conv2D", "DepthwiseConv2dNative"):
        return None
    after, bias = _only_reader(gd, conv.name, outputs), None
    if after is not None and after.op in ("BiasAdd", "Add", "AddV2") and after.input[0].split(":")[0] == conv.name:
        value = constant(by_name, after.input[1])
        if value is None or value.ndim != 1 or (after.op != "BiasAdd" and _data_format(conv) != b"NHWC"):
            return None
        bias, after = after, _only_reader(gd, after.name, outputs)
    if (
        after is None
        or not after.op.startswith("FusedBatchNorm")
        or after.input[0].split(":")[0] != (bias or conv).name
    ):
        return None
    if "is_training" not in after.attr or after.attr["is_training"].b:
        return None
    if any(i.startswith(f"{after.name}:") and i != f"{after.name}:0" for n in gd.node for i in n.input):
        return None
    return (bias, after) if all(constant(by_name, i) is not None for i in after.input[1:5]) else None


def _data_format(conv: Any) -> bytes:
    return bytes(conv.attr["data_format"].s) or b"NHWC"


def fold(gd: Any, by_name: dict[str, Any], conv: Any, found: Any, w: Any, scale: float) -> tuple[Any, list[float]]:
    """The folded weight and its scale per output channel. Codes stay, the bias takes the BatchNorm's name.

    Where a factor is negative the code -128 would become +128, which 8 bits do not hold: it becomes +127, with a warning.
    """
    bias, bn = found
    gamma, beta, mean, var = (constant(by_name, i) for i in bn.input[1:5])
    epsilon = bn.attr["epsilon"].f if "epsilon" in bn.attr else 1e-4
    factor = (gamma / np.sqrt(var + np.float32(epsilon))).astype(np.float32)
    b = np.float32(0) if bias is None else constant(by_name, bias.input[1])
    shaped = factor.reshape(w.shape[2:]) if conv.op.startswith("Depthwise") else factor
    lowest = np.float32(-127 * scale)
    cut = (w < lowest) & (shaped < 0)
    if cut.any():
        warnings.warn(
            f"generate_final_model: layer '{conv.name}': {int(cut.sum())} weights have the code -128 and a negative factor of "
            f"the BatchNorm '{bn.name}' behind; they become 127, one step less", stacklevel=5
        )  # fmt: skip
    w = np.where(cut, lowest, w)
    name, data_format = bn.name, _data_format(conv)
    set_constant(gd, f"{name}/folded_bias", (b - mean) * factor + beta)
    bn.Clear()
    bn.name, bn.op = name, "BiasAdd"
    bn.input.extend([conv.name, f"{name}/folded_bias"])
    bn.attr["T"].type = tf.float32.as_datatype_enum
    bn.attr["data_format"].s = data_format
    return w * shaped, [float(v) for v in np.float32(scale) * np.abs(factor)]
