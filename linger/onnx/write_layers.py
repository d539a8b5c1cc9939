"""Float layers with weights or windows as standard ONNX nodes: products, convolution, normalisation, pooling, resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .write_call import Array, Call, Piece, Value, Writer, Written, add, ints, tuple_of, writes

# ---- products


def linear(c: Call, x: Piece, rank: int, weight: Tensor, bias: Tensor | None) -> Value:
    """``x @ weight.T + bias``: Gemm for a matrix, else MatMul with the weight turned beforehand."""
    if rank == 2:
        return c.node("Gemm", x, c.of(weight), None if bias is None else c.of(bias), transB=1)
    fixed = c.fixed(weight)
    if fixed is None:
        turned: Piece = c.node("Transpose", c.of(weight), perm=[1, 0])
    else:
        turned = c.constant(weight, fixed.T, "T")
    y = c.node("MatMul", x, turned)
    return y if bias is None else c.node("Add", y, c.of(bias))


@writes("F.linear", "input weight bias=None")
def _linear(c: Call) -> Written:
    return linear(c, c(), c.rank, c["weight"], c["bias"]) if c["weight"].dim() == 2 else None


add(
    """torch.matmul Tensor.matmul Tensor.__matmul__ operator.matmul torch.bmm Tensor.bmm torch.mm Tensor.mm torch.mv
    Tensor.mv torch.dot Tensor.dot linalg.matmul""",
    "input other|input mat2|input vec",
    lambda c: c.node("MatMul", c(), c.of(next(v for k, v in c.named.items() if k != "input"))),
)
add("Tensor.__rmatmul__", "input other", lambda c: c.node("MatMul", c("other"), c()))


def _scaled(c: Call, x: Piece, by: float) -> Piece:
    return x if by == 1 else c.node("Mul", x, float(by))


@writes("torch.addmm Tensor.addmm", "input mat1 mat2 beta=1 alpha=1")
def _addmm(c: Call) -> Written:
    given = c("input") if c["beta"] != 0 else None
    return c.node("Gemm", c("mat1"), c("mat2"), given, alpha=float(c["alpha"]), beta=float(c["beta"]))


@writes("torch.baddbmm Tensor.baddbmm", "input batch1 batch2 beta=1 alpha=1")
def _baddbmm(c: Call) -> Written:
    product = _scaled(c, c.node("MatMul", c("batch1"), c("batch2")), c["alpha"])
    return product if c["beta"] == 0 else c.node("Add", product, _scaled(c, c(), c["beta"]))


# ---- windows


class _Batch:
    """Operators of ``n`` spatial dimensions take (N, C, ...); an input without N is lifted, the result lowered."""

    def __init__(self, c: Call, n: int) -> None:
        self.c, self.lifted = c, c.rank == n + 1
        if c.rank not in (n + 1, n + 2):
            c.refuse(f"an input of {c.rank} dimensions")
        self.x = c.node("Unsqueeze", c(), axes=[0]) if self.lifted else c()
        self.spatial = [int(s) for s in c.x.shape[c.rank - n :]]

    def done(self, y: Value) -> Value:
        return self.c.node("Squeeze", y, axes=[0]) if self.lifted else y


def _pads(c: Call, padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Begins, then ends; ``"same"`` puts the odd one at the end, as torch does."""
    n = len(kernel)
    if padding == "valid":
        return [0] * (2 * n)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [t // 2 for t in total] + [t - t // 2 for t in total]
    return tuple_of(padding, n) * 2


def _convolution(n: int) -> Writer:
    def write(c: Call) -> Written:
        batch, kernel = _Batch(c, n), [int(s) for s in c["weight"].shape[2:]]
        dilation = tuple_of(c["dilation"], n)
        bias = None if c["bias"] is None else c("bias")
        y = c.node(
            "Conv", batch.x, c("weight"), bias, kernel_shape=kernel, strides=tuple_of(c["stride"], n),
            pads=_pads(c, c["padding"], kernel, dilation), dilations=dilation, group=int(c["groups"]),
        )  # fmt: skip
        return batch.done(y)

    return write


def _transposed(n: int) -> Writer:
    def write(c: Call) -> Written:
        batch, kernel = _Batch(c, n), [int(s) for s in c["weight"].shape[2:]]
        bias = None if c["bias"] is None else c("bias")
        y = c.node(
            "ConvTranspose", batch.x, c("weight"), bias, kernel_shape=kernel, strides=tuple_of(c["stride"], n),
            pads=tuple_of(c["padding"], n) * 2, output_padding=tuple_of(c["output_padding"], n),
            dilations=tuple_of(c["dilation"], n), group=int(c["groups"]),
        )  # fmt: skip
        return batch.done(y)

    return write


def _window(c: Call, n: int, spatial: list[int]) -> dict[str, Any]:
    """Attributes of a pooling; ceil mode only where it changes the size, and only as ONNX understands it."""
    kernel = tuple_of(c["kernel_size"], n)
    stride = kernel if c["stride"] is None or c["stride"] == [] else tuple_of(c["stride"], n)
    pad, dilation = tuple_of(c["padding"], n), tuple_of(c.named.get("dilation", 1), n)
    ceil = False
    for i, size in enumerate(c.shape[len(c.shape) - n :]):
        span = spatial[i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1
        ceil |= size != span // stride[i] + 1
        if c["ceil_mode"] and size != -(-span // stride[i]) + 1:
            c.refuse("in ceil mode ONNX keeps a last window that lies in the padding; torch drops it")
    window = {"kernel_shape": kernel, "strides": stride, "pads": pad * 2}
    return {**window, "ceil_mode": 1} if ceil else window


def _max_pool(n: int) -> Writer:
    def write(c: Call) -> Written:
        if not isinstance(c.result, Tensor):
            c.refuse("return_indices=True")
        batch = _Batch(c, n)
        window, dilation = _window(c, n, batch.spatial), tuple_of(c["dilation"], n)
        if any(d != 1 for d in dilation):
            window["dilations"] = dilation
        return batch.done(c.node("MaxPool", batch.x, **window))

    return write


def _avg_pool(n: int) -> Writer:
    def write(c: Call) -> Written:
        batch = _Batch(c, n)
        window = _window(c, n, batch.spatial)
        padded = any(window["pads"])
        if c.named.get("divisor_override") not in (None, math.prod(window["kernel_shape"])):
            c.refuse("divisor_override")
        if padded and c["count_include_pad"]:
            window["count_include_pad"] = 1
        elif c.named.get("divisor_override") is not None and (padded or "ceil_mode" in window):
            c.refuse("divisor_override with padding")
        return batch.done(c.node("AveragePool", batch.x, **window))

    return write


def _adaptive(n: int, kind: str) -> Writer:
    def write(c: Call) -> Written:
        if not isinstance(c.result, Tensor):
            c.refuse("return_indices=True")
        batch = _Batch(c, n)
        out = c.shape[len(c.shape) - n :]
        if all(o == 1 for o in out):
            return batch.done(c.node(f"Global{kind}Pool", batch.x))
        if any(s % o for s, o in zip(batch.spatial, out, strict=True)):
            sizes = [" x ".join(map(str, s)) for s in (batch.spatial, out)]
            c.refuse(f"{sizes[0]} is no multiple of {sizes[1]}, so its windows differ in size")
        kernel = [s // o for s, o in zip(batch.spatial, out, strict=True)]
        return batch.done(c.node(f"{kind}Pool", batch.x, kernel_shape=kernel, strides=kernel, pads=[0] * (2 * n)))

    return write


_MAX = "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False"
_AVERAGE = "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True divisor_override=None"
for _n in (1, 2, 3):
    add(
        f"F.conv{_n}d torch.conv{_n}d",
        "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
        _convolution(_n),
    )
    add(
        f"F.conv_transpose{_n}d torch.conv_transpose{_n}d",
        "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
        _transposed(_n),
    )
    add(f"torch.max_pool{_n}d F.max_pool{_n}d", _MAX, _max_pool(_n))
    add(f"F.avg_pool{_n}d torch.avg_pool{_n}d", _AVERAGE, _avg_pool(_n))
    _sized = "input output_size return_indices=False"
    add(f"F.adaptive_avg_pool{_n}d torch.adaptive_avg_pool{_n}d", _sized, _adaptive(_n, "Average"))
    add(f"F.adaptive_max_pool{_n}d torch.adaptive_max_pool{_n}d", _sized, _adaptive(_n, "Max"))


# ---- normalisation


def _filled(c: Call, t: Tensor | None, fill: float, size: int) -> Piece:
    return c.of(t) if t is not None else np.full(size, fill, np.float32)


@writes(
    "F.batch_norm torch.batch_norm",
    "input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-5"
    "|input weight bias running_mean running_var training momentum eps cudnn_enabled",
)
def _batch_norm(c: Call) -> Written:
    if c["training"] or c["running_mean"] is None or c["running_var"] is None:
        c.refuse("statistics of the batch; only running statistics are written")
    channels = int(c.x.shape[1])
    gamma, beta = _filled(c, c["weight"], 1.0, channels), _filled(c, c["bias"], 0.0, channels)
    return c.node("BatchNormalization", c(), gamma, beta, c("running_mean"), c("running_var"), epsilon=float(c["eps"]))


def _affine(c: Call, y: Value, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int] | None = None) -> Value:
    """``y * weight + bias``; ``shape`` stands them along the channel axis."""
    for op_type, t in (("Mul", weight), ("Add", bias)):
        if t is not None:
            fixed = c.fixed(t) if shape else None
            if fixed is not None and shape:
                y = c.node(op_type, y, c.constant(t, fixed.reshape(tuple(shape)), "channels"))
            else:
                y = c.node(op_type, y, c.node("Reshape", c.of(t), ints(*shape)) if shape else c.of(t))
    return y


def _standardised(c: Call, axes: list[int], eps: float, centred: bool = True) -> Value:
    """(x - mean) / sqrt(mean square + eps) over ``axes``."""
    x = c()
    off = c.node("Sub", x, c.node("ReduceMean", x, axes=axes, keepdims=1)) if centred else x
    power = c.node("ReduceMean", c.node("Mul", off, off), axes=axes, keepdims=1)
    return c.node("Div", off, c.node("Sqrt", c.node("Add", power, eps)))


def _last(c: Call) -> list[int]:
    shape = c["normalized_shape"]
    return list(range(c.rank - (1 if isinstance(shape, int) else len(shape)), c.rank))


@writes("F.layer_norm torch.layer_norm", "input normalized_shape weight=None bias=None eps=1e-5 cudnn_enable=True")
def _layer_norm(c: Call) -> Written:
    return _affine(c, _standardised(c, _last(c), float(c["eps"])), c["weight"], c["bias"])


@writes("F.rms_norm torch.rms_norm", "input normalized_shape weight=None eps=None")
def _rms_norm(c: Call) -> Written:
    eps = torch.finfo(c.x.dtype).eps if c["eps"] is None else float(c["eps"])
    return _affine(c, _standardised(c, _last(c), eps, centred=False), c["weight"], None)


@writes("F.group_norm torch.group_norm", "input num_groups weight=None bias=None eps=1e-5 cudnn_enabled=True")
def _group_norm(c: Call) -> Written:
    groups = int(c["num_groups"])
    ones = np.ones(groups, np.float32)
    rows = c.node("Reshape", c(), ints(0, groups, -1))
    y = c.node("InstanceNormalization", rows, ones, np.zeros_like(ones), epsilon=float(c["eps"]))
    y = c.node("Reshape", y, ints(0, *c.shape[1:]))
    return _affine(c, y, c["weight"], c["bias"], [-1] + [1] * (c.rank - 2))


@writes(
    "F.instance_norm",
    "input running_mean=None running_var=None weight=None bias=None use_input_stats=True momentum=0.1 eps=1e-5",
)
def _instance_norm(c: Call) -> Written:
    if c.rank < 3:
        return None
    channels = int(c.x.shape[1])
    scales = _filled(c, c["weight"], 1.0, channels), _filled(c, c["bias"], 0.0, channels)
    if c["use_input_stats"]:
        return c.node("InstanceNormalization", c(), *scales, epsilon=float(c["eps"]))
    return c.node("BatchNormalization", c(), *scales, c("running_mean"), c("running_var"), epsilon=float(c["eps"]))


# ---- borders and sizes

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@writes("F.pad", "input pad mode='constant' value=None")
def _pad(c: Call) -> Written:
    mode = _MODES.get(c["mode"])
    if mode is None:
        c.refuse(f"padding mode {c['mode']!r}")
    flat = [int(v) for v in c["pad"]]
    pads = [0] * (2 * c.rank)
    for i in range(len(flat) // 2):
        axis = c.rank - 1 - i
        pads[axis], pads[axis + c.rank] = flat[2 * i], flat[2 * i + 1]
    fill = [c.of(c["value"] or 0.0, c.dtype)] if mode == "constant" else []
    return c.node("Pad", c(), ints(*pads), *fill, mode=mode)


_RESIZE = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}
_NONE = np.zeros(0, np.float32)


@writes(
    "F.interpolate F.upsample",
    "input size=None scale_factor=None mode='nearest' align_corners=None recompute_scale_factor=None antialias=False",
)
def _interpolate(c: Call) -> Written:
    mode = _RESIZE.get(c["mode"])
    if mode is None or c["antialias"]:
        c.refuse(f"mode {c['mode']!r}{', antialias' if c['antialias'] else ''}")
    if mode == "nearest":
        rule: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        rule = {"coordinate_transformation_mode": "align_corners" if c["align_corners"] else "half_pixel"}
    spatial, out = [int(s) for s in c.x.shape[2:]], c.shape[2:]
    whole = all(o % s == 0 for o, s in zip(out, spatial, strict=True))
    factor = c["scale_factor"]
    if factor is not None and not c["recompute_scale_factor"]:
        listed = [float(f) for f in (factor if isinstance(factor, (list, tuple)) else [factor] * len(out))]
    elif whole:
        listed = [float(o // s) for o, s in zip(out, spatial, strict=True)]
    else:
        return c.node("Resize", c(), _NONE, _NONE, ints(*c.shape), mode=mode, **rule)
    scales: Array = np.array([1.0, 1.0, *listed], np.float32)
    return c.node("Resize", c(), _NONE, scales, mode=mode, **rule)
