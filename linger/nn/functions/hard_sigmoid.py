"""Hardsigmoid and Hardswish: a line between the saturations of BatchNorm2dInt (at 127 / 128) and Relu; times ``x``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger import ops
from linger.nn.arithmetic.mul import write_product
from linger.nn.functional import FunctionalLayer, store
from linger.nn.nodes.broadcast import write_channels
from linger.runtime import (
    Composite,
    Format,
    Tape,
    Value,
    coded,
    current_tape,
    factory,
    fixed_output,
    handles,
    info,
    operator_at_site,
    state,
    tag,
)

_SIXTH, _SIXTH_EXP2 = 85, 9  # 1/6 as int8
_GATE_EXP2 = 7  # scale of the result: one is the saturation


def _half(x: ops.Coded) -> Tensor:
    return torch.full((), 0.5, dtype=torch.float32, device=x.codes.device)


def _gate(x: ops.Coded) -> ops.Coded:
    """``min(max(x / 6 + 1/2, 0), 127/128)`` at scale 128."""
    scale = torch.full_like(x.scale, 2.0**_GATE_EXP2)
    return ops.affine(x, _SIXTH, _SIXTH_EXP2, _half(x), fixed_output(scale, relu=True))


def _write_gate(tape: Tape, x: ops.Coded, y: Tensor | Value, scale: float, name: str) -> None:
    line = tape.value(f"{name}.line")
    weight, bias = np.array(_SIXTH, np.int8), ops.affine_bias(_half(x), x.scale, _SIXTH_EXP2).numpy()
    write_channels(tape, x.value, x.codes.shape, weight, bias, (float(x.scale), 2.0**_SIXTH_EXP2, scale), line, name)
    tape.node("Relu", [line], [y], hint=name)
    if scale != 2.0**_GATE_EXP2:
        tape.violations.append(f"{name}: the values are too large, the chips clip a line at 127 codes of scale 128")


class HardswishInt(FunctionalLayer):
    """``x * hardsigmoid(x)`` with the hardsigmoid of the chip.

    Shape:
        x any -> the same shape, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Hardsigmoid and Hardswish".
    """

    operator = "hardswish"
    row = "HardSwish"

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward; the gradient of the product of the two factors."""
        gates: list[ops.Coded] = []

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            gates[:] = [_gate(operands[0])]
            return ops.mul(operands[0], gates[0], out)

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
            _write_gate(tape, operands[0], gates[0].value, float(gates[0].scale), self.name)
            write_product(tape, (operands[0], gates[0]), out, z, self.name)

        return self.compute((x,), F.hardswish, integers, write)


@factory("hardswish")
def _make(n_inputs: int, quant: Any) -> HardswishInt:
    return HardswishInt(n_inputs, quant)


def _operand(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Format, bool] | None:
    """The 8-bit tensor of a call, its format and the in-place flag."""
    named = {**dict(zip(("input", "inplace"), args, strict=False)), **kwargs}
    x = named["input"]
    fmt = info(x)
    return (x, fmt, bool(named.get("inplace"))) if fmt is not None and fmt.bits <= 8 else None


@handles("hardswish", "F.hardswish")
def _hardswish(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = _operand(args, kwargs)
    if found is None:
        return NotImplemented
    y = cast(Tensor, operator_at_site("hardswish", 1)(found[0]))
    return store(found[0], y) if found[2] else y


@handles("hardsigmoid", "F.hardsigmoid")
def _hardsigmoid(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = _operand(args, kwargs)
    if found is None:
        return NotImplemented
    x, fmt, in_place = found
    if fmt.exact:
        a = coded(x, fmt)
        out = _gate(a)
        y = tag(out.value, Format(out.scale, 8, out.codes))
        tape = current_tape()
        if tape is not None:
            _write_gate(tape, a, y, float(out.scale), "hardsigmoid")
    else:
        scale = torch.full_like(fmt.scale, 2.0**_GATE_EXP2)
        y = tag(F.hardsigmoid(x), Format(scale, 8, exact=False))
    return store(x, y) if in_place else y


def _called(handler: Callable[..., Any], func: Callable[..., Any], x: Tensor, inplace: bool) -> Tensor:
    """The operator at the call site of a module; dynamo hides these two functions from interception."""
    if state.frames and not state.float_depth:
        with torch._C.DisableTorchFunction():
            y = handler(func, (x, inplace), {})
        if y is not NotImplemented:
            return cast(Tensor, y)
    return cast(Tensor, func(x, inplace))


class Hardswish(Composite, nn.Hardswish):
    """``torch.nn.Hardswish`` in an initialised model, compiled or not."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch names it so
        """Chip integers where the operand is quantized."""
        return _called(_hardswish, F.hardswish, input, self.inplace)


class Hardsigmoid(Composite, nn.Hardsigmoid):
    """``torch.nn.Hardsigmoid`` in an initialised model, compiled or not."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch names it so
        """Chip integers where the operand is quantized."""
        return _called(_hardsigmoid, F.hardsigmoid, input, self.inplace)


__all__ = ["Hardsigmoid", "Hardswish", "HardswishInt"]
