"""Small files for the runner's tests, written with onnx.helper."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT8 = TensorProto.FLOAT, TensorProto.INT8


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, domain="linger", **attributes)


def model(nodes, inputs, outputs, constants=None, opset=12):
    """Bytes of a model; inputs and outputs are ``{name: shape}`` of floats or ``{name: (elem_type, shape)}``."""

    def value(name, what):
        elem, shape = (
            what if isinstance(what, tuple) and len(what) == 2 and isinstance(what[1], list) else (FLOAT, what)
        )
        return helper.make_tensor_value_info(name, elem, shape)

    graph = helper.make_graph(
        nodes,
        "g",
        [value(name, what) for name, what in inputs.items()],
        [value(name, what) for name, what in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("linger", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString(deterministic=True)


def conv(x="q", y="c", **changes):
    attributes = {
        "data_bits": 8,
        "parameter_bits": 8,
        "o_bits": 8,
        "scale_x": 16.0,
        "scale_w": 32.0,
        "scale_o": 8.0,
        "platform": "arcs",
        "kernel_shape": [3, 3],
        "pads": [1, 1, 1, 1],
        "strides": [1, 1],
        "dilations": [1, 1],
        "group": 1,
        "quant_mode": "floor_add",
        **changes,
    }
    return node("Conv2dInt", [x, "w", "b"], [y], **{k: v for k, v in attributes.items() if v is not None})


def weights():
    rng = np.random.default_rng(3)
    return {
        "w": rng.integers(-128, 128, (4, 2, 3, 3)).astype(np.int8),
        "b": rng.integers(-999, 999, 4).astype(np.int32),
        "shape": np.array([0, -1], np.int64),
    }


def network(quant=None, dequant=None, opset=12, **changes):
    """Quant, Conv2dInt, Relu, MaxPool, Reshape, Dequant on ``[1, 2, 6, 6]``; keywords change the convolution."""
    nodes = [
        node("Quant", ["x"], ["q"], **{"data_bits": 8, "scale_x": 16.0, "platform": "arcs", **(quant or {})}),
        conv(**changes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
        helper.make_node("Reshape", ["m", "shape"], ["f"]),
        node("Dequant", ["f"], ["y"], **{"scale_o": 8.0, **(dequant or {})}),
    ]
    return model(nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 36]}, weights(), opset)


def image(seed=0):
    return np.random.default_rng(seed).normal(0, 2, (1, 2, 6, 6)).astype(np.float32)
