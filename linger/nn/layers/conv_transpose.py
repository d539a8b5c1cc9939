"""Transposed convolutions; in the reader a convolution of the input with zeros put between its elements."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from linger import ops
from linger.chip import NodeFacts, TensorFacts
from linger.nn.base import (
    QuantLayer,
    accept,
    calibrate_input,
    clamp_once,
    emit,
    note_use,
    write_node,
)
from linger.nn.nodes.operands import bias, borders, operand, positive, require_8_bits, right_shift, weight_bits, weights
from linger.ops.conv import conv_codes
from linger.ops.conv_transpose import edges, spread, turned
from linger.quantizers import in_float
from linger.runtime import NodeReader, Operand, Tape, Value, ahead, current_tape, reads

from .conv import reach_stride

if TYPE_CHECKING:
    pass


def without_groups(weight: Any, groups: int) -> Any:
    """Weight (C, O/groups, kh, kw) of a grouped transposed convolution as that of one group: (C, O, kh, kw), mostly zeros."""
    if groups == 1:
        return weight
    c, o, *kernel = weight.shape
    dense = np.zeros((groups, c // groups, groups, o, *kernel), weight.dtype)
    dense[range(groups), :, range(groups)] = weight.reshape(groups, c // groups, o, *kernel)
    return dense.reshape(c, groups * o, *kernel)


def without_gaps(weight: Any, dilation: tuple[int, int]) -> Any:
    """Weight of a dilated convolution with its zeros written out."""
    if dilation == (1, 1):
        return weight
    rows, cols = ((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
    wide = np.zeros((*weight.shape[:2], rows, cols), weight.dtype)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


class _ConvTransposeInt(QuantLayer, _ConvTransposeNd):
    """What 1-D and 2-D transposed convolutions share; 1-D is 2-D of height 1."""

    def _two(self, values: Any, fill: int) -> tuple[int, int]:
        """A per-axis setting of the 2-D form."""
        items = [int(v) for v in values]
        return (items[0], items[1]) if len(items) == 2 else (fill, items[0])

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        """Chip integers in forward, float gradients in backward; ``output_size`` as in torch."""
        with torch._C.DisableTorchFunction():
            n = len(self.kernel_size)
            clamp = self.training or in_float()
            if clamp:
                clamp_once(self)
            if in_float():
                calibrate_input(x, self.input_quantizer)
                y = type(self).float_class.forward(self, x, output_size)
                return ahead(self.calibrated(y, x, self.weight, self.bias), self)
            extra = cast(Any, self)._output_padding(
                x, output_size, self.stride, self.padding, self.kernel_size, n, self.dilation
            )
            source = accept(x, self.input_quantizer, 8)
            flat = x.dim() == n + 1
            lift = [0] * flat + [2] * (n == 1)
            value, codes = source.value, source.codes
            for axis in lift:
                value, codes = value.unsqueeze(axis), codes.unsqueeze(axis)
            stride, dilation = self._two(self.stride, 1), self._two(self.dilation, 1)
            pad, more = self._two(self.padding, 0), self._two(extra, 0)
            spacing = ops.Spacing(stride, pad, more, dilation, self.groups)
            weight = self.weight.unsqueeze(2) if n == 1 else self.weight
            note_use(self.output_quantizer)
            target = self.output_quantizer.output(clamp=self.output_clamp, relu=self.fused_relu)
            lifted = ops.Coded(value, codes, source.scale)
            out = ops.conv_transpose(
                lifted,
                weight,
                self.bias,
                spacing,
                self.weight_quantizer.weight_output(self.weight),
                target,
                self.kept_weight,
            )
            for axis in reversed(lift):
                out = ops.Coded(out.value.squeeze(axis), out.codes.squeeze(axis), out.scale)
            y = emit(out, self.output_quantizer, relu=self.fused_relu)
            tape = current_tape()
            if tape is not None:
                self._write(tape, source, out, y, lift, more)
            return ahead(y, self)

    def _write(
        self, tape: Tape, x: ops.Coded, out: ops.Coded, y: Tensor, lift: list[int], extra: tuple[int, int]
    ) -> None:
        name = self.__dict__.get("_linger_name", "") or "conv_transpose"
        spec = self.weight_quantizer.weight_output(self.weight, observe=False)
        codes, w_scale, *_ = ops.quantize_weight(self.weight, spec, self.bias, x.scale)
        weight = codes.cpu().numpy()
        weight = weight[:, :, None] if weight.ndim == 3 else weight
        zeros = torch.zeros(self.out_channels, device=self.weight.device)  # the packer wants a bias
        shift = ops.quantize_bias(zeros if self.bias is None else self.bias, x.scale, w_scale).cpu().numpy()
        weight, form = self._node_form(weight)
        attributes = self.node_attributes(tape, x, w_scale, out) | form | {"output_padding": [*extra, 0, 0]}
        source: Tensor | Value = x.value
        for axis in lift:
            lifted = tape.value(f"{name}.in")
            tape.node("Unsqueeze", [source], [lifted], {"axes": [axis]}, hint=name)
            source = lifted
        then: list[tuple[str, list[Operand], dict[str, Any]]] = [
            ("Squeeze", [], {"axes": [axis]}) for axis in reversed(lift)
        ]
        then += [("Relu", [], {})] if self.fused_relu else []
        write_node(tape, "ConvTranspose2dInt", [source, weight, shift], attributes, y, then, name)

    def _node_form(self, weight: Any) -> tuple[Any, dict[str, Any]]:
        """Weight and geometry of the node in a file; 4-bit codes are as right as 8-bit weights, which is all the packer takes.

        The node has one group and no dilation: zeros stand where other groups' weights and the gaps of the kernel are.
        """
        pad, stride = self._two(self.padding, 0), list(self._two(self.stride, 1))
        pads, dilation = [*pad, *pad], [1, 1]
        weight = without_gaps(without_groups(weight, self.groups), self._two(self.dilation, 1))
        weight = reach_stride(weight, stride, pads, dilation)
        kernel = [int(k) for k in weight.shape[2:]]
        form = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "pads": pads, "group": 1}
        return weight, form | {"parameter_bits": 8}

    def node_facts(self, platform: str) -> NodeFacts:
        """The node of this layer, as far as it does not depend on the input."""
        shape = (self.in_channels, self.out_channels // self.groups, *self._two(self.kernel_size, 1))
        weight, form = self._node_form(np.broadcast_to(np.int8(0), shape))
        facts = self.facts("ConvTranspose2dInt", platform, weight.shape, form)
        return replace(facts, inputs=(*facts.inputs[:2], TensorFacts((self.out_channels,), 32, constant=True)))

    float_class: type[Any] = nn.ConvTranspose2d


class ConvTranspose1dInt(_ConvTransposeInt, nn.ConvTranspose1d):
    """1-D transposed convolution in the chip's integers; as ``torch.nn.ConvTranspose1d`` otherwise.

    Args:
        *args: As ``torch.nn.ConvTranspose1d``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Source: docs/numerics.md, "Convolution".
    """

    float_class = nn.ConvTranspose1d


class ConvTranspose2dInt(_ConvTransposeInt, nn.ConvTranspose2d):
    """2-D transposed convolution in the chip's integers; as ``torch.nn.ConvTranspose2d`` otherwise.

    Args:
        *args: As ``torch.nn.ConvTranspose2d``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Source: docs/numerics.md, "Convolution".
    """

    float_class = nn.ConvTranspose2d


@reads("ConvTranspose2dInt", "QConvTranspose2d")
def read_conv_transpose(node: NodeReader) -> None:
    """``sat_8(RSH(sat_32(sum + bias), s))``; group 1, dilation 1, the bias is mandatory."""
    require_8_bits(node, "x_bits", "o_bits")
    x, x_exp2 = operand(node, 0, "scale_x", 4)
    w = weights(node, 1, 4, weight_bits(node))
    b = bias(node, 2, w.shape[1])
    kernel, stride = positive(node, "kernel_shape", 2), positive(node, "strides", 2)
    if b is None:
        raise node.error("needs a bias: the packer reads one in any case")
    if tuple(w.shape[2:]) != kernel or w.shape[0] != x.shape[1]:
        raise node.error(f"weight {tuple(w.shape)} does not fit kernel_shape {kernel} and input {tuple(x.shape)}")
    if node.integer("group", 1) != 1 or set(positive(node, "dilations", 2, (1, 1))) != {1}:
        raise node.error("group and dilations must be 1")
    act = node.integer("act_type", 0)
    if act not in (0, 1):
        raise node.error(f"attribute 'act_type' must be 0 or 1 (ReLU), got {act}")
    pads = borders(node, 4, kernel)
    extra = node.integers("output_padding", default=(0, 0))[:2]
    if len(extra) != 2 or any(not 0 <= e <= s for e, s in zip(extra, stride, strict=True)):
        raise node.error(f"attribute 'output_padding' must start with two sizes below the stride, got {extra}")
    o_exp2 = node.scale("scale_o")
    shift = right_shift(node, x_exp2 + node.scale("scale_w") - o_exp2, "q_x + q_w - q_o")
    size = [(x.shape[2 + a] - 1) * stride[a] + extra[a] + kernel[a] - pads[a] - pads[2 + a] for a in (0, 1)]
    if min(size) < 1:
        raise node.error(f"the output would have size {size}")
    node.room((x.shape[0], w.shape[1], *size), w.shape[0] * kernel[0] * kernel[1])
    spaced = spread(x, (stride[0], stride[1]), edges(kernel, pads, extra, (1, 1)))
    y = conv_codes(spaced, turned(w, 1), b, (1, 1), (0, 0, 0, 0), (1, 1), 1, shift, 8, act == 1)
    node.put(0, y, o_exp2)


__all__ = ["ConvTranspose1dInt", "ConvTranspose2dInt"]
