"""Difference of two quantized tensors: every spelling of ``-`` (files are read back in ``sub_nodes.py``).

No chip's engine subtracts right (it starts from an uninitialised buffer), so a file holds an exact expression in iqMul and
iqAdd. ``-1 * y`` will not do: -128 has no int8 negative, and the negative of a rounded half is another half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.nn.functional import FunctionalLayer, pair_attributes
from linger.nn.nodes.broadcast import broadcast_both, write_operand
from linger.nn.nodes.scalar_product import write_scalar_product
from linger.runtime import Tape, factory, handles, operator_at_site

from .add import store_in_first, sum_operands, write_channel_sum
from .constants import add_number, is_one_number


class SubInt(FunctionalLayer):
    """``x - y``, either of which may be a number.

    Two tensors are each re-rounded to the output's scale, then subtracted and saturated; they broadcast as in torch.

    Shape:
        x, y of shapes that broadcast -> the common shape, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "iqAdd".
    """

    operator = "sub"
    row = "iqSub"

    def forward(self, x: Tensor | float, y: Tensor | float) -> Tensor:
        """Integers of the exported expression in forward, gradients 1 and -1 where the difference does not saturate."""
        if is_one_number(x):
            return add_number(self, cast(Tensor, y), -1, x)
        x = cast(Tensor, x)
        if is_one_number(y):
            return add_number(self, x, 1, -y, source=y)
        return self.compute((x, cast(Tensor, y)), torch.sub, _integers, self._write)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
        """``x - t = (x + RSH(-t, 1)) - RSH(t, 1)`` with t = y at the output's scale.

        Both halves of -t fit int8 and have one sign, so that the intermediate sum saturates only where the result does.
        """
        name, (a, b) = self.name, operands
        if {a.codes.dtype, b.codes.dtype, out.codes.dtype} != {torch.int8}:
            tape.violations.append(f"{name}: difference of tensors above 8 bits, the chips have int8 products only")
        if write_channel_sum(tape, a, b, -1, out, z, 8, name):
            return
        q_x, q_y, q_o = float(a.scale), float(b.scale), float(out.scale)
        x, t = write_operand(tape, a, z.shape, name), write_operand(tape, b, z.shape, name)
        if q_y != q_o:
            y, t = t, tape.value(f"{name}.y")
            write_scalar_product(tape, y, q_y, 1, 1.0, t, q_o, name)
        up, half, down, part = (tape.value(f"{name}.{part}") for part in ("up", "half", "down", "part"))
        write_scalar_product(tape, t, q_o, -1, 2.0, up, q_o, name)
        write_scalar_product(tape, t, q_o, 1, 2.0, half, q_o, name)
        write_scalar_product(tape, half, q_o, -1, 1.0, down, q_o, name)
        first, second = (pair_attributes(tape, (8, 8, 8), (q, q_o, q_o)) for q in (q_x, q_o))
        tape.node("iqAdd", [x, up], [part], first, domain="linger", hint=name)
        tape.node("iqAdd", [part, down], [z], second, domain="linger", hint=name)


def _integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
    return ops.sub(*broadcast_both(*operands), out)


@factory("sub")
def _make(n_inputs: int, quant: Any) -> SubInt:
    return SubInt(n_inputs, quant)


def _difference(x: Tensor | float, y: Tensor | float) -> Tensor:
    n_inputs = 1 if is_one_number(x) or is_one_number(y) else 2
    return cast(Tensor, operator_at_site("sub", n_inputs)(x, y))


@handles("sub", "torch.sub torch.subtract Tensor.sub Tensor.subtract Tensor.__sub__ operator.sub")
def _sub(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = sum_operands(args, kwargs)
    return NotImplemented if pair is None else _difference(*pair)


@handles("rsub", "torch.rsub Tensor.__rsub__")
def _reflected(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``other - alpha * input``: the first operand is the one that ``alpha`` scales."""
    if args[1:] and not kwargs.keys() - {"alpha"}:
        args = args[1::-1]
    elif set(kwargs) <= {"input", "other", "alpha"}:
        given = {"input": args[0], **kwargs} if args else dict(kwargs)
        args, kwargs = (given["other"], given["input"]), {k: v for k, v in given.items() if k == "alpha"}
    else:
        return NotImplemented
    pair = sum_operands(args, kwargs)
    return NotImplemented if pair is None else _difference(*pair)


@handles("sub_", "Tensor.sub_ Tensor.subtract_ Tensor.__isub__ operator.isub")
def _sub_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = sum_operands(args, kwargs)
    return NotImplemented if pair is None else store_in_first(args, lambda: _difference(*pair))


__all__ = ["SubInt"]
