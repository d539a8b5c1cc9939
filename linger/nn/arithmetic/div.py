"""Quotients: ``x / number`` in every spelling, and of 32-bit tensors where a chip scales them (read back in ``div_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.chip import MAX_LEFT_BITS, limits_of
from linger.nn.functional import (
    FunctionalLayer,
    both_operands,
    move_coded,
    pair_attributes,
    platform_here,
    real_operands,
)
from linger.nn.nodes.broadcast import common_shape
from linger.nn.nodes.scalar_product import scalar_constant, write_scalar_product
from linger.runtime import Tape, factory, handles, info, operator_at_site

from .add import store_in_first
from .constants import code_of, is_one_number, product_with_number
from .mul import multiply_by_number


class DivInt(FunctionalLayer):
    """Quotient of a tensor and a number, or of two tensors of 32 bits.

    Shape:
        x any; y a number, or a tensor that broadcasts with x -> the common shape, float32 on a power-of-two grid, tagged with
        its format.

    Source: docs/numerics.md, "Divide".
    """

    operator = "div"

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Chip integers in forward; the gradient of the quotient where it does not saturate."""
        if isinstance(y, Tensor) and not is_one_number(y):
            return self._of_tensors(x, y)
        if isinstance(y, Tensor):
            return multiply_by_number(self, x, y.reshape(()).reciprocal(), source=y)
        mantissa, exponent = math.frexp(y)
        if mantissa != 0.5:
            return multiply_by_number(self, x, 1.0 / y)
        return self._shifted(x, exponent - 1)

    def _shifted(self, x: Tensor, m: int) -> Tensor:
        """``x / 2**m``: the engine's division where it has one, else the product of the same integers."""
        factor = 2.0**-m

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
            source, q_x, q_o = operands[0].value, float(operands[0].scale), float(out.scale)
            k = round(math.log2(q_o / q_x)) - m
            if k == 0 or k > MAX_LEFT_BITS:
                code, exp2 = code_of(factor)
                write_scalar_product(tape, source, q_x, code, 2.0**exp2, z, q_o, self.name)
                return
            bits = min(max(m, 0), 6)  # the divisor as an int8 power of two
            divisor = scalar_constant(tape, 2**bits, 2.0 ** (bits - m), f"{self.name}.by")
            attributes = pair_attributes(tape, (8, 8, 8), (q_x, 2.0 ** (bits - m), q_o))
            tape.node("iqDiv", [source, divisor], [z], attributes, domain="linger", hint=self.name)

        return self.compute((x,), lambda v: v * factor, lambda xs, out: product_with_number(xs[0], factor, out), write)

    def _of_tensors(self, x: Tensor, y: Tensor) -> Tensor:
        pair: list[ops.Coded] = []

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            pair[:] = _alike(operands)
            return ops.div(pair[0], pair[1], out._replace(bits=32))

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
            scales = float(pair[0].scale), float(pair[1].scale), float(out.scale)
            attributes = pair_attributes(tape, (32, 32, 32), scales)
            tape.node("iqDiv", [p.value for p in pair], [z], attributes, domain="linger", hint=self.name)

        return self.compute((x, y), torch.div, integers, write)


def _alike(operands: Sequence[ops.Coded]) -> list[ops.Coded]:
    """Both operands at the shape of their result."""
    shape = common_shape(operands[0].codes, operands[1].codes)
    assert shape is not None  # the call was refused otherwise
    return [x if tuple(x.codes.shape) == shape else move_coded(x, Tensor.expand, *shape) for x in operands]


@factory("div")
def _make(n_inputs: int, quant: Any) -> DivInt:
    layer = DivInt(n_inputs, quant)
    if n_inputs == 2:
        layer.output_quantizer.bits = 32
    else:
        layer.row = "iqMul"  # a product, or an engine of the same widths
    return layer


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | float] | None:
    """Dividend and divisor of a call that can run in integers, or None."""
    found = both_operands(args, kwargs, "rounding_mode")
    if found is None or found[2] is not None or not real_operands(*found[:2], widest=32):
        return None
    x, y, _ = found
    if not isinstance(x, Tensor) or info(x) is None:
        return None
    formats = info(x), info(y)
    if is_one_number(y):
        usable = isinstance(y, Tensor) or y != 0 and abs(y) > 2.0**-60
        return (x, y) if usable and formats[0] is not None and formats[0].bits <= 8 else None
    wide = all(f is not None and f.bits == 32 for f in formats) and common_shape(x, cast(Tensor, y)) is not None
    return (x, y) if wide and limits_of(platform_here()).div_scales else None  # else a quotient would be a whole number


def _quotient(x: Tensor, y: Tensor | float) -> Tensor:
    return cast(Tensor, operator_at_site("div", 1 if is_one_number(y) else 2)(x, y))


_SPELLINGS = """torch.div torch.divide torch.true_divide Tensor.div Tensor.divide Tensor.true_divide Tensor.__truediv__
    Tensor.__div__ operator.truediv"""
_IN_PLACE = "Tensor.div_ Tensor.divide_ Tensor.true_divide_ Tensor.__itruediv__ Tensor.__idiv__ operator.itruediv"


@handles("div", _SPELLINGS)
def _div(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else _quotient(*pair)


@handles("rdiv", "Tensor.__rtruediv__ Tensor.__rdiv__")
def _reflected(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``other / input``: a number divided by a tensor has no form on a chip."""
    pair = _operands(args[::-1], kwargs)
    return NotImplemented if pair is None else _quotient(*pair)


@handles("div_", _IN_PLACE)
def _div_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else store_in_first(args, lambda: _quotient(*pair))


__all__ = ["DivInt"]
