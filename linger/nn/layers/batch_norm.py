"""BatchNorm layers that stand alone (read back in ``batch_norm_nodes.py``); behind a convolution they are folded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from linger import ops
from linger.nn.base import (
    QuantLayer,
    accept,
    calibrate_input,
    emit,
    no_operand,
    note_use,
    write_node,
)
from linger.quantizers import WEIGHT_CUT, Quantizer, WeightCut, calibrating, in_float, in_recomputation
from linger.runtime import Operand, Tape, Value, ahead, current_tape, runs_user_code

if TYPE_CHECKING:
    pass


class _BatchNormInt(QuantLayer, _BatchNorm):
    """One multiplication and one addition per channel: a depthwise convolution of one element with the folded statistics."""

    def limited_weights(self) -> list[tuple[Tensor, Quantizer]]:
        """None: the factors follow from statistics."""
        return []

    def weight_cuts(self) -> list[tuple[WeightCut, Quantizer]]:
        """What was cut from the weight of a layer that had been constrained."""
        cut = self.weight_quantizer.__dict__.get(WEIGHT_CUT)
        return [] if cut is None else [(cut, self.weight_quantizer)]

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel; in training those of the batch, which move the running ones."""
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return self.running_mean, self.running_var
        axes = [i for i in range(x.dim()) if i != 1]
        var, mean = torch.var_mean(x.float(), axes, correction=0)
        if self.training and self.running_mean is not None and not in_recomputation() and not calibrating():
            self._move(mean.detach(), var.detach(), x.numel() // x.shape[1])
        return mean, var

    def _move(self, mean: Tensor, var: Tensor, count: int) -> None:
        if self.num_batches_tracked is not None and not runs_user_code(self):  # whose code counts
            self.num_batches_tracked.add_(1)
        if self.running_mean is None or self.running_var is None:
            return
        with torch.no_grad():
            step: Any = self.momentum
            if step is None:
                step = 1.0 / float(cast(Tensor, self.num_batches_tracked))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
            self.running_var.lerp_((var * (count / max(count - 1, 1))).to(self.running_var.dtype), step)

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``beta`` of ``alpha * x + beta``."""
        mean, var = self._statistics(x)
        alpha = torch.rsqrt(var + self.eps)
        if self.affine:
            alpha = alpha * self.weight
        beta = -mean * alpha
        return alpha, beta if self.bias is None else beta + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward; the gradients are those of the float layer, identity through the integer steps."""
        if not isinstance(x, Tensor):
            raise no_operand(x, self.input_quantizer)
        cast(Any, self)._check_input_dim(x)
        with torch._C.DisableTorchFunction():
            if in_float():
                calibrate_input(x, self.input_quantizer)
                alpha, beta = self._factors(x)
                shape = [1, -1] + [1] * (x.dim() - 2)
                y = x * alpha.view(shape) + beta.view(shape)
                return self.calibrated(y, x, alpha, beta)
            source = accept(x, self.input_quantizer)
            alpha, beta = self._factors(source.value)
            shape = [*x.shape[:2], 1, -1] if x.dim() != 4 else [*x.shape]
            four = ops.Coded(source.value.reshape(shape), source.codes.reshape(shape), source.scale)
            note_use(self.output_quantizer)
            target = self.output_quantizer.output(clamp=self.output_clamp, relu=self.fused_relu)
            geometry = ops.Geometry((1, 1), (0, 0, 0, 0), (1, 1), self.num_features)
            weight = alpha.view(-1, 1, 1, 1)
            out = ops.conv(four, weight, beta, geometry, self.weight_quantizer.weight_output(weight), target)
            out = ops.Coded(out.value.reshape(x.shape), out.codes.reshape(x.shape), out.scale)
            y = emit(out, self.output_quantizer, relu=self.fused_relu)
            tape = current_tape()
            if tape is not None:
                self._write(tape, source, out, y, alpha, beta)
            return ahead(y, self)

    def _write(self, tape: Tape, x: ops.Coded, out: ops.Coded, y: Tensor, alpha: Tensor, beta: Tensor) -> None:
        name = self.__dict__.get("_linger_name", "") or "bn"
        spec = self.weight_quantizer.weight_output(alpha, observe=False)
        codes, w_scale, *_ = ops.quantize_weight(alpha, spec, beta, x.scale)
        bias = ops.quantize_bias(beta, x.scale, w_scale)
        attributes = self.node_attributes(tape, x, w_scale, out)
        source: Tensor | Value = x.value
        reshape = y.dim() != 4  # the packer has the 4-D form only
        if reshape:
            source = tape.value(f"{name}.in")
            four = np.array([*y.shape[:2], 1, -1], np.int64)
            tape.node("Reshape", [x.value, four], [source], hint=name)
        then: list[tuple[str, list[Operand], dict[str, Any]]] = [("Relu", [], {})] if self.fused_relu else []
        if reshape:
            then.append(("Reshape", [np.array(y.shape, np.int64)], {}))
        inputs: list[Operand] = [source, codes.cpu().numpy(), bias.cpu().numpy()]
        write_node(tape, "BatchNorm2dInt", inputs, attributes, y, then, name)


class BatchNorm1dInt(_BatchNormInt, nn.BatchNorm1d):
    """BatchNorm over ``(N, C)`` or ``(N, C, L)`` in the chip's integers; as ``torch.nn.BatchNorm1d`` otherwise.

    Args:
        *args: As ``torch.nn.BatchNorm1d``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Source: docs/numerics.md, "BatchNorm alone".
    """


class BatchNorm2dInt(_BatchNormInt, nn.BatchNorm2d):
    """BatchNorm over ``(N, C, H, W)`` in the chip's integers; as ``torch.nn.BatchNorm2d`` otherwise.

    Args:
        *args: As ``torch.nn.BatchNorm2d``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Source: docs/numerics.md, "BatchNorm alone".
    """


__all__ = ["BatchNorm1dInt", "BatchNorm2dInt"]
