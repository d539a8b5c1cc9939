"""Random nodes: shapes, parameters, scales and extreme operands, with the integers that must come out."""

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.differential import oracle
from tests.ops import functions_oracle as functions
from tests.ops.norm_oracle import layer_norm

INT8 = np.int8
_ELEMENTS = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.int16): TensorProto.INT16,
    np.dtype(np.int32): TensorProto.INT32,
}


@dataclass
class Case:
    """One node: integer operands, initializers, attributes and the wanted result."""

    op: str
    inputs: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    attributes: dict[str, object]
    want: np.ndarray
    order: list[str] = field(default_factory=list)
    domain: str = "linger"

    def model(self, platform: str) -> bytes:
        """The file, integers in and out."""
        names = self.order or [*self.inputs, *self.constants]
        attributes = dict(self.attributes)
        if self.domain:
            attributes |= {"platform": platform, "quant_mode": "floor_add", "platform_quant": "luna_quant"}
        node = helper.make_node(self.op, names, ["out"], domain=self.domain, **attributes)
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info(n, _ELEMENTS[a.dtype], list(a.shape)) for n, a in self.inputs.items()],
            [helper.make_tensor_value_info("out", _ELEMENTS[self.want.dtype], list(self.want.shape))],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 12), helper.make_opsetid("linger", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString()


def codes(rng, shape, bits=8):
    """Operands of many kinds: random, limits only, one sign, nearly constant, sparse."""
    lo, hi = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    kind = rng.integers(6)
    x = rng.integers(lo, hi + 1, shape)
    if kind == 1:
        x = rng.choice([lo, hi], shape)
    elif kind == 2:
        x = np.full(shape, rng.choice([lo, hi, lo + 1]))
    elif kind == 3:
        x = np.abs(x) // 2
    elif kind == 4:
        x = rng.integers(-2, 3, shape) + rng.integers(lo // 2, hi // 2)
    elif kind == 5:
        x = x * (rng.random(shape) < 0.1)
    return x.astype({8: np.int8, 4: np.int8, 16: np.int16, 32: np.int32}[bits])


def offsets(rng, n):
    """int32 biases, some at the limits."""
    b = rng.integers(-(2 ** int(rng.integers(1, 32))), 2 ** int(rng.integers(1, 31)), n)
    if rng.integers(4) == 0:
        b = rng.choice([-(2**31), 2**31 - 1, 0], n)
    return np.clip(b, -(2**31), 2**31 - 1).astype(np.int32)


def scales(rng, low=0, high=22):
    """Exponents of x, w and o whose shift ``q_x + q_w - q_o`` lies in ``low..high``, and now and then far above."""
    q_x, q_w = int(rng.integers(-3, 13)), int(rng.integers(-2, 13))
    shift = int(rng.integers(low, high + 1)) if rng.integers(12) else int(rng.integers(high, 64))
    return q_x, q_w, q_x + q_w - shift, shift


def three(q_x, q_w, q_o, second="scale_w"):
    """Scale attributes."""
    return {"scale_x": oracle.power(q_x), second: oracle.power(q_w), "scale_o": oracle.power(q_o)}


def result(total, shift, bits=8, relu=False):
    """A sum in the type of its width."""
    y = oracle.narrow(total, shift, bits)
    return (np.maximum(y, 0) if relu else y).astype({8: np.int8, 16: np.int16, 32: np.int32}[bits])


def _width(rng, allowed):
    return int(rng.choice(allowed)) if allowed else 8


def conv2d(rng, platform):
    group = int(rng.choice([1, 1, 2, 3]))
    c, o = group * int(rng.integers(1, 5)), group * int(rng.integers(1, 6))
    if rng.integers(4) == 0:
        group = c = o = int(rng.integers(1, 20))
    kernel, stride = rng.integers(1, 6, 2), rng.choice([1, 2, 4], 2)
    stride = np.minimum(stride, 2 ** np.floor(np.log2(kernel)).astype(int))
    dilation = [1, 1] if platform == "venus" or rng.integers(2) else [int(d) for d in rng.choice([1, 2, 4], 2)]
    pads = [int(rng.integers(0, min(4, kernel[i % 2]) + 1)) for i in range(4)]
    size = [int(max(1, dilation[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + 2]) + rng.integers(0, 7)) for i in (0, 1)]
    x, wide = codes(rng, (int(rng.integers(1, 3)), c, *size)), platform == "venus" or rng.integers(4)
    w = codes(rng, (o, c // group, *kernel)) if wide else rng.integers(-8, 8, (o, c // group, *kernel)).astype(INT8)
    b = offsets(rng, o) if rng.integers(3) else None
    q_x, q_w, q_o, shift = scales(rng)
    relu = bool(rng.integers(2))
    attributes = three(q_x, q_w, q_o) | {
        "x_bits": 8, "w_bits": 8 if wide else 4, "o_bits": 8, "kernel_shape": kernel.tolist(), "strides": stride.tolist(),
        "pads": pads, "dilations": dilation, "group": group, "act_type": int(relu),
    }  # fmt: skip
    total = oracle.conv2d(x, w, b, stride, pads, dilation, group)
    constants = {"w": w} | ({} if b is None else {"b": b})
    return Case("Conv2dInt", {"x": x}, constants, attributes, result(total, shift, relu=relu))


def conv1d(rng, platform):
    if platform == "venusA":
        return None
    group = int(rng.choice([1, 1, 2]))
    c, o = group * int(rng.integers(1, 6)), group * int(rng.integers(1, 6))
    kernel = int(rng.integers(1, 6 if platform == "venus" else 13))
    stride = min(int(rng.choice([1, 2, 4])), 2 ** int(np.log2(kernel)))
    pads = [int(rng.integers(0, min(4, kernel) + 1)) for _ in range(2)]
    x = codes(rng, (int(rng.integers(1, 3)), c, max(1, kernel - sum(pads)) + int(rng.integers(0, 12))))
    w, b = codes(rng, (o, c // group, kernel)), offsets(rng, o)
    bits = _width(rng, (8, 16, 32) if platform == "venus" else (8, 32))
    q_x, q_w, q_o, shift = scales(rng)
    attributes = three(q_x, q_w, q_o) | {
        "x_bits": 8, "w_bits": 8, "o_bits": bits, "kernel_shape": [kernel], "strides": [stride], "pads": pads,
        "dilations": [1], "group": group,
    }  # fmt: skip
    lifted = (0, pads[0], 0, pads[1])
    total = oracle.conv2d(x[:, :, None], w[:, :, None], b, (1, stride), lifted, (1, 1), group)[:, :, 0]
    return Case("Conv1dInt", {"x": x}, {"w": w, "b": b}, attributes, result(total, shift, bits))


def conv_transpose2d(rng, platform):
    c, o = (int(v) for v in rng.integers(1, 8, 2))
    kernel, stride = rng.integers(1, 6, 2), rng.choice([1, 2, 4], 2)
    stride = np.minimum(stride, 2 ** np.floor(np.log2(kernel)).astype(int))
    size = rng.integers(1, 6, 2)
    extra = [int(rng.integers(0, s)) for s in stride]
    full = [(size[i] - 1) * stride[i] + kernel[i] for i in (0, 1)]
    pads = [int(rng.integers(0, min(kernel[i % 2] - 1, (full[i % 2] - 1) // 2) + 1)) for i in range(4)]
    x, w, b = codes(rng, (1, c, *size)), codes(rng, (c, o, *kernel)), offsets(rng, o)
    q_x, q_w, q_o, shift = scales(rng)
    attributes = three(q_x, q_w, q_o) | {
        "x_bits": 8, "w_bits": 8, "o_bits": 8, "kernel_shape": kernel.tolist(), "strides": stride.tolist(), "pads": pads,
        "dilations": [1, 1], "group": 1, "output_padding": [*extra, 0, 0],
    }  # fmt: skip
    total = oracle.conv_transpose2d(x, w, b, stride, pads, extra)
    return Case("ConvTranspose2dInt", {"x": x}, {"w": w, "b": b}, attributes, result(total, shift))


def linear(rng, platform):
    rows = rng.integers(1, 5, int(rng.integers(1, 3))).tolist()
    k, o = int(rng.choice([1, 3, 16, 17, 64, 300])), int(rng.integers(1, 40))
    x, w = codes(rng, (*rows, k)), codes(rng, (o, k))
    b = offsets(rng, o) if rng.integers(3) else None
    bits = _width(rng, (8, 16, 32) if platform == "venus" else (8, 32))
    q_x, q_w, q_o, shift = scales(rng, -4 if bits == 32 and platform != "venus" else 0)
    attributes = three(q_x, q_w, q_o) | {"x_bits": 8, "w_bits": 8, "o_bits": bits}
    total = x.astype(np.int64) @ w.astype(np.int64).T + (0 if b is None else b.astype(np.int64))
    constants = {"w": w} | ({} if b is None else {"b": b})
    return Case("LinearInt", {"x": x}, constants, attributes, result(total, shift, bits))


def batch_norm(rng, platform):
    x = codes(rng, rng.integers(1, 7, 4))
    w, b = codes(rng, x.shape[1]), offsets(rng, x.shape[1])
    q_x, q_w, q_o, shift = scales(rng, -6 if platform == "venus" else 0)
    total = x * w.astype(np.int64)[:, None, None] + b.astype(np.int64)[:, None, None]
    want = oracle.sat(oracle.rsh(total, shift) if shift >= 0 else total << -shift, 8).astype(INT8)
    attributes = three(q_x, q_w, q_o) | {"x_bits": 8, "w_bits": 8, "o_bits": 8}
    return Case("BatchNorm2dInt", {"x": x}, {"w": w, "b": b}, attributes, want)


def _pool(rng, largest):
    kernel = rng.integers(1, largest + 1, 2)
    stride = np.minimum(rng.integers(1, 5, 2), kernel)
    pads = [int(rng.integers(0, (kernel[i % 2] + 1) // 2)) for i in range(4)]
    size = [int(max(1, kernel[i] - pads[i] - pads[i + 2]) + rng.integers(0, 8)) for i in (0, 1)]
    x = codes(rng, (int(rng.integers(1, 3)), int(rng.integers(1, 19)), *size))
    attributes = {"kernel_shape": kernel.tolist(), "strides": stride.tolist(), "pads": pads, "ceil_mode": 0}
    return x, kernel, stride, pads, attributes


def avg_pool(rng, platform):
    x, kernel, stride, pads, attributes = _pool(rng, 9)
    q = oracle.power(int(rng.integers(-3, 13)))
    want = oracle.avg_pool(x, kernel, stride, pads).astype(INT8)
    attributes |= {"scale_x": q, "scale_o": q, "x_bits": 8, "o_bits": 8}
    return Case("AvgPool2dInt", {"x": x}, {}, attributes, want)


def max_pool(rng, platform):
    x, kernel, stride, pads, attributes = _pool(rng, 5)
    want = oracle.max_pool(x, kernel, stride, pads).astype(INT8)
    return Case("MaxPool", {"x": x}, {}, attributes, want, domain="")


def _two(rng, platform, op, sign):
    bits = _width(rng, (8, 16, 32)) if platform != "venus" and op == "iqAdd" else 8
    shape = rng.integers(1, 9, int(rng.integers(1, 5)))
    x, y = codes(rng, shape, bits), codes(rng, shape, bits)
    q_o = int(rng.integers(-3, 10))
    s, t = (int(v) for v in rng.integers(0, 12, 2))
    if op == "iqSub":
        s += 1  # the engine knows no other
    a, b = (oracle.sat(oracle.rsh(v.astype(np.int64), n), bits) for v, n in ((x, s), (y, t)))
    want = oracle.sat(a + sign * b, bits).astype(x.dtype)
    attributes = three(q_o + s, q_o + t, q_o, "scale_y") | {"x_bits": bits, "y_bits": bits, "o_bits": bits}
    return Case(op, {"x": x, "y": y}, {}, attributes, want)


def add(rng, platform):
    return _two(rng, platform, "iqAdd", 1)


def sub(rng, platform):
    return _two(rng, platform, "iqSub", -1)


def mul(rng, platform):
    q_x, q_y, q_o, shift = scales(rng, high=16)
    kind = rng.integers(3)
    shape = rng.integers(1, 8, 4 if kind == 1 else int(rng.integers(1, 5)))
    if kind == 1:
        shape[0] = 1
    x = codes(rng, shape)
    y = codes(rng, [tuple(shape), (1, int(shape[1]), 1, 1) if kind == 1 else (), ()][kind])
    want = result(x.astype(np.int64) * y.astype(np.int64), shift)
    attributes = three(q_x, q_y, q_o, "scale_y") | {"x_bits": 8, "y_bits": 8, "o_bits": 8}
    if kind == 2:
        return Case("iqMul", {"x": x}, {"y": np.array(y, INT8)}, attributes, want)
    return Case("iqMul", {"x": x, "y": y}, {}, attributes, want)


def cat(rng, platform):
    rank, n = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    shape, axis, q_o = rng.integers(1, 6, rank), int(rng.integers(-rank, rank)), int(rng.integers(-3, 10))
    inputs, parts, attributes = {}, [], {"dim": axis, "o_bits": 8, "scale_o": oracle.power(q_o)}
    for i in range(n):
        shape[axis] = rng.integers(1, 6)
        left = int(rng.integers(0 if platform == "venusA" else -9, 7))
        inputs[f"x{i}"] = codes(rng, shape)
        attributes |= {f"scale_x_{i}": oracle.power(q_o - left), f"x_{i}_bits": 8}
        parts.append(oracle.rescaled(inputs[f"x{i}"], left))
    return Case("iqCat", inputs, {}, attributes, np.concatenate(parts, axis).astype(INT8))


def bmm(rng, platform):
    m, k, n = (int(v) for v in rng.choice([1, 2, 5, 8, 17, 33], 3))
    stack = [int(rng.integers(1, 4))] if rng.integers(3) else []
    x, y = codes(rng, (*stack, m, k)), codes(rng, (*stack, k, n))
    bits = _width(rng, {"arcs": (8, 32), "venusA": (8, 16, 32)}.get(platform, (8,)))
    q_x, q_y, q_o, shift = scales(rng)
    attributes = three(q_x, q_y, q_o, "scale_y") | {"x_bits": 8, "y_bits": 8, "o_bits": bits}
    want = result(x.astype(np.int64) @ y.astype(np.int64), shift, bits)
    return Case("BmmInt", {"x": x, "y": y}, {}, attributes, want)


def quant(rng, platform):
    q = int(rng.integers(-3, 24))
    x = rng.normal(0, 100, rng.integers(1, 9, int(rng.integers(1, 5)))).astype(np.float32)
    edges = np.float32(
        [0.5, -0.5, 1.5, -1.5, 0.49999997, 1.4999999, -0.50000006, 127.5, -128.5, np.inf, -np.inf, np.nan, -0.0]
    )
    x = np.where(rng.random(x.shape) < 0.3, rng.choice(edges, x.shape), x).astype(np.float32) / np.float32(2.0**q)
    moved = np.floor(x * np.float32(2.0**q) + np.float32(0.5))
    want = np.clip(np.nan_to_num(moved, nan=0.0, posinf=1e9, neginf=-1e9), -128, 127).astype(INT8)
    return Case("Quant", {"x": x}, {}, {"scale_x": oracle.power(q), "data_bits": 8, "zero_point": 0}, want)


def requant(rng, platform):
    bits, q_x = _width(rng, (8, 16, 32)), int(rng.integers(-3, 10))
    left = int(rng.integers(-12 if bits == 8 else 0, 7 if bits == 8 else bits - 7))
    x = codes(rng, rng.integers(1, 9, int(rng.integers(1, 5))))
    want = oracle.rescaled(x, left, bits).astype({8: np.int8, 16: np.int16, 32: np.int32}[bits])
    attributes = {"scale_x": oracle.power(q_x), "scale_o": oracle.power(q_x + left), "data_bits": 8, "o_bits": bits}
    return Case("Requant", {"x": x}, {}, attributes, want)


def norm(rng, platform):
    n = int(rng.choice([4, 5, 16, 20, 64, 256, 257, 400]))
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 4)), n)
    gamma_bits = 4 if n % 32 == 0 and platform != "venus" and rng.integers(3) == 0 else 8
    gamma = rng.integers(-8, 8, n).astype(INT8) if gamma_bits == 4 else codes(rng, n, 16 if platform == "venus" else 8)
    x, beta = codes(rng, shape), offsets(rng, n)
    q_x, q_w = int(rng.integers(-2, 12)), int(rng.integers(0, 12))
    shift = int(rng.integers(0, 26))
    want = layer_norm(x, gamma, beta, q_x, shift, 16 if platform == "venus" else 32).astype(INT8)
    attributes = three(q_x, q_w, 10 + q_w - shift) | {"x_bits": 8, "w_bits": gamma_bits, "o_bits": 8}
    return Case("LayerNormInt", {"x": x}, {"w": gamma, "b": beta}, attributes, want)


def _curve(rng, platform, op, function):
    bits = 16 if platform == "venus" else 8
    x = codes(rng, rng.integers(1, 12, int(rng.integers(1, 5))), bits)
    q_x = int(rng.integers(-10, 30) if platform == "venus" else rng.integers(-3, 28))
    wide = functions.fixed(x, q_x, *((11, 16) if platform == "venus" else (27, 32)))
    attributes = {"scale_x": oracle.power(q_x), "scale_o": 128.0, "x_bits": bits, "o_bits": 8}
    return Case(op, {"x": x}, {}, attributes, function(wide, platform, 8).astype(INT8))


def sigmoid(rng, platform):
    return _curve(rng, platform, "iqSigmoid", functions.sigmoid)


def tanh(rng, platform):
    return _curve(rng, platform, "iqTanh", functions.tanh)


def glu(rng, platform):
    if platform == "venus":
        return None
    shape = [*rng.integers(1, 6, int(rng.integers(0, 3))), 2 * int(rng.integers(1, 20))]
    x, q_x = codes(rng, shape), int(rng.integers(-3, 28))
    bits = _width(rng, (8, 16, 32)) if platform == "venusA" else 8
    shift = int(rng.integers(-4 if platform == "venusA" else 0, 36))
    want = functions.glu(x, q_x, platform, shift, bits).astype({8: np.int8, 16: np.int16, 32: np.int32}[bits])
    gate = 15 if platform == "venusA" else 31
    attributes = {"scale_x": oracle.power(q_x), "scale_o": oracle.power(gate + q_x - shift)}
    return Case("GluInt", {"x": x}, {}, attributes | {"x_bits": 8, "o_bits": bits, "dim": len(shape) - 1}, want)


def log_softmax(rng, platform):
    if platform != "venusA":
        return None
    bits = _width(rng, (8, 16))
    x = codes(rng, (*rng.integers(1, 5, 2), int(rng.choice([1, 2, 10, 300]))), bits)
    q_x, q_o = int(rng.integers(0, 8 if bits == 8 else 15)), int(rng.integers(-2, 16))
    rows = functions.log_softmax(functions.fixed(x, q_x, 25, 32))
    want = oracle.narrow(rows, 15 - q_o, bits).astype(x.dtype)
    attributes = {
        "scale_x": oracle.power(q_x),
        "scale_o": oracle.power(q_o),
        "axis": -1,
        "x_bits": bits,
        "o_bits": bits,
    }
    return Case("LogSoftmaxInt", {"x": x}, {}, attributes, want)


def div(rng, platform):
    x, log2, q_x, q_y = (
        codes(rng, rng.integers(1, 9, 2)),
        int(rng.integers(0, 7)),
        int(rng.integers(0, 10)),
        int(rng.integers(0, 7)),
    )
    k = int(rng.choice([v for v in range(-14, 7) if v != 0]))
    want = oracle.rescaled(x, k).astype(INT8)
    attributes = three(q_x, q_y, k + q_x - q_y + log2, "scale_y") | {"x_bits": 8, "y_bits": 8, "o_bits": 8}
    return Case("iqDiv", {"x": x}, {"y": np.array(1 << log2, INT8)}, attributes, want)


def arg_max(rng, platform):
    x = codes(rng, (1, *rng.integers(1, 5, int(rng.integers(0, 3))), int(rng.integers(1, 20))))
    want = np.concatenate([x.max(-1, keepdims=True), x.argmax(-1)[..., None]]).astype(np.int32)
    return Case("ArgMax", {"x": x}, {}, {"axis": -1, "keepdims": 1}, want, domain="")


def relu(rng, platform):
    x = codes(rng, rng.integers(1, 9, int(rng.integers(1, 5))))
    return Case("Relu", {"x": x}, {}, {}, np.maximum(x, 0), domain="")


def softmax(rng, platform):
    if platform == "venus":
        return None
    bits = 8 if platform == "arcs" else _width(rng, (8, 16))
    rank = int(rng.integers(1, 4))
    x = codes(rng, (*rng.integers(1, 5, rank), int(rng.choice([1, 2, 10, 300]))), bits)
    q_x, q_o = int(rng.integers(0, 8 if bits == 8 else 15)), int(rng.integers(0, 16))
    want = oracle.softmax(x, q_x, q_o, bits, platform == "venusA").astype(x.dtype)
    attributes = {
        "scale_x": oracle.power(q_x),
        "scale_o": oracle.power(q_o),
        "axis": -1,
        "dim": -1,
        "x_bits": bits,
        "o_bits": bits,
    }
    return Case("SoftmaxInt", {"x": x}, {}, attributes, want)


MAKERS = {
    f.__name__: f
    for f in (
        conv2d, conv1d, conv_transpose2d, linear, batch_norm, avg_pool, max_pool, add, sub, mul, cat, bmm, quant, requant, norm,
        softmax, log_softmax, sigmoid, tanh, glu, div, arg_max, relu,
    )
}  # fmt: skip
