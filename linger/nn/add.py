"""Addition of two quantized tensors: ``iqadd``, every spelling of ``+`` (read back in ``add_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from linger import ops
from linger.quantizers import calibrating
from linger.runtime import Leaf, Tape, current_tape, factory, handles, info, operator_at_site, overwritten

from .base import accept, activation_quantizer, calibrate_input, emit, emit_calibrated, warn_without_data

if TYPE_CHECKING:
    from linger.quantizers import Quantizer
    from linger.settings import LayerSettings


class FunctionalLayer(Leaf):
    """State of one functional operator at one call site: a quantizer per operand (float operands only) and one for the result."""

    def __init__(self, n_inputs: int, quant: LayerSettings) -> None:
        super().__init__()
        self.quant = quant
        self.input_quantizer = nn.ModuleList(activation_quantizer(quant, quant.input_bits) for _ in range(n_inputs))
        self.output_quantizer = activation_quantizer(quant, quant.output_bits)

    def operand_quantizer(self, i: int) -> Quantizer:
        """Quantizer of operand ``i``."""
        return cast("Quantizer", self.input_quantizer[i])

    def extra_repr(self) -> str:
        """Formats as the 3.x generation prints them."""
        return f"data_bits:{self.quant.input_bits}, o_bits:{self.quant.output_bits}"


class AddInt(FunctionalLayer):
    """Sum of two tensors: each operand is re-rounded to the output's scale, then added and saturated.

    Shape:
        x, y of one shape -> the same shape, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Add".
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Chip integers in forward, gradient 1 to both operands where the sum does not saturate."""
        with torch._C.DisableTorchFunction():
            if calibrating():
                calibrate_input(x, self.operand_quantizer(0))
                calibrate_input(y, self.operand_quantizer(1))
                return emit_calibrated(x + y, self.output_quantizer)
            a, b = accept(x, self.operand_quantizer(0)), accept(y, self.operand_quantizer(1))
            warn_without_data(self.output_quantizer)
            out = ops.add(a, b, self.output_quantizer.output())
            z = emit(out, self.output_quantizer)
            tape = current_tape()
            if tape is not None:
                self._write(tape, a, b, out, z)
            return z

    def _write(self, tape: Tape, a: ops.Coded, b: ops.Coded, out: ops.Coded, z: Tensor) -> None:
        attributes = {
            "platform": tape.platform,
            "quant_mode": "floor_add",
            "platform_quant": "luna_quant",
            "data_bits": self.quant.input_bits,
            "o_bits": self.output_quantizer.bits,
            "scale_x": float(a.scale),
            "scale_y": float(b.scale),
            "scale_o": float(out.scale),
        }
        name = self.__dict__.get("_linger_name", "") or "add"
        tape.node("iqAdd", [a.value, b.value], [z], attributes, domain="linger", hint=name)


@factory("add")
def _make(n_inputs: int, quant: Any) -> AddInt:
    return AddInt(n_inputs, quant)


def operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The two tensors of a binary call that can run in integers, or None.

    Both are floating point and of one shape, at least one is quantized, and nothing asks for more (``alpha``, ``out``).
    """
    names = {"input", "self", "other"}
    extra = {k: v for k, v in kwargs.items() if k not in names}
    if extra.pop("alpha", 1) != 1 or any(v is not None for v in extra.values()):
        return None
    values = [*args, *(kwargs[k] for k in ("input", "self", "other") if k in kwargs)]
    if len(values) != 2 or not all(isinstance(v, Tensor) and v.is_floating_point() for v in values):
        return None
    x, y = values
    if info(x) is None and info(y) is None or x.shape != y.shape or x.device != y.device:
        return None
    return x, y


@handles("add", "torch.add Tensor.add Tensor.__add__ Tensor.__radd__ operator.add")
def _add(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = operands(args, kwargs)
    if pair is None:
        return NotImplemented
    return operator_at_site("add", 2)(*pair)


@handles("add_", "Tensor.add_ Tensor.__iadd__ operator.iadd")
def _add_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = operands(args, kwargs)
    if pair is None:
        return NotImplemented
    return store(pair[0], operator_at_site("add", 2)(*pair))


def store(target: Tensor, result: Tensor) -> Tensor:
    """Write a quantized result into ``target`` as an in-place operator does; the file sees only the result.

    A view passes its new values on to its base, which thereby loses its format.
    """
    fmt = info(result)
    target.copy_(result)
    overwritten(target, None if fmt is None else fmt.like(fmt.codes))
    tape = current_tape()
    if tape is not None:
        tape.alias(target, result)
    return target


__all__ = ["AddInt", "FunctionalLayer", "operands", "store"]
