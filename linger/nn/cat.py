"""Concatenation: ``torch.cat`` and ``torch.stack`` in their spellings (read back in ``cat_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.chip import LIMITS, MAX_LEFT_BITS
from linger.errors import UnsupportedError
from linger.quantizers import calibrating
from linger.runtime import HANDLERS, Tape, Value, coded, current_tape, factory, handles, info, operator_at_site

from .add import FunctionalLayer
from .base import accept, calibrate_input, emit, emit_calibrated, warn_without_data
from .times import common, write_times


class CatInt(FunctionalLayer):
    """Tensors side by side: each is brought to the output's scale, re-rounded to the right or saturated to the left.

    Shape:
        two or more tensors that differ in ``dim`` only, float32 on power-of-two grids -> their concatenation; ``stack``
        first gives each a new axis ``dim``.

    Source: docs/numerics.md, "iqCat".
    """

    def forward(self, xs: Sequence[Tensor], dim: int, stack: bool = False) -> Tensor:
        """Chip integers in forward; the gradient of ``torch.cat`` where nothing saturates."""
        if len(xs) > len(self.input_quantizer):
            raise UnsupportedError(
                f"linger: the cat of '{self._name}' has {len(self.input_quantizer)} inputs so far and now got {len(xs)}"
            )
        with torch._C.DisableTorchFunction():
            if calibrating():
                for i, x in enumerate(xs):
                    calibrate_input(x, self.operand_quantizer(i))
                joined = torch.stack(list(xs), dim) if stack else torch.cat(list(xs), dim)
                return emit_calibrated(joined, self.output_quantizer)
            operands = [accept(x, self.operand_quantizer(i)) for i, x in enumerate(xs)]
            if stack:
                dim %= xs[0].dim() + 1
                operands = [_with_axis(x, dim) for x in operands]
            warn_without_data(self.output_quantizer)
            widest = not LIMITS[self.quant.platform].cat_right
            out = ops.cat(operands, dim, self.output_quantizer.output(), left=MAX_LEFT_BITS, widest=widest)
            y = emit(out, self.output_quantizer)
            tape = current_tape()
            if tape is not None:
                self._write(tape, operands, dim % y.dim(), out, y)
            return y

    @property
    def _name(self) -> str:
        return self.__dict__.get("_linger_name", "") or "cat"

    def _write(self, tape: Tape, xs: Sequence[ops.Coded], dim: int, out: ops.Coded, y: Tensor) -> None:
        if any(x.codes.dtype != torch.int8 for x in xs) or self.output_quantizer.bits != 8:
            tape.violations.append(f"{self._name}: cat of tensors above 8 bits, the chips concatenate int8")
        if not 2 <= y.dim() <= 4:
            tape.violations.append(f"{self._name}: cat of rank {y.dim()}, the chips take 2..4")
        inputs: list[Tensor | Value] = []
        attributes = common(tape) | {"dim": dim, "o_bits": self.output_quantizer.bits}
        for i, x in enumerate(xs):
            source, scale = _within_reach(tape, self._name, x, float(out.scale))
            inputs.append(source)
            attributes |= {f"x_{i}_bits": 8, f"scale_x_{i}": scale}
        attributes["scale_o"] = float(out.scale)
        tape.node("iqCat", inputs, [y], attributes, domain="linger", hint=self._name)


def _with_axis(x: ops.Coded, dim: int) -> ops.Coded:
    y = HANDLERS[torch.unsqueeze](torch.unsqueeze, (x.value, dim), {})
    fmt = info(y)
    assert fmt is not None
    return coded(y, fmt)


def _within_reach(tape: Tape, name: str, x: ops.Coded, scale_o: float) -> tuple[Tensor | Value, float]:
    """The operand, or its product with 64 at 64 times the scale, until the engine's left shift is enough.

    ``sat(sat(x * 64) * 2**k)`` is ``sat(x * 64 * 2**k)``: exact.
    """
    source: Tensor | Value = x.value
    scale, step = float(x.scale), 2**MAX_LEFT_BITS
    while scale_o / scale > step:
        finer = tape.value(f"{name}.finer")
        write_times(tape, source, scale, step, float(step), finer, scale * step, name)  # 64 / 64 = 1, without a shift
        source, scale = finer, scale * step
    return source, scale


@factory("cat")
def _make(n_inputs: int, quant: Any) -> CatInt:
    return CatInt(n_inputs, quant)


def _sequence(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Tensor], int] | None:
    """Tensors and axis of a call that can run in integers, or None."""
    given = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    dim = given.pop("dim", given.pop("axis", 0))
    xs = given.pop("tensors", None)
    if len(args) > 2 or any(v is not None for v in given.values()) or not isinstance(dim, int):
        return None
    if not isinstance(xs, (list, tuple)) or len(xs) < 2:
        return None
    if not all(isinstance(x, Tensor) and x.is_floating_point() and x.dim() == xs[0].dim() for x in xs):
        return None
    if all(info(x) is None for x in xs) or any(x.device != xs[0].device for x in xs):
        return None
    return list(xs), dim


def _joined(args: tuple[Any, ...], kwargs: dict[str, Any], stack: bool) -> Any:
    found = _sequence(args, kwargs)
    if found is None:
        return NotImplemented
    xs, dim = found
    return cast(CatInt, operator_at_site("cat", len(xs)))(xs, dim, stack)


@handles("cat", "torch.cat torch.concat torch.concatenate")
def _cat(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _joined(args, kwargs, False)


@handles("stack", "torch.stack")
def _stack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _joined(args, kwargs, True)


__all__ = ["CatInt"]
