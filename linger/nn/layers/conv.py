"""Convolutions: modules and how they are written into a file (read back in ``conv_nodes.py``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from linger import ops
from linger.chip import (
    OPERATORS,
    Limits,
    NodeFacts,
    blocks_of_taps,
    limits_of,
    packs_4_bits,
    pads_wrongly,
    rows_of_taps,
)
from linger.nn.base import (
    QuantLayer,
    accept,
    calibrate_input,
    clamp_once,
    emit,
    note_use,
    weight_and_bias,
    write_node,
)
from linger.nn.moves.padding import absorb_padding, pad_coded, write_padding, write_zeros
from linger.nn.nodes.file_tensor import FileTensor
from linger.quantizers import in_float
from linger.runtime import Operand, Tape, Value, ahead, current_tape

if TYPE_CHECKING:
    from linger.quantizers import Quantizer


class _ConvInt(QuantLayer, _ConvNd):
    """What 1-D and 2-D convolutions share; a 1-D convolution is a 2-D one of height 1."""

    def pads(self) -> tuple[int, int, int, int]:
        """Padding as (top, left, bottom, right); ``'same'`` puts the odd element at the end, as torch does."""
        begin, end = [], []
        for axis, kernel in enumerate(self.kernel_size):
            if self.padding == "same":
                total = self.dilation[axis] * (kernel - 1)
                begin.append(total // 2)
                end.append(total - total // 2)
            else:
                p = 0 if isinstance(self.padding, str) else self.padding[axis]
                begin.append(p)
                end.append(p)
        while len(begin) < 2:
            begin.insert(0, 0)
            end.insert(0, 0)
        return begin[0], begin[1], end[0], end[1]

    def geometry(self) -> ops.Geometry:
        """Stride, padding, dilation and groups of the 2-D form."""
        stride, dilation = tuple(self.stride), tuple(self.dilation)
        if len(stride) == 1:
            stride, dilation = (1, *stride), (1, *dilation)
        pads: tuple[int, int, int, int] = (0, 0, 0, 0)
        if self.padding_mode == "zeros":
            simple = len(self.kernel_size) == 2 and type(self.padding) is tuple
            pads = (*self.padding, *self.padding) if simple else self.pads()
        return ops.Geometry(stride, pads, dilation, self.groups)

    def convolution(self) -> ops.Convolution:
        """What runs this layer; made anew where the attributes that decide it have changed."""
        if torch.compiler.is_compiling():  # what compiled code writes, it also guards
            return ops.Convolution(self.geometry())
        key = (self.stride, self.padding, self.dilation, self.groups, self.padding_mode, self.kernel_size)
        plan = self.kept_weight.plan
        if plan is None or plan[0] != key:
            self.kept_weight.plan = plan = (key, ops.Convolution(self.geometry()))
        return cast(ops.Convolution, plan[1])

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward, float gradients in backward."""
        with torch._C.DisableTorchFunction():
            if in_float():
                return ahead(self._calibrate(x), self)
            if self.training:
                clamp_once(self)
            return ahead(self._integers(x), self)

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias that enter the integers; layers that fold a BatchNorm in every step override it."""
        return weight_and_bias(self)

    def _clamp_once(self) -> None:
        clamp_once(self)

    def _integers(self, x: Tensor) -> Tensor:
        parts = cast("dict[str, Quantizer]", self._modules)  # a plain dict: nn.Module's attribute access is slow
        output_quantizer = parts["output_quantizer"]
        source = accept(x, parts["input_quantizer"], 8)
        one_d = len(self.kernel_size) == 1
        flat = x.dim() == (2 if one_d else 3)  # torch's form without a batch axis
        operand = source
        if flat:
            operand = _each(operand, lambda t: t.unsqueeze(0))
        unlike = self.padding_mode != "zeros"
        if one_d and unlike:
            operand = _each(operand, lambda t: t.unsqueeze(2))
        if unlike:
            operand = pad_coded(operand, self.pads(), self.padding_mode, self.input_quantizer.bits)
        weight, bias = self._folded()
        if one_d and unlike:
            weight = weight.unsqueeze(2)
        note_use(output_quantizer)
        target = output_quantizer.output(clamp=self.output_clamp, relu=self.fused_relu)
        spec = parts["weight_quantizer"].weight_output(weight)
        out = ops.conv(operand, weight, bias, self.convolution(), spec, target, self.kept_weight)
        if one_d and unlike:
            out = _each(out, lambda t: t.squeeze(2))
        if flat:
            out = _each(out, lambda t: t.squeeze(0))
        y = emit(out, output_quantizer, relu=self.fused_relu)
        tape = current_tape()
        if tape is not None:
            self._write(tape, source, out, y, flat)
        return y

    def _calibrate(self, x: Tensor) -> Tensor:
        calibrate_input(x, self.input_quantizer)
        self._clamp_once()
        weight, bias = self._folded()
        with torch.autocast(x.device.type, enabled=False):
            y = cast(Any, self)._conv_forward(x.to(weight.dtype), weight, bias)
        return self.calibrated(y, x, weight, bias)

    def _write(self, tape: Tape, x: ops.Coded, out: ops.Coded, y: Tensor, flat: bool) -> None:
        name = self.__dict__.get("_linger_name", "") or "conv"
        arrays, w_scale = self.parameter_codes(*self._folded(), x.scale)
        inputs: list[Any] = [None, *arrays]
        one_d = len(self.kernel_size) == 1
        pads = self.pads()
        op_type, inputs[1], form, beyond = self._node_form(tape.platform, inputs[1], len(inputs) > 2)
        zeros = self.padding_mode == "zeros" and not flat
        source: Tensor | Value = absorb_padding(tape, x.value, form) if zeros else x.value
        if flat:
            source = _reshaped(tape, source, "Unsqueeze", [0], name)
        if self.padding_mode != "zeros":
            source = write_padding(
                tape, source, x.value, pads[1::2] if one_d else pads, self.padding_mode, x.scale, name
            )
        wide = one_d and op_type == "Conv2dInt"
        if wide:
            source = _reshaped(tape, source, "Unsqueeze", [2], name)
        if any(beyond):
            n = len(beyond) // 2
            spatial = x.codes.shape[-len(self.kernel_size) :]
            shape = [x.codes.shape[0] if not flat else 1, self.in_channels, *[1] * wide, *spatial]
            borders = [(0, 0), (0, 0), *zip(beyond[:n], beyond[n:], strict=True)]
            source = write_zeros(FileTensor(tape, source, shape, float(x.scale), f"{name}.pad"), borders).value
        attributes = self.node_attributes(tape, x, w_scale, out) | form
        inputs[0] = source
        squeezes = ([2] if wide else []) + ([0] if flat else [])
        then: list[tuple[str, list[Operand], dict[str, Any]]] = [("Squeeze", [], {"axes": [axis]}) for axis in squeezes]
        then += [("Relu", [], {})] if self.fused_relu else []
        write_node(tape, op_type, inputs, attributes, y, then, name)

    def _node_form(self, platform: str, weight: Any, bias: bool) -> tuple[str, Any, dict[str, Any], list[int]]:
        """Operator, weight and geometry of the node that a file for this chip holds, and the padding beyond it.

        The 1-D node knows no dilation, depthwise or 4-bit weights, and some chips do not have it: the 2-D one of height 1.
        """
        stride, dilation = [int(s) for s in self.stride], [int(d) for d in self.dilation]
        pads = self.pads() if self.padding_mode == "zeros" else (0, 0, 0, 0)
        weight = without_dilation(weight, dilation, limits_of(platform))
        one_d = len(stride) == 1
        single = self.groups > 1 and weight.shape[1] == 1
        plain = not single and dilation == [1] and self.quant.weight_bits == 8
        if one_d and not (plain and OPERATORS["Conv1dInt"][platform].kind == "native"):
            weight, stride, dilation, one_d = weight[:, :, None], [1, *stride], [1, *dilation], False
        borders = [int(p) for p in (pads[1::2] if one_d else pads)]
        weight = reach_stride(weight, stride, borders, dilation)
        kernel = [int(k) for k in weight.shape[2:]]
        wrong = pads_wrongly(platform, self.in_channels, self.groups, kernel)
        most = [0 if wrong else min(limits_of(platform).max_pad, k) for k in kernel]
        beyond = [max(p - most[i % len(most)], 0) for i, p in enumerate(borders)]
        form = {
            "parameter_bits": self._stored_bits(
                platform, tuple(weight.shape), single and self.groups == weight.shape[0], bias
            ),
            "kernel_shape": kernel,
            "strides": stride,
            "dilations": dilation,
            "pads": [p - b for p, b in zip(borders, beyond, strict=True)],
            "group": self.groups,
        }
        return "Conv1dInt" if one_d else "Conv2dInt", weight, form, beyond

    def node_facts(self, platform: str) -> NodeFacts:
        """The node of this layer, as far as it does not depend on the input."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        codes = np.broadcast_to(np.int8(0), shape)
        op_type, weight, form, _ = self._node_form(platform, codes, self.bias is not None)
        chip = limits_of(platform)
        blocks = blocks_of_taps(chip, *(form[key] for key in ("kernel_shape", "dilations", "strides")))
        if len(self.kernel_size) == 2 and blocks is not None:
            extents, parts = [b.extent for b in blocks], math.prod(b.parts for b in blocks)
            weight = np.broadcast_to(np.int8(0), (shape[0], shape[1] * parts, *extents))
            form |= {"kernel_shape": extents, "dilations": [b.dilation for b in blocks], "pads": [0, 0, 0, 0]}
        elif len(self.kernel_size) == 1:  # its map has one row
            kernel, gaps, steps = (int(form[key][-1]) for key in ("kernel_shape", "dilations", "strides"))
            rows = (
                None
                if op_type == "Conv1dInt" and self._fits(platform, kernel, gaps)
                else rows_of_taps(chip, kernel, gaps, steps)
            )
            if rows is not None:
                op_type, weight = "Conv2dInt", np.broadcast_to(np.int8(0), (*shape[:2], rows.rows, rows.extent))
                form |= {
                    "kernel_shape": [rows.rows, rows.extent],
                    "dilations": [1, rows.dilation],
                    "strides": [1, steps],
                }
                form |= {"pads": [0, 0, 0, 0]}
        return self.facts(op_type, platform, weight.shape, form)

    def _fits(self, platform: str, kernel: int, dilation: int) -> bool:
        """Whether the 1-D node takes the kernel as it is."""
        return kernel <= limits_of(platform).max_kernel_dilated and dilation == 1

    def _stored_bits(self, platform: str, weight: tuple[int, ...], depthwise: bool, bias: bool) -> int:
        """Width of the weights in the file; 4-bit codes are as right as 8-bit weights where the chip misreads the packed form."""
        bits = self.weight_quantizer.bits
        packed = bits == 4 and limits_of(platform).conv4 and packs_4_bits(platform, weight, depthwise, bias)
        return bits if packed else 8


def without_dilation(weight: Any, dilation: list[int], chip: Limits) -> Any:
    """Weight with zeros between its elements along the axes whose dilation the chip lacks, where its kernels are large enough.

    ``dilation`` changes in place.
    """
    for i, (kernel, step) in enumerate(zip(weight.shape[2:], dilation, strict=True)):
        extent = (kernel - 1) * step + 1
        if step not in chip.dilations and extent <= chip.max_kernel:
            wide = np.zeros((*weight.shape[: 2 + i], extent, *weight.shape[3 + i :]), weight.dtype)
            wide[(slice(None),) * (2 + i) + (slice(None, None, step),)] = weight
            weight, dilation[i] = wide, 1
    return weight


def reach_stride(weight: Any, stride: list[int], pads: list[int], dilation: list[int]) -> Any:
    """Weight whose kernel is at least the stride, as the chips demand: zeros behind it, the same number of pads at the end.

    A 1x1 convolution of stride 2 (the shortcut of every residual network) becomes a 2x2 one with the same sums.
    ``pads`` (begin of every axis, then end) and the ``dilation`` of one-element kernels change in place.
    """
    axes = len(stride)
    extra = [0] * axes
    for i, (kernel, step) in enumerate(zip(weight.shape[2:], stride, strict=True)):
        if kernel < step and (kernel == 1 or dilation[i] == 1):
            extra[i], dilation[i] = step - kernel, 1
            pads[axes + i] += extra[i]
    return np.pad(weight, [(0, 0), (0, 0), *((0, e) for e in extra)])


def _each(x: ops.Coded, change: Any) -> ops.Coded:
    return ops.Coded(change(x.value), change(x.codes), x.scale)


def _reshaped(tape: Tape, source: Tensor | Value, op: str, axes: list[int], name: str) -> Value:
    out = tape.value(f"{name}.in")
    tape.node(op, [source], [out], {"axes": axes}, hint=name)
    return out


class Conv1dInt(_ConvInt, nn.Conv1d):
    """1-D convolution that computes the chip's integers in forward and float gradients in backward.

    Args:
        *args: As ``torch.nn.Conv1d``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        x ``(N, C, L)`` or ``(C, L)`` -> ``(N, O, L_out)``, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Convolution".
    """


class Conv2dInt(_ConvInt, nn.Conv2d):
    """2-D convolution that computes the chip's integers in forward and float gradients in backward.

    Args:
        *args: As ``torch.nn.Conv2d``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        x ``(N, C, H, W)`` or ``(C, H, W)`` -> ``(N, O, H_out, W_out)``, float32 on a power-of-two grid, channels-last
        in memory, tagged with its format.

    Source: docs/numerics.md, "Convolution".
    """


__all__ = ["Conv1dInt", "Conv2dInt"]
