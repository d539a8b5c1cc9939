"""Sums over axes: no packer takes iqSum, but a linear layer with weights of one adds exactly (see ``linear_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from linger import ops
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

    def forward(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The exact sum of the codes, shifted once; gradient 1 where it does not saturate."""
        kept = [a for a in range(x.dim()) if a not in axes]
        count = math.prod([int(x.shape[a]) for a in axes])
        rows = math.prod([int(x.shape[a]) for a in kept[1:]])
        batch = Dim(x.shape[0], 0) if current_tape() is not None else x.shape[0]  # files follow the batch
        shape = [batch, *(int(x.shape[a]) for a in kept[1:])]
        laid: list[ops.Coded] = []

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            (a,) = operands
            if [*kept, *axes] != list(range(x.dim())):
                a = move_coded(a, torch.permute, (*kept, *axes))
            if tuple(a.codes.shape) != (batch, rows, count):
                a = move_coded(a, torch.reshape, (batch, rows, count))
            laid[:] = [a]
            ones = torch.ones(1, count, device=x.device)
            return ops.linear(a, ones, None, fixed_output(torch.ones_like(a.scale)), out)

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
            attributes = common_attributes(tape) | {
                "data_bits": 8,
                "parameter_bits": 8,
                "o_bits": self.output_quantizer.bits,
            }
            attributes |= {"scale_x": float(laid[0].scale), "scale_w": 1.0, "scale_o": float(out.scale)}
            inputs: list[Any] = [laid[0].value, np.ones((1, count), np.int8)]
            tape.node("LinearInt", inputs, [z], attributes, domain="linger", hint=self.name)

        def real(v: Tensor) -> Tensor:
            return v.sum(tuple(axes)).reshape(batch, rows, 1)

        y = self.compute((x,), real, integers, write)
        with torch._C.DisableTorchFunction():
            return cast(Tensor, HANDLERS[torch.reshape](torch.reshape, (y, shape), {}))


@factory("sum")
def _make(n_inputs: int, quant: Any) -> SumInt:
    return SumInt(n_inputs, quant)


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
    y = cast(Tensor, operator_at_site("sum", 1)(x, axes))
    if not named.get("keepdim"):
        return y
    for axis in axes:
        y = HANDLERS[torch.unsqueeze](torch.unsqueeze, (y, axis), {})
    return y


__all__ = ["SumInt"]
