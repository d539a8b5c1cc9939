"""Sums and means over axes as linear layers with equal weights (see ``linear_nodes.py``): one exact sum, one rounding.

No packer takes iqSum. A mean is this only where it has a scale of its own (``average_scale: own``); else it is an
AvgPool2dInt, whose result has the scale of its operand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.chip import coarse_factor
from linger.nn.functional import FunctionalLayer, common_attributes, move_coded
from linger.runtime import HANDLERS, Dim, Tape, current_tape, factory, fixed_output, handles, info, operator_at_site


class SumInt(FunctionalLayer):
    """Sum over all axes but the batch and those that are kept.

    Shape:
        x ``(N, ...)`` -> ``(N, kept axes)``, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Sum".
    """

    operator = "sum"
    row = "iqSum"

    def weight(self, count: int) -> tuple[int, int]:
        """Code ``m`` and exponent ``s`` of the weight of each of ``count`` elements."""
        return 1, 0

    def real(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The float operator."""
        return x.sum(tuple(axes))

    def forward(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The exact sum of the codes, shifted once; gradient that of the float operator where it does not saturate."""
        kept = [a for a in range(x.dim()) if a not in axes]
        count = math.prod([int(x.shape[a]) for a in axes])
        rows = math.prod([int(x.shape[a]) for a in kept[1:]])
        batch = Dim(x.shape[0], 0) if current_tape() is not None else x.shape[0]  # files follow the batch
        shape = [batch, *(int(x.shape[a]) for a in kept[1:])]
        factor, exponent = self.weight(count)
        laid: list[ops.Coded] = []

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            (a,) = operands
            if [*kept, *axes] != list(range(x.dim())):
                a = move_coded(a, torch.permute, (*kept, *axes))
            if tuple(a.codes.shape) != (batch, rows, count):
                a = move_coded(a, torch.reshape, (batch, rows, count))
            laid[:] = [a]
            weight = torch.full((1, count), factor / 2.0**exponent, device=x.device)
            return ops.linear(a, weight, None, fixed_output(torch.full_like(a.scale, 2.0**exponent)), out)

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
            attributes = common_attributes(tape) | {
                "data_bits": 8,
                "parameter_bits": 8,
                "o_bits": self.output_quantizer.bits,
            }
            attributes |= {
                "scale_x": float(laid[0].scale),
                "scale_w": 2.0**exponent,
                "scale_o": float(out.scale),
            }
            inputs: list[Any] = [laid[0].value, np.full((1, count), factor, np.int8)]
            tape.node("LinearInt", inputs, [z], attributes, domain="linger", hint=self.name)

        def real(v: Tensor) -> Tensor:
            return self.real(v, axes).reshape(batch, rows, 1)

        y = self.compute((x,), real, integers, write)
        with torch._C.DisableTorchFunction():
            return cast(Tensor, HANDLERS[torch.reshape](torch.reshape, (y, shape), {}))


class MeanInt(SumInt):
    """Mean over all axes but the batch and those that are kept, with a scale of its own.

    The weight is the code ``m`` in 64..127 at scale ``2**s`` with ``m / 2**s`` nearest to ``1 / n``: exact for n a power of two.

    Shape:
        x ``(N, ...)`` -> ``(N, kept axes)``, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "AvgPool2dInt".
    """

    operator = "mean"

    def weight(self, count: int) -> tuple[int, int]:
        """Code ``m`` and exponent ``s`` of the weight of each of ``count`` elements."""
        return coarse_factor(count)

    def real(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The float operator."""
        return x.mean(tuple(axes))


@factory("sum")
def _make_sum(n_inputs: int, quant: Any) -> SumInt:
    return SumInt(n_inputs, quant)


@factory("mean")
def _make_mean(n_inputs: int, quant: Any) -> MeanInt:
    return MeanInt(n_inputs, quant)


def reduced(operator: str, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """``sum`` or ``mean`` over ``axes`` (ascending, without the batch) by the operator of this call site."""
    y = cast(Tensor, operator_at_site(operator, 1)(x, axes))
    for axis in axes if keepdim else ():
        y = HANDLERS[torch.unsqueeze](torch.unsqueeze, (y, axis), {})
    return y


@handles("sum", "torch.sum Tensor.sum")
def _sum(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A sum over named axes without the batch; one over everything is a loss or a statistic, and stays in float."""
    named = {**dict(zip(("input", "dim", "keepdim"), args, strict=False)), **kwargs}
    if "axis" in named:
        named["dim"] = named.pop("axis")
    x, dim = named.get("input"), named.get("dim")
    fmt = info(x)
    extra = {k for k, v in named.items() if v is not None} - {"input", "dim", "keepdim"}
    if fmt is None or fmt.bits > 8 or dim is None or extra or not isinstance(x, Tensor) or x.numel() == 0:
        return NotImplemented
    axes = sorted({int(d) % x.dim() for d in ([dim] if isinstance(dim, int) else dim)})
    if not axes or axes[0] == 0:
        return NotImplemented
    return reduced("sum", x, axes, bool(named.get("keepdim")))


__all__ = ["MeanInt", "SumInt", "reduced"]
