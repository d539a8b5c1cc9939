"""Float operators between a Dequant and a Quant: copied, in the forms of opset 13."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from linger.onnx.islands import ANY_KIND

from .node import Node

OPSET = 13
_LATER = "opset 13, which the translation is written in, has no {0} as opset {1} defines it"


def keep(n: Node) -> None:
    """The node as it stands; other integers behind it are another library's rounding."""
    _refuse_later(n)
    if n.op_type not in ANY_KIND and any(n.has_input(i) and n.value(i).bits for i in range(n.n_inputs)):
        n.refuse("a float operator reads an input that is given as codes: translate with inputs='floats'")
    attributes: dict[str, Any] = {name: _plain(value) for name, value in n.attributes.items()}
    op_type, extra = n.op_type, []
    if op_type in ("Softmax", "LogSoftmax") and n.opset < OPSET:
        rank = len(n.shape(0))
        axis = n.integer("axis", 1) % rank
        if axis != rank - 1:
            _over_the_rest(n, axis)
            return
        attributes["axis"] = axis
    if op_type == "ReduceSum" and "axes" in attributes:
        extra = [n.g.ints(*attributes.pop("axes"))]
    if op_type == "Dropout":
        op_type, attributes = "Identity", {}
    inputs = [n.value(i).name if n.has_input(i) else "" for i in range(n.n_inputs if op_type != "Identity" else 1)]
    named = [i for i, name in enumerate(n.outputs) if name]
    last = max(named) + 1
    made = n.g.ops(op_type, inputs + extra, last, **attributes)
    for i in named:
        n.put(made[i], 0, i)


def _over_the_rest(n: Node, axis: int) -> None:
    """Up to opset 12 a softmax takes all axes from ``axis`` on for one."""
    flat = n.g.op("Flatten", n.value(0).name, axis=axis)
    n.put(n.reshaped(n.g.op(n.op_type, flat, axis=-1)))


def _refuse_later(n: Node) -> None:
    """Operators that opset 13 lacks, or defines otherwise than a later one."""
    from onnx import defs

    try:
        now = defs.get_schema(n.op_type, OPSET, "").since_version
        then = defs.get_schema(n.op_type, max(n.opset, OPSET), "").since_version
    except defs.SchemaError:
        now, then = 0, 1
    if now != then:
        n.refuse(_LATER.format(n.op_type, n.opset))


def _plain(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return list(value) if isinstance(value, tuple) else value
    from onnx import numpy_helper

    return numpy_helper.from_array(value.numpy())


__all__ = ["OPSET", "keep"]
