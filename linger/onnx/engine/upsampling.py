"""Rows G4 and J: transposed convolutions as convolutions of a spread map, and padding of thin maps, with zeros of the file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linger.chip import limits_of
from linger.nn.nodes.file_tensor import FileTensor
from linger.runtime import Node, Value

from .graph import Graph, hint_of, sizes


def zeros_like(chain: FileTensor, axis: int, count: int) -> FileTensor:
    """``count`` zeros along an axis, as wide as the tensor in the others."""
    shape = (*chain.shape[:axis], count, *chain.shape[axis + 1 :])
    name = chain.tape.constant(np.zeros(shape, np.int8), f"{chain.name}.zeros")
    return FileTensor(chain.tape, Value(name), shape, chain.scale, chain.name)


def around(chain: FileTensor, pads: Sequence[int]) -> FileTensor:
    """Zeros around height and width: top, left, bottom, right; negative numbers cut."""
    for axis, before, after in ((2, pads[0], pads[2]), (3, pads[1], pads[3])):
        size = chain.shape[axis]
        chain = chain.slice(axis, max(-before, 0), size - max(-after, 0))
        parts = [zeros_like(chain, axis, before)] if before > 0 else []
        parts += [chain, *([zeros_like(chain, axis, after)] if after > 0 else [])]
        chain = parts[0].cat(parts[1:], axis)
    return chain


def spread_maps(graph: Graph) -> None:
    """ConvTranspose2dInt as Conv2dInt of stride 1: zeros between the elements, the kernel turned. Only one sample."""
    if not graph.engine.lacks("transposed convolution") or graph.open_batch:
        return
    tape, limits = graph.tape, limits_of(graph.platform)

    def rewrite(node: Node) -> bool:
        shape, weight = graph.shape(node.inputs[0]), tape.initializers.get(node.inputs[1])
        if shape is None or len(shape) != 4 or shape[0] != 1 or weight is None:
            return False
        kernel, stride = weight.shape[2:], sizes(node.attributes["strides"])
        pads, extra = sizes(node.attributes["pads"]), sizes(node.attributes.get("output_padding", (0, 0)))
        begin = [kernel[a] - 1 - pads[a] for a in (0, 1)]
        end = [kernel[a] - 1 - pads[2 + a] + extra[a] - (stride[a] - 1) for a in (0, 1)]
        chain = _spread(graph.chain(node.inputs[0], hint_of(node)), stride)
        most = [min(limits.max_pad, k) for k in kernel]
        inside = [min(max(p, 0), m) for p, m in zip([*begin, *end], most * 2, strict=True)]
        chain = around(chain, [p - i for p, i in zip([*begin, *end], inside, strict=True)])
        attributes = {k: v for k, v in node.attributes.items() if k != "output_padding"}
        attributes |= {"strides": [1, 1], "pads": inside, "dilations": [1, 1], "group": 1}
        turned = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        size = [chain.shape[2 + a] + inside[a] + inside[2 + a] - kernel[a] + 1 for a in (0, 1)]
        bias = [tape.initializers[name] for name in node.inputs[2:3] if name]
        made = chain.node("Conv2dInt", (1, weight.shape[1], *size), attributes, turned, *bias, chip=True)
        graph.finish(made, node.outputs[0])
        return True

    graph.change(rewrite, "ConvTranspose2dInt")


def _spread(chain: FileTensor, stride: tuple[int, ...]) -> FileTensor:
    """(1, C, H, W) with ``stride - 1`` zeros behind every row and every element."""
    _, c, h, w = chain.shape
    sh, sw = stride
    if sw > 1:
        chain = chain.reshape(1, c * h * w, 1)
        chain = chain.cat([zeros_like(chain, 2, sw - 1)], 2)
    if sh > 1:
        chain = chain.reshape(1, c * h, w * sw)
        chain = chain.cat([zeros_like(chain, 2, w * sw * (sh - 1))], 2)
    return chain.reshape(1, c, h * sh, w * sw)


def padded_maps(graph: Graph) -> None:
    """Zeros in front of a convolution where the packer would insert a padding of its own and wire it wrongly."""
    if not graph.engine.lacks("thin map") or graph.open_batch:
        return
    tape = graph.tape

    def rewrite(node: Node) -> bool:
        shape, pads = graph.shape(node.inputs[0]), sizes(node.attributes["pads"])
        maker, kernel = graph.maker(node.inputs[0]), sizes(node.attributes["kernel_shape"])
        if shape is None or len(shape) != 4 or not any(pads) or maker is None or maker.op_type == "Quant":
            return False
        if shape[1] >= kernel[0] and shape[2] >= kernel[1]:
            return False
        chain = around(graph.chain(node.inputs[0], hint_of(node)), pads)
        assert isinstance(chain.value, Value)
        inputs = [chain.value, *(Value(name) for name in node.inputs[1:])]
        attributes = node.attributes | {"pads": [0] * len(pads)}
        outputs = [Value(name) for name in node.outputs]
        tape.node(node.op_type, inputs, outputs, attributes, domain=node.domain, hint=hint_of(node))
        return True

    graph.change(rewrite, "Conv2dInt")


__all__ = ["around", "padded_maps", "spread_maps", "zeros_like"]
