"""Linear layers: the module and how it is written into a file (read back in ``linear_nodes.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger import ops
from linger.chip import NodeFacts, limits_of
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
from linger.quantizers import in_float
from linger.runtime import Operand, Tape, ahead, current_tape

if TYPE_CHECKING:
    from linger.quantizers import Quantizer


class LinearInt(QuantLayer, nn.Linear):
    """Linear layer that computes the chip's integers in forward and float gradients in backward.

    Args:
        *args: As ``torch.nn.Linear``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        x ``(..., in_features)`` -> ``(..., out_features)``, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Linear".
    """

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias that enter the integers; a layer that folds a BatchNorm in every step overrides it."""
        return weight_and_bias(self)

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward, float gradients in backward."""
        with torch._C.DisableTorchFunction():
            if self.training or in_float():
                clamp_once(self)
            return ahead(self._product(x, *self._folded()), self)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The forward with these parameters; interception is off."""
        if in_float():
            calibrate_input(x, self.input_quantizer)
            with torch.autocast(x.device.type, enabled=False):
                y = F.linear(x.to(weight.dtype), weight, bias)
            return self.calibrated(y, x, weight, bias)
        parts = cast("dict[str, Quantizer]", self._modules)  # a plain dict: nn.Module's attribute access is slow
        output_quantizer = parts["output_quantizer"]
        operand = accept(x, parts["input_quantizer"], 8)
        note_use(output_quantizer)
        target = output_quantizer.output(clamp=self.output_clamp, relu=self.fused_relu)
        out = ops.linear(
            operand, weight, bias, parts["weight_quantizer"].weight_output(weight), target, self.kept_weight
        )
        y = emit(out, output_quantizer, relu=self.fused_relu)
        tape = current_tape()
        if tape is not None:
            self._write(tape, operand, weight, bias, out, y)
        return y

    def node_facts(self, platform: str) -> NodeFacts:
        """The node of this layer, as far as it does not depend on the input."""
        bits = self.quant.weight_bits if limits_of(platform).linear4 else 8
        return self.facts("LinearInt", platform, (self.out_features, self.in_features), {"parameter_bits": bits})

    def _write(self, tape: Tape, x: ops.Coded, weight: Tensor, bias: Tensor | None, out: ops.Coded, y: Tensor) -> None:
        name = self.__dict__.get("_linger_name", "") or "linear"
        arrays, w_scale = self.parameter_codes(weight, bias, x.scale)
        inputs: list[Any] = [x.value, *arrays]
        attributes = self.node_attributes(tape, x, w_scale, out)
        if not limits_of(tape.platform).linear4:  # the same codes are right as 8-bit weights
            attributes["parameter_bits"] = 8
        reshape = x.value.dim() not in (2, 3)  # the packer takes rank 2 and 3
        if reshape:
            inputs[0] = tape.value(f"{name}.in")
            rows = np.array([-1, self.in_features], np.int64)
            tape.node("Reshape", [x.value, rows], [inputs[0]], hint=name)
        then: list[tuple[str, list[Operand], dict[str, Any]]] = [("Relu", [], {})] if self.fused_relu else []
        if reshape:
            then.append(("Reshape", [np.array(y.shape, np.int64)], {}))
        write_node(tape, "LinearInt", inputs, attributes, y, then, name)


__all__ = ["LinearInt"]
