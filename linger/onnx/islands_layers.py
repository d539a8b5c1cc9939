"""Float islands with weights or windows: convolution, matrix product, normalisation, pooling, resampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from linger.onnx.values import ReadNode

_LARGEST = 1 << 20  # of a factor of resampling and of a pad of its own
_WIDEST = 1 << 10  # of a window, stride, pad or dilation: torch 2.13 crashes in transposed convolutions from 2**15 on


def broadcast(node: ReadNode, *shapes: torch.Size) -> tuple[int, ...]:
    """Common shape of operands that are broadcast against each other."""
    rank = max(len(shape) for shape in shapes)
    common = []
    for sizes in zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in shapes), strict=True):
        different = {size for size in sizes if size != 1}
        if len(different) > 1:
            raise node.error(f"shapes {[tuple(shape) for shape in shapes]} cannot be broadcast")
        common.append(different.pop() if different else 1)
    return tuple(common)


def _optional(node: ReadNode, i: int) -> Tensor | None:
    return node.floats(i) if node.has_input(i) else None


def _sizes(node: ReadNode, name: str, axes: int, default: tuple[int, ...] | None, lowest: int = 1) -> tuple[int, ...]:
    values = node.integers(name, axes, default)
    if any(not lowest <= v <= _WIDEST for v in values):
        raise node.error(f"attribute {name!r} must hold sizes in {lowest}..{_WIDEST}, got {values}")
    return values


def _window(node: ReadNode, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """strides, dilations, pads (begins then ends)."""
    if not 1 <= axes <= 3:
        raise node.error(f"needs one to three spatial dimensions, got {axes}")
    if node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.error("attribute 'auto_pad' must be NOTSET: write the pads")
    ones = (1,) * axes
    pads = _sizes(node, "pads", 2 * axes, (0,) * (2 * axes), 0)
    return _sizes(node, "strides", axes, ones), _sizes(node, "dilations", axes, ones), pads


def _padded(x: Tensor, pads: tuple[int, ...], value: float = 0.0) -> Tensor:
    half = len(pads) // 2
    return F.pad(x, [v for a in reversed(range(half)) for v in (pads[a], pads[a + half])], value=value)


def _room(
    node: ReadNode, x: Tensor, channels: int, work: int, kernel: tuple[int, ...], window: Any, up: bool = False
) -> None:
    """Bound the output (generously) and the padded input of a windowed operator."""
    stride, dilation, pads = window
    half, out = len(pads) // 2, []
    for a in range(half):
        size = x.shape[a + 2] + pads[a] + pads[a + half]
        extent = dilation[a] * (kernel[a] - 1) + 1
        if up:
            size = (x.shape[a + 2] - 1) * stride[a] + extent + stride[a] * dilation[a]
        elif extent > size:
            raise node.error(f"kernel {kernel} does not fit into input {tuple(x.shape)}")
        out.append(size if up else (size - extent) // stride[a] + 2)
    node.room((x.shape[0], channels, *out), work)
    node.room((*x.shape[:2], *(x.shape[a + 2] + pads[a] + pads[a + half] for a in range(half))))


def _weights(node: ReadNode, x: Tensor) -> tuple[Tensor, Tensor | None, int, int]:
    w, b, group = node.floats(1), _optional(node, 2), node.integer("group", 1)
    axes = w.dim() - 2
    if x.dim() != w.dim() or w.numel() == 0 or group < 1:
        raise node.error(f"input {tuple(x.shape)}, weight {tuple(w.shape)} and group {group} do not fit")
    if node.has("kernel_shape") and node.integers("kernel_shape", axes) != tuple(w.shape[2:]):
        raise node.error("attribute 'kernel_shape' differs from the weight")
    return w, b, group, axes


def _conv(node: ReadNode) -> None:
    x = node.floats(0)
    w, b, group, axes = _weights(node, x)
    window = _window(node, axes)
    stride, dilation, pads = window
    _room(node, x, w.shape[0], w[0].numel(), tuple(w.shape[2:]), window)
    run: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    if pads[:axes] == pads[axes:]:
        node.put_float(0, run(x, w, b, stride, pads[:axes], dilation, group))
    else:
        node.put_float(0, run(_padded(x, pads), w, b, stride, 0, dilation, group))


def _conv_transpose(node: ReadNode) -> None:
    x = node.floats(0)
    w, b, group, axes = _weights(node, x)
    window = _window(node, axes)
    stride, dilation, pads = window
    extra = _sizes(node, "output_padding", axes, (0,) * axes, 0)
    if node.has("output_shape") or any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise node.error("output_shape is not supported; output_padding must be below stride or dilation")
    _room(node, x, w.shape[1] * group, w[:, 0].numel() // group, tuple(w.shape[2:]), window, up=True)
    run: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    if pads[:axes] == pads[axes:]:
        y = run(x, w, b, stride, pads[:axes], extra, group, dilation)
    else:
        y = run(x, w, b, stride, 0, extra, group, dilation)
        for a in range(axes):
            y = y.narrow(a + 2, pads[a], y.shape[a + 2] - pads[a] - pads[a + axes])
    node.put_float(0, y)


def _gemm(node: ReadNode) -> None:
    a, b, c = node.floats(0), node.floats(1), _optional(node, 2)
    if a.dim() != 2 or b.dim() != 2:
        raise node.error(f"needs two matrices, got {tuple(a.shape)} and {tuple(b.shape)}")
    a = a.t() if node.integer("transA", 0) else a
    alpha, beta, turned = node.real("alpha", 1.0), node.real("beta", 1.0), node.integer("transB", 0)
    node.room((a.shape[0], b.shape[0 if turned else 1]), a.shape[1])
    if turned and alpha == 1.0 and (c is None or (beta == 1.0 and c.dim() == 1)):
        node.put_float(0, F.linear(a, b, c))  # as the float layer computes it, to the last bit
        return
    y = a @ (b.t() if turned else b)
    y = y if alpha == 1.0 else y * alpha
    node.put_float(0, y if c is None else y + (c if beta == 1.0 else c * beta).expand_as(y))


def _matmul(node: ReadNode) -> None:
    a, b = node.floats(0), node.floats(1)
    if a.dim() < 1 or b.dim() < 1:
        raise node.error("the operands need at least one dimension")
    batch = broadcast(node, a.shape[:-2], b.shape[:-2])
    node.room((*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.dim() > 1 else ())), a.shape[-1])
    node.put_float(0, torch.matmul(a, b))


def _batch_norm(node: ReadNode) -> None:
    x, gamma, beta, mean, var = (node.floats(i) for i in range(5))
    if node.integer("training_mode", 0) or node.n_outputs != 1:
        raise node.error("only the inference form is supported")
    node.put_float(0, F.batch_norm(x, mean, var, gamma, beta, False, 0.0, node.real("epsilon", 1e-5)))


def _instance_norm(node: ReadNode) -> None:
    x, gamma, beta = (node.floats(i) for i in range(3))
    node.put_float(0, F.instance_norm(x, None, None, gamma, beta, True, 0.0, node.real("epsilon", 1e-5)))


def _layer_norm(node: ReadNode) -> None:
    x, gamma, beta = node.floats(0), node.floats(1), _optional(node, 2)
    axis = node.integer("axis", -1)
    if not -x.dim() <= axis < x.dim() or node.n_outputs != 1:
        raise node.error("needs an axis of its input and one output")
    node.put_float(0, F.layer_norm(x, list(x.shape[axis % x.dim() :]), gamma, beta, node.real("epsilon", 1e-5)))


def _pool_shape(node: ReadNode) -> tuple[Tensor, tuple[int, ...], Any, bool, bool]:
    x = node.floats(0)
    axes = x.dim() - 2
    window = _window(node, axes)
    kernel = _sizes(node, "kernel_shape", axes, None)
    pads = window[2]
    if node.n_outputs != 1 or any(v >= kernel[i % axes] for i, v in enumerate(pads)):
        raise node.error("needs pads below the kernel and one output")
    _room(node, x, x.shape[1], math.prod(kernel), kernel, window)
    plain = pads[:axes] == pads[axes:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False))
    return x, kernel, window, plain, bool(node.integer("ceil_mode", 0))


def _max_pool(node: ReadNode) -> None:
    x, kernel, (stride, dilation, pads), plain, ceil = _pool_shape(node)
    run: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    if plain:
        node.put_float(0, run(x, kernel, stride, pads[: len(kernel)], dilation, ceil))
    else:
        node.put_float(0, run(_padded(x, pads, -math.inf), kernel, stride, 0, dilation, ceil))


def _average_pool(node: ReadNode) -> None:
    x, kernel, (stride, dilation, pads), plain, ceil = _pool_shape(node)
    run: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    include = bool(node.integer("count_include_pad", 0))
    if any(d != 1 for d in dilation):
        raise node.error("attribute 'dilations' must be 1")
    if plain:
        node.put_float(0, run(x, kernel, stride, pads[: len(kernel)], ceil, include))
    elif include:
        node.put_float(0, run(_padded(x, pads), kernel, stride, 0, ceil, True))
    else:  # mean over what is real = mean over everything / share of what is real
        share = run(_padded(torch.ones_like(x), pads), kernel, stride, 0, ceil, True)
        node.put_float(0, run(_padded(x, pads), kernel, stride, 0, ceil, True) / share)


def _global(run: Callable[[Tensor, list[int]], Tensor]) -> Callable[[ReadNode], None]:
    def pool(node: ReadNode) -> None:
        x = node.floats(0)
        if x.dim() < 3:
            raise node.error(f"needs spatial dimensions, got {tuple(x.shape)}")
        node.put_float(0, run(x, list(range(2, x.dim()))))

    return pool


def _pad(node: ReadNode) -> None:
    x, mode = node.floats(0), node.text("mode", "constant")
    pads = [int(v) for v in node.data(1).reshape(-1)] if node.has_input(1) else list(node.integers("pads"))
    fill = float(node.floats(2).reshape(())) if node.has_input(2) else node.real("value", 0.0)
    if node.has_input(3) or len(pads) != 2 * x.dim() or any(abs(p) > _LARGEST for p in pads):
        raise node.error(f"pads {pads} do not fit {x.dim()} dimensions")
    node.room(tuple(size + pads[a] + pads[a + x.dim()] for a, size in enumerate(x.shape)))
    flat = [v for a in reversed(range(x.dim())) for v in (pads[a], pads[a + x.dim()])]
    if mode == "constant":
        node.put_float(0, F.pad(x, flat, value=fill))
    elif mode in ("reflect", "edge") and x.dim() >= 2:
        while len(flat) > 2 and flat[-2:] == [0, 0] and len(flat) > 2 * (x.dim() - 2):
            flat = flat[:-2]
        node.put_float(0, F.pad(x, flat, mode="replicate" if mode == "edge" else mode))
    else:
        raise node.error(f"attribute 'mode' {mode!r} is not supported")


def _resize(node: ReadNode) -> None:
    x, mode = node.floats(0), node.text("mode", "nearest")
    place = node.text("coordinate_transformation_mode", "half_pixel")
    axes = x.dim() - 2
    if not 1 <= axes <= 3 or node.has("axes") or node.integer("antialias", 0):
        raise node.error("needs one to three spatial dimensions, without axes and antialias")
    torch_mode = {"linear": ("linear", "bilinear", "trilinear")[axes - 1], "cubic": "bicubic"}.get(mode, mode)
    aligned = place == "align_corners" if mode != "nearest" else None
    rule = node.text("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and not (place == "asymmetric" and rule == "floor"):
        raise node.error("nearest is supported as asymmetric, floor")
    if mode != "nearest" and place not in ("align_corners", "half_pixel", "pytorch_half_pixel"):
        raise node.error(f"attribute 'coordinate_transformation_mode' {place!r} is not supported")
    if mode == "cubic" and (axes != 2 or node.real("cubic_coeff_a", -0.75) != -0.75):
        raise node.error("cubic needs two spatial dimensions and cubic_coeff_a = -0.75")
    if node.has_input(3):
        sizes = [int(v) for v in node.data(3).reshape(-1)]
        if sizes[:2] != list(x.shape[:2]) or len(sizes) != x.dim() or any(s < 1 for s in sizes):
            raise node.error(f"sizes {sizes} do not fit input {tuple(x.shape)}")
        node.room(tuple(sizes), 16)
        node.put_float(0, F.interpolate(x, size=sizes[2:], mode=torch_mode, align_corners=aligned))
        return
    scales = [float(v) for v in node.floats(2).reshape(-1)]
    if len(scales) != x.dim() or scales[:2] != [1.0, 1.0] or any(not 0 < s <= _LARGEST for s in scales):
        raise node.error(f"scales {scales} do not fit input {tuple(x.shape)}")
    node.room(tuple(math.floor(size * s) for size, s in zip(x.shape, scales, strict=True)), 16)
    node.put_float(0, F.interpolate(x, scale_factor=scales[2:], mode=torch_mode, align_corners=aligned))


def _depth_to_space(node: ReadNode) -> None:
    x, block = node.floats(0), node.integer("blocksize")
    if x.dim() != 4 or block < 1 or x.shape[1] % (block * block):
        raise node.error(f"blocksize {block} does not fit input {tuple(x.shape)}")
    n, c, h, w = x.shape
    if node.text("mode", "DCR") == "CRD":
        node.put_float(0, F.pixel_shuffle(x, block))
    else:
        parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        node.put_float(0, parts.reshape(n, c // block**2, h * block, w * block))


LAYERS: dict[str, Callable[[ReadNode], None]] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul,
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _global(lambda x, dims: x.mean(dims, True)),
    "GlobalMaxPool": _global(lambda x, dims: x.amax(dims, True)),
    "Pad": _pad, "Resize": _resize, "DepthToSpace": _depth_to_space,
}  # fmt: skip
