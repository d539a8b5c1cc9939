"""Products: ``x * y``, per-channel gates and constant factors in their spellings (read back in ``mul_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.quantizers import calibrating
from linger.runtime import Tape, Value, current_tape, factory, handles, info, operator_at_site

from .add import FunctionalLayer, store
from .base import accept, calibrate_input, emit, emit_calibrated, warn_without_data
from .times import common, write_times

_FINEST = 30  # exponent of a constant factor; smaller numbers lose bits, as a tensor's would


class MulInt(FunctionalLayer):
    """Product of two tensors, of a tensor and a value per channel, or of a tensor and a number.

    Shape:
        x any; y of the same shape, ``(N, C, 1, ...)``, 0-dim or a Python number -> shape of x, float32 on a power-of-two
        grid, tagged with its format. Numbers become int8 codes on a power-of-two scale.

    Source: docs/numerics.md, "iqMul".
    """

    def forward(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Chip integers in forward; the gradient of the product where it does not saturate."""
        with torch._C.DisableTorchFunction():
            if calibrating():
                calibrate_input(x, self.operand_quantizer(0))
                if _has_quantizer(y):
                    calibrate_input(cast(Tensor, y), self.operand_quantizer(1))
                return emit_calibrated(x * y, self.output_quantizer)
            a = accept(x, self.operand_quantizer(0))
            if not isinstance(y, Tensor):
                b = constant(y, x)
            else:
                b = accept(y, self.operand_quantizer(1)) if _has_quantizer(y) else learned(y)
            warn_without_data(self.output_quantizer)
            out = ops.mul(a, b, self.output_quantizer.output())
            z = emit(out, self.output_quantizer)
            tape = current_tape()
            if tape is not None:
                self._write(tape, a, b, y, out, z)
            return z

    def _write(self, tape: Tape, a: ops.Coded, b: ops.Coded, y: Tensor | float, out: ops.Coded, z: Tensor) -> None:
        name = self.__dict__.get("_linger_name", "") or "mul"
        if {a.codes.dtype, b.codes.dtype, out.codes.dtype} != {torch.int8}:
            tape.violations.append(f"{name}: product of tensors above 8 bits, the chips multiply int8")
        scales = float(a.scale), float(b.scale), float(out.scale)
        if b.codes.dim() == 0:
            if tape.has(y):
                tape.violations.append(
                    f"{name}: a factor computed in the graph has no dimensions; give it the shape of x"
                )
            write_times(tape, a.value, scales[0], int(b.codes), scales[1], z, scales[2], name)
            return
        attributes = common(tape) | {"x_bits": 8, "y_bits": 8, "o_bits": self.output_quantizer.bits}
        attributes |= dict(zip(("scale_x", "scale_y", "scale_o"), scales, strict=True))
        inputs: list[Tensor | Value] = [a.value, b.value]
        target: Tensor | Value = z
        missing = 0 if a.codes.shape == b.codes.shape else 4 - z.dim()
        if a.codes.shape != b.codes.shape:
            self._check_broadcast(tape, name, tuple(z.shape))
        if missing > 0:  # the engine broadcasts rank 4 only
            axes = {"axes": list(range(z.dim(), 4))}
            for i, operand in enumerate(tuple(inputs)):
                inputs[i] = tape.value(f"{name}.in")
                tape.node("Unsqueeze", [operand], [inputs[i]], axes, hint=name)
            target = tape.value(f"{name}.product")
        tape.node("iqMul", inputs, [target], attributes, domain="linger", hint=name)
        if missing > 0:
            tape.node("Squeeze", [target], [z], {"axes": list(range(z.dim(), 4))}, hint=name)

    def _check_broadcast(self, tape: Tape, name: str, shape: tuple[int, ...]) -> None:
        if shape[0] != 1:
            tape.violations.append(f"{name}: product per channel with batch {shape[0]}, the chip takes 1")
        if len(shape) > 4:
            tape.violations.append(f"{name}: product per channel of rank {len(shape)}, the chip takes 4")
        pixels = math.prod(shape[2:])
        if shape[1] > pixels:
            tape.violations.append(
                f"{name}: product per channel with {shape[1]} channels and {pixels} pixels, the chip takes C <= H*W "
                "(multiply before pooling, or expand the factor to the shape of the tensor)"
            )


def _has_quantizer(y: Tensor | float) -> bool:
    return isinstance(y, Tensor) and y.dim() > 0


def learned(y: Tensor) -> ops.Coded:
    """A 0-dim float tensor as int8 code and power-of-two scale, as finely as int8 holds it; gradient 1, no statistics.

    The exponent rule of activations may saturate the largest value by a factor of sqrt 2, which is this one.
    """
    now = y.detach().to(torch.float32)
    known = now.isfinite()
    exp2 = (7 - torch.frexp(now).exponent).clamp(-60, _FINEST)
    scale = torch.where(known, torch.ldexp(torch.ones_like(now), exp2), torch.nan)
    code = torch.where(known, (now * scale).round().clamp(-128, 127), 0.0)
    return ops.Coded(y + (code / scale - now).to(y.dtype), code.to(torch.int8), scale)


def constant(number: float, like: Tensor) -> ops.Coded:
    """A number as int8 code and power-of-two scale, as finely as int8 holds it.

    Args:
        number: Finite, below ``2**60`` in magnitude.
        like: Decides the device.
    """
    _, exponent = math.frexp(abs(number))
    exp2 = 0 if number == 0 else min(7 - exponent, _FINEST)
    code = round(number * 2.0**exp2)
    if abs(code) > 127:  # .998 * 128
        code, exp2 = code // 2, exp2 - 1
    value = torch.tensor(code / 2.0**exp2, dtype=like.dtype, device=like.device)
    codes = torch.tensor(code, dtype=torch.int8, device=like.device)
    return ops.Coded(value, codes, torch.tensor(2.0**exp2, device=like.device))


@factory("mul")
def _make(n_inputs: int, quant: Any) -> MulInt:
    return MulInt(n_inputs, quant)


def _is_number(v: Any) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and abs(v) < 2.0**60


def _gates(y: Tensor, x: Tensor) -> bool:
    """Whether ``y`` is one value per sample and channel of ``x``."""
    return y.dim() == x.dim() > 2 and y.shape[:2] == x.shape[:2] and all(n == 1 for n in y.shape[2:])


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | float] | None:
    """Tensor and factor of a call that can run in integers, or None."""
    names = ("input", "self", "other")
    if any(v is not None for k, v in kwargs.items() if k not in names):
        return None
    values = [*args, *(kwargs[k] for k in names if k in kwargs)]
    if len(values) != 2:
        return None
    x, y = values
    if not isinstance(x, Tensor) or isinstance(y, Tensor) and x.dim() == 0:
        x, y = y, x
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() == 0:
        return None
    if not isinstance(y, Tensor):
        return (x, y) if _is_number(y) and info(x) is not None else None
    if not y.is_floating_point() or info(x) is None and info(y) is None or x.device != y.device:
        return None
    if _gates(x, y) and x.shape != y.shape:
        x, y = y, x
    return (x, y) if x.shape == y.shape or y.dim() == 0 or _gates(y, x) else None


def _product(pair: tuple[Tensor, Tensor | float]) -> Tensor:
    site = operator_at_site("mul", 2 if _has_quantizer(pair[1]) else 1)
    return cast(Tensor, site(*pair))


@handles("mul", "torch.mul torch.multiply Tensor.mul Tensor.multiply Tensor.__mul__ Tensor.__rmul__ operator.mul")
def _mul(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else _product(pair)


@handles("mul_", "Tensor.mul_ Tensor.multiply_ Tensor.__imul__ operator.imul")
def _mul_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    if pair is None or not isinstance(args[0], Tensor) or pair[0].shape != args[0].shape:
        return NotImplemented
    return store(args[0], _product(pair))


__all__ = ["MulInt", "constant", "learned"]
