"""Products: ``x * y``, gates, constant factors, negatives and squares in their spellings (read back in ``mul_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.nn.functional import FunctionalLayer, both_operands, pair_attributes, real_operands
from linger.nn.nodes.broadcast import broadcast_both, common_shape, per_channel, write_channels, write_operand
from linger.nn.nodes.scalar_product import write_scalar_product
from linger.runtime import Tape, Value, factory, handles, info, operator_at_site

from .add import store_in_first
from .constants import code_of, codes_of_parameters, is_one_number, product_with_number, refuse_graph


class MulInt(FunctionalLayer):
    """Product of two tensors, or of a tensor and a number.

    Shape:
        x any; y of a shape that broadcasts with it, or a number -> the common shape, float32 on a power-of-two grid, tagged
        with its format. Numbers become int8 codes on a power-of-two scale.

    Source: docs/numerics.md, "iqMul".
    """

    operator = "mul"
    row = "iqMul"

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Chip integers in forward; the gradient of the product where it does not saturate."""
        if not isinstance(y, Tensor) or is_one_number(y):
            return multiply_by_number(self, x, y)
        return self.compute((x, y), torch.mul, _integers, self._write)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
        write_product(tape, operands, out, z, self.name)


def _integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
    x, y = operands
    both = broadcast_both(x, y)
    if x.codes.shape != both[0].codes.shape:
        x, y = y, x
    return ops.mul(both[0] if x is operands[0] else both[1], y, out)


def multiply_by_number(layer: FunctionalLayer, x: Tensor, y: Tensor | float, *, source: Any = None) -> Tensor:
    """``x * y`` for a number, an iqMul by an int8 constant.

    Args:
        layer: The operator at the call site; its first operand is ``x``.
        x: Any shape.
        y: A number.
        source: What ``y`` was made from, where it is not the user's own.
    """
    factor = codes_of_parameters(y.reshape(())) if isinstance(y, Tensor) else None

    def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
        x = operands[0]
        return product_with_number(x, cast(float, y), out) if factor is None else ops.mul(x, factor, out)

    def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
        refuse_graph(tape, layer, y if source is None else source)
        if factor is None:
            code, exp2 = code_of(cast(float, y))
            scale = 2.0**exp2
        else:
            code, scale = int(factor.codes), float(factor.scale)
        scales = float(operands[0].scale), float(out.scale)
        write_scalar_product(tape, operands[0].value, scales[0], code, scale, z, scales[1], layer.name)

    return layer.compute((x,), lambda v: v * y, integers, write)


def refuse_wide(tape: Tape, name: str, parts: Sequence[ops.Coded]) -> None:
    """Note on the tape a product that is not one of int8."""
    if any(part.codes.dtype != torch.int8 for part in parts):
        tape.violations.append(f"{name}: product of tensors above 8 bits, the chips multiply int8")


def write_product(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor, name: str) -> None:
    """Record a product: BatchNorm2dInt by a constant per channel, iqMul by a gate that the engine broadcasts, else by copies."""
    shape = tuple(int(s) for s in z.shape)
    refuse_wide(tape, name, (*operands, out))
    x, y = operands
    if x.codes.shape != z.shape:
        x, y = y, x
    scales = float(x.scale), float(y.scale), float(out.scale)
    known = tape.constant_of(y.value)
    channels = None if known is None else per_channel(known, shape)
    if channels is not None and tuple(x.codes.shape) == shape:
        write_channels(tape, x.value, shape, channels, np.zeros(1, np.int32), scales, z, name)
        return
    inputs = [write_operand(tape, x, shape, name)]
    target: Tensor | Value = z
    lifted = 0
    if known is None and _is_gate(y.codes.shape, shape):
        inputs.append(y.value)
        lifted = 4 - len(shape)
    else:
        inputs.append(write_operand(tape, y, shape, name))
    axes = {"axes": list(range(len(shape), 4))}
    if lifted:  # the engine broadcasts rank 4 only
        for i, operand in enumerate(tuple(inputs)):
            inputs[i] = tape.value(f"{name}.in")
            tape.node("Unsqueeze", [operand], [inputs[i]], axes, hint=name)
        target = tape.value(f"{name}.product")
    tape.node("iqMul", inputs, [target], pair_attributes(tape, (8, 8, 8), scales), domain="linger", hint=name)
    if lifted:
        tape.node("Squeeze", [target], [z], axes, hint=name)


def _is_gate(y: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether the engine broadcasts ``y``: one value per channel, a batch of 1, at most as many channels as pixels."""
    rank, pixels = len(shape), math.prod(shape[2:])
    if not 3 <= rank <= 4 or shape[0] != 1 or tuple(y) == tuple(shape) or shape[1] > pixels:
        return False
    return tuple(y) == (1, shape[1]) + (1,) * (rank - 2)


@factory("mul")
def _make(n_inputs: int, quant: Any) -> MulInt:
    return MulInt(n_inputs, quant)


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | float] | None:
    """Tensor and factor of a call that can run in integers, or None."""
    found = both_operands(args, kwargs)
    if found is None or not real_operands(*found[:2]):
        return None
    x, y, _ = found
    if is_one_number(x):
        x, y = y, x
    if is_one_number(y):
        return (x, y) if info(x) is not None else None
    return (x, y) if common_shape(x, y) is not None else None


def product_at_site(x: Tensor, y: Tensor | float) -> Tensor:
    """The product at the current call site."""
    return cast(Tensor, operator_at_site("mul", 1 if is_one_number(y) else 2)(x, y))


@handles("mul", "torch.mul torch.multiply Tensor.mul Tensor.multiply Tensor.__mul__ Tensor.__rmul__ operator.mul")
def _mul(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else product_at_site(*pair)


@handles("mul_", "Tensor.mul_ Tensor.multiply_ Tensor.__imul__ operator.imul")
def _mul_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else store_in_first(args, lambda: product_at_site(*pair))


def _only(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The quantized operand of a function of one tensor."""
    x = args[0] if args else kwargs.get("input")
    rest = [v for k, v in kwargs.items() if k != "input"]
    return x if isinstance(x, Tensor) and info(x) is not None and len(args) < 2 and not any(rest) else None


@handles("neg", "torch.neg torch.negative Tensor.neg Tensor.negative Tensor.__neg__ operator.neg")
def _neg(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _only(args, kwargs)
    return NotImplemented if x is None else product_at_site(x, -1.0)


@handles("neg_", "torch.neg_ Tensor.neg_ Tensor.negative_")
def _neg_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _only(args, kwargs)
    return NotImplemented if x is None else store_in_first((x,), lambda: product_at_site(x, -1.0))


@handles("positive", "torch.positive Tensor.positive Tensor.__pos__ operator.pos")
def _positive(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _only(args, kwargs)
    return NotImplemented if x is None else x


@handles("square", "torch.square Tensor.square")
def _square(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _only(args, kwargs)
    return NotImplemented if x is None else product_at_site(x, x)


@handles("square_", "torch.square_ Tensor.square_")
def _square_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _only(args, kwargs)
    return NotImplemented if x is None else store_in_first((x,), lambda: product_at_site(x, x))


def _base(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The quantized base of a power with exponent 2."""
    given = [*args, *(kwargs[k] for k in ("input", "self", "exponent", "other") if k in kwargs)]
    if len(given) != 2 or not is_square(given[1]) or not isinstance(given[0], Tensor) or info(given[0]) is None:
        return None
    return given[0] if not any(v is not None for k, v in kwargs.items() if k == "out") else None


def is_square(exponent: Any) -> bool:
    """Whether an exponent is the number 2."""
    return isinstance(exponent, (int, float)) and exponent == 2


@handles("pow", "torch.pow Tensor.pow Tensor.__pow__ operator.pow")
def _pow(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _base(args, kwargs)
    return NotImplemented if x is None else product_at_site(x, x)


@handles("pow_", "Tensor.pow_ Tensor.__ipow__ operator.ipow")
def _pow_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _base(args, kwargs)
    return NotImplemented if x is None else store_in_first((x,), lambda: product_at_site(x, x))


__all__ = ["MulInt", "multiply_by_number", "product_at_site", "write_product"]
