"""Gated linear units (files are read back in ``function_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.chip import OPERATORS, limits_of
from linger.nn.functional import FunctionalLayer, common_attributes, pair_attributes
from linger.runtime import Tape, factory, handles, info

from .sigmoid import write_curve
from .softmax import at_last_axis


class GluInt(FunctionalLayer):
    """The first half of the last axis times the sigmoid of the second, as the chip computes it.

    Shape:
        (..., 2 n) -> (..., n), float32 on a power-of-two grid, tagged with its format. Other axes are transposed to the end.

    Source: docs/numerics.md, "GLU".
    """

    operator = "glu"

    def forward(self, x: Tensor) -> Tensor:
        """The chip's integers in forward; the gradient of the exact function where the result does not saturate."""

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            return ops.glu(operands[0], out, chip=limits_of(self.quant.platform).formulas)

        return self.compute((x,), lambda t: F.glu(t, -1), integers, self._write)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, y: Tensor) -> None:
        (x,) = operands
        name, bits, scale, last = self.name, self.output_quantizer.bits, float(x.scale), y.dim() - 1
        if OPERATORS["GluInt"][tape.platform].kind == "native":
            attributes = common_attributes(tape) | {"dim": last, "x_bits": 8, "o_bits": bits, "scale_x": scale}
            attributes["scale_o"] = float(out.scale)
            tape.node("GluInt", [x.value], [y], attributes, domain="linger", hint=name)
            return
        a, b, gate = (tape.value(f"{name}.{part}") for part in ("a", "b", "gate"))
        half = y.shape[-1]
        for part, start in ((a, 0), (b, half)):
            ends = [torch.tensor([v]).numpy() for v in (start, start + half, last)]
            tape.node("Slice", [x.value, *ends], [part], hint=name)
        write_curve(tape, "iqSigmoid", b, 8, scale, gate, name)
        attributes = pair_attributes(tape, (8, 8, bits), (scale, 128.0, float(out.scale)))
        tape.node("iqMul", [a, gate], [y], attributes, domain="linger", hint=name)


@factory("glu")
def _make(n_inputs: int, quant: Any) -> GluInt:
    return GluInt(n_inputs, quant)


@handles("glu", "F.glu")
def _glu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {**dict(zip(("input", "dim"), args, strict=False)), **kwargs}
    x, dim = given.get("input"), given.get("dim", -1)
    fmt = info(x)
    if fmt is None or fmt.bits > 8 or not isinstance(x, Tensor) or not isinstance(dim, int):
        return NotImplemented
    if not -x.dim() <= dim < x.dim() or x.shape[dim] % 2:
        return NotImplemented
    return at_last_axis(x, dim, "glu")


__all__ = ["GluInt"]
