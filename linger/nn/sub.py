"""Difference of two quantized tensors: every spelling of ``-`` (files are read back in ``sub_nodes.py``).

No chip's engine subtracts right (it starts from an uninitialised buffer), so a file holds an exact expression in iqMul and
iqAdd. ``-1 * y`` will not do: -128 has no int8 negative, and the negative of a rounded half is another half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linger import ops
from linger.quantizers import calibrating
from linger.runtime import Tape, Value, current_tape, factory, handles, operator_at_site

from .add import FunctionalLayer, operands, store
from .base import accept, calibrate_input, emit, emit_calibrated, warn_without_data
from .times import common, write_times


class SubInt(FunctionalLayer):
    """``x - y``: each operand is re-rounded to the output's scale, then subtracted and saturated.

    Shape:
        x, y of one shape -> the same shape, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "iqAdd".
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Integers of the exported expression in forward, gradients 1 and -1 where the difference does not saturate."""
        with torch._C.DisableTorchFunction():
            if calibrating():
                calibrate_input(x, self.operand_quantizer(0))
                calibrate_input(y, self.operand_quantizer(1))
                return emit_calibrated(x - y, self.output_quantizer)
            a, b = accept(x, self.operand_quantizer(0)), accept(y, self.operand_quantizer(1))
            warn_without_data(self.output_quantizer)
            out = ops.sub(a, b, self.output_quantizer.output())
            z = emit(out, self.output_quantizer)
            tape = current_tape()
            if tape is not None:
                self._write(tape, a, b, out, z)
            return z

    def _write(self, tape: Tape, a: ops.Coded, b: ops.Coded, out: ops.Coded, z: Tensor) -> None:
        """``x - t = (x + RSH(-t, 1)) - RSH(t, 1)`` with t = y at the output's scale.

        Both halves of -t fit int8 and have one sign, so that the intermediate sum saturates only where the result does.
        """
        name = self.__dict__.get("_linger_name", "") or "sub"
        if {a.codes.dtype, b.codes.dtype, out.codes.dtype} != {torch.int8}:
            tape.violations.append(f"{name}: difference of tensors above 8 bits, the chips have int8 products only")
        q_x, q_y, q_o = float(a.scale), float(b.scale), float(out.scale)
        t: Tensor | Value = b.value
        if q_y != q_o:
            t = tape.value(f"{name}.y")
            write_times(tape, b.value, q_y, 1, 1.0, t, q_o, name)
        up, half, down, part = (tape.value(f"{name}.{part}") for part in ("up", "half", "down", "part"))
        write_times(tape, t, q_o, -1, 2.0, up, q_o, name)
        write_times(tape, t, q_o, 1, 2.0, half, q_o, name)
        write_times(tape, half, q_o, -1, 1.0, down, q_o, name)
        attributes = common(tape) | {"x_bits": 8, "y_bits": 8, "o_bits": 8, "scale_y": q_o, "scale_o": q_o}
        tape.node("iqAdd", [a.value, up], [part], attributes | {"scale_x": q_x}, domain="linger", hint=name)
        tape.node("iqAdd", [part, down], [z], attributes | {"scale_x": q_o}, domain="linger", hint=name)


@factory("sub")
def _make(n_inputs: int, quant: Any) -> SubInt:
    return SubInt(n_inputs, quant)


@handles("sub", "torch.sub torch.subtract Tensor.sub Tensor.subtract Tensor.__sub__ operator.sub")
def _sub(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = operands(args, kwargs)
    return NotImplemented if pair is None else operator_at_site("sub", 2)(*pair)


@handles("rsub", "torch.rsub Tensor.__rsub__")
def _reflected(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = operands(args, kwargs)
    return NotImplemented if pair is None else operator_at_site("sub", 2)(pair[1], pair[0])


@handles("sub_", "Tensor.sub_ Tensor.subtract_ Tensor.__isub__ operator.isub")
def _sub_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = operands(args, kwargs)
    return NotImplemented if pair is None else store(pair[0], operator_at_site("sub", 2)(*pair))


__all__ = ["SubInt"]
