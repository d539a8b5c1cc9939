"""Addition: ``iqadd``, every spelling of ``+`` (read back in ``add_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.chip import OPERATORS
from linger.nn.functional import (
    FunctionalLayer,
    both_operands,
    is_number,
    pair_attributes,
    platform_here,
    real_operands,
    store,
)
from linger.nn.nodes.broadcast import broadcast_both, common_shape, per_channel, write_channels, write_operand
from linger.nn.nodes.requant import write_requant
from linger.runtime import Tape, factory, handles, info, operator_at_site

from .constants import add_number, is_one_number


class AddInt(FunctionalLayer):
    """Sum of two tensors, or of a tensor and a number.

    Two tensors are each re-rounded to the output's scale, then added and saturated; they broadcast as in torch.

    Shape:
        x any; y of a shape that broadcasts with it, or a number -> the common shape, float32 on a power-of-two grid, tagged
        with its format.

    Source: docs/numerics.md, "iqAdd".
    """

    operator = "add"
    row = "iqAdd"

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Chip integers in forward, gradient 1 to both operands where the sum does not saturate."""
        if not isinstance(y, Tensor) or is_one_number(y):
            return add_number(self, x, 1, y)
        return self.compute((x, y), torch.add, _integers, self._write)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
        write_sum(tape, operands, out, z, self.output_quantizer.bits, self.name)


def _integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
    return ops.add(*broadcast_both(*operands), out)


def write_sum(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor, bits: int, name: str) -> None:
    """Record a sum: iqAdd, or BatchNorm2dInt where one operand is a constant per channel.

    ``sat(RSH(x, s) + c)`` is ``sat(RSH(x * 1 + c * 2**s, s))``: the same integers.
    """
    shape = tuple(z.shape)
    for x, y in (operands, operands[::-1]):
        if write_channel_sum(tape, x, y, 1, out, z, bits, name):
            return
    if float(operands[0].scale) == float(out.scale) != float(operands[1].scale):
        operands = operands[::-1]  # with the result in PSRAM some engines shift y wrongly where x needs no shift
    widths = [cast(Any, info(x.value)).bits for x in operands]
    if max(widths) > bits:
        tape.violations.append(f"{name}: sum of {max(widths)} bits in {bits}, no operand may be wider than the result")
    if float(operands[0].scale) < float(
        operands[1].scale
    ):  # engines shift the second one wrongly where it is the finer
        operands, widths = operands[::-1], widths[::-1]
    inputs = [write_operand(tape, x, shape, name) for x in operands]
    scales = float(operands[0].scale), float(operands[1].scale), float(out.scale)
    for i in (0, 1):
        if widths[i] < bits:
            inputs[i] = write_requant(tape, inputs[i], scales[i], scales[i], bits, name)
    tape.node("iqAdd", inputs, [z], pair_attributes(tape, (bits, bits, bits), scales), domain="linger", hint=name)


def write_channel_sum(
    tape: Tape, x: ops.Coded, y: ops.Coded, sign: int, out: ops.Coded, z: Tensor, bits: int, name: str
) -> bool:
    """Record ``x + sign * y`` as BatchNorm2dInt where ``y`` is a constant per channel; False where it is not."""
    known = tape.constant_of(y.value)
    codes = None if known is None else per_channel(known, z.shape)
    if codes is None or x.codes.shape != z.shape or bits != 8 or x.codes.dtype != torch.int8:
        return False
    shift = _exp2(x) - _exp2(out)
    if shift > 22:  # the bias would not fit 32 bits
        return False
    addend = ops.requant_codes(torch.from_numpy(codes), _exp2(y) - _exp2(out), 8).to(torch.int32) * sign << shift
    scales = float(x.scale), 1.0, float(out.scale)
    write_channels(tape, x.value, z.shape, torch.ones(1, dtype=torch.int8).numpy(), addend.numpy(), scales, z, name)
    return True


def _exp2(x: ops.Coded) -> int:
    return int(torch.frexp(x.scale).exponent) - 1


@factory("add")
def _make(n_inputs: int, quant: Any) -> AddInt:
    return AddInt(n_inputs, quant)


Operands = tuple[Tensor | float, Tensor | float]


def sum_operands(args: tuple[Any, ...], kwargs: dict[str, Any], widest: int = 8) -> Operands | None:
    """Both operands of a sum or difference that can run in integers, the second times ``alpha``; else None.

    Tensors broadcast with each other, one at least is quantized, none is wider than ``widest`` bits; a number is added to
    int8 only.
    """
    found = both_operands(args, kwargs, "alpha")
    if found is None or not real_operands(*found[:2], widest=widest):
        return None
    x, y, alpha = found
    if alpha is not None and alpha != 1:
        if not is_number(alpha):
            return None
        y = y * alpha if not isinstance(y, Tensor) else operator_at_site("mul", 1)(y, alpha)
    if is_one_number(x) or is_one_number(y):
        tensor = y if is_one_number(x) else x
        fmt = info(tensor)
        return (x, y) if fmt is not None and fmt.bits <= 8 else None
    return (x, y) if common_shape(x, y) is not None else None


def sum_at_site(x: Tensor | float, y: Tensor | float) -> Tensor:
    """The sum at the current call site."""
    if is_one_number(x):
        x, y = y, x
    return cast(Tensor, operator_at_site("add", 1 if is_one_number(y) else 2)(x, y))


def _widest() -> int:
    return max(OPERATORS[AddInt.row][platform_here()].bits)


def store_in_first(args: tuple[Any, ...], result: Callable[[], Tensor]) -> Any:
    """An in-place form: the result is written into the first argument, whose shape it must have."""
    target = args[0] if args else None
    others = [a for a in args[1:] if isinstance(a, Tensor)]
    if not isinstance(target, Tensor) or any(common_shape(target, t) != tuple(target.shape) for t in others):
        return NotImplemented
    return store(target, result())


@handles("add", "torch.add Tensor.add Tensor.__add__ Tensor.__radd__ operator.add")
def _add(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = sum_operands(args, kwargs, _widest())
    return NotImplemented if pair is None else sum_at_site(*pair)


@handles("add_", "Tensor.add_ Tensor.__iadd__ operator.iadd")
def _add_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = sum_operands(args, kwargs, _widest())
    return NotImplemented if pair is None else store_in_first(args, lambda: sum_at_site(*pair))


__all__ = ["AddInt", "store_in_first", "sum_at_site", "sum_operands", "write_channel_sum", "write_sum"]
