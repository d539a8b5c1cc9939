"""Concatenation: ``torch.cat`` and every kind of ``stack`` in their spellings (read back in ``cat_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from linger import ops
from linger.chip import LIMITS, MAX_LEFT_BITS
from linger.nn.functional import FunctionalLayer, common_attributes, move_coded, real_operands
from linger.nn.nodes.file_tensor import FileTensor
from linger.nn.nodes.requant import write_requant
from linger.runtime import HANDLERS, Tape, Value, factory, handles, info, operator_at_site

from .register import record_float_move

_MOST_AXES = 4


class CatInt(FunctionalLayer):
    """Tensors side by side: each is brought to the output's scale, re-rounded to the right or saturated to the left.

    Shape:
        two or more tensors that differ in ``dim`` only, float32 on power-of-two grids -> their concatenation; ``stack``
        and its relatives first give each the axes ``new``, in rising order.

    Source: docs/numerics.md, "iqCat".
    """

    operator = "cat"
    row = "iqCat"

    def forward(self, xs: Sequence[Tensor], dim: int, new: tuple[int, ...] = ()) -> Tensor:
        """Chip integers in forward; the gradient of ``torch.cat`` where nothing saturates."""
        axis = dim % (xs[0].dim() + len(new))
        if xs[0].dim() + len(new) > _MOST_AXES:
            return self._as_rows(xs, axis, new)
        joined: list[ops.Coded] = []

        def real(*values: Tensor) -> Tensor:
            for at in new:
                values = tuple(v.unsqueeze(at) for v in values)
            return torch.cat(values, axis)

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            joined[:] = operands
            for at in new:
                joined[:] = [move_coded(x, torch.unsqueeze, at) for x in joined]
            return ops.cat(joined, axis, out, left=MAX_LEFT_BITS)

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, y: Tensor) -> None:
            self._write(tape, joined, axis, out, y)

        return self.compute(xs, real, integers, write)

    def _as_rows(self, xs: Sequence[Tensor], axis: int, new: tuple[int, ...]) -> Tensor:
        """Results of more axes than a chip has: rows side by side have two. ``new`` is empty, or the axis itself."""
        sizes = [1 if new else x.shape[axis] for x in xs]
        shape = (*xs[0].shape[:axis], sum(sizes), *xs[0].shape[axis + 1 - len(new) :])
        rows = math.prod(shape[:axis])
        joined: list[ops.Coded] = []

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            joined[:] = [move_coded(x, torch.reshape, (rows, -1)) for x in operands]
            return ops.cat(joined, 1, out, left=MAX_LEFT_BITS)

        def real(*values: Tensor) -> Tensor:
            return torch.cat([v.reshape(rows, -1) for v in values], 1)

        y = self.compute(xs, real, integers, lambda tape, operands, out, y: self._write(tape, joined, 1, out, y))
        with torch._C.DisableTorchFunction():
            return cast(Tensor, HANDLERS[torch.reshape](torch.reshape, (y, shape), {}))

    def _write(self, tape: Tape, xs: Sequence[ops.Coded], dim: int, out: ops.Coded, y: Tensor) -> None:
        if any(x.codes.dtype != torch.int8 for x in xs) or self.output_quantizer.bits != 8:
            tape.violations.append(f"{self.name}: cat of tensors above 8 bits, the chips concatenate int8")
        if y.dim() < 2:
            tape.violations.append(f"{self.name}: cat of rank {y.dim()}, the chips take 2..4 (unsqueeze the tensors)")
        inputs: list[Tensor | Value] = []
        attributes = common_attributes(tape) | {"dim": dim, "o_bits": self.output_quantizer.bits}
        for i, x in enumerate(xs):
            source, scale = self._narrowed(tape, x, float(out.scale))
            inputs.append(source)
            attributes |= {f"x_{i}_bits": 8, f"scale_x_{i}": scale}
        attributes["scale_o"] = float(out.scale)
        tape.node("iqCat", inputs, [y], attributes, domain="linger", hint=self.name)

    def _narrowed(self, tape: Tape, x: ops.Coded, scale_o: float) -> tuple[Tensor | Value, float]:
        """An operand that the chip can bring to the result's scale, and its scale: a Requant narrows where iqCat does not."""
        scale = float(x.scale)
        if scale > scale_o and not LIMITS[self.quant.platform].cat_right:
            return write_requant(tape, x.value, scale, scale_o, 8, self.name), scale_o
        return x.value, scale


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
    return list(xs), dim


_NEW: dict[str, tuple[tuple[tuple[int, ...], int], ...]] = {
    "hstack": (((0,), 0), ((), 0), ((), 1)),
    "vstack": (((0, 1), 0), ((0,), 0), ((), 0)),
    "dstack": (((0, 1, 2), 2), ((0, 2), 2), ((2,), 2), ((), 2)),
    "column_stack": (((0, 1), 1), ((1,), 1), ((), 1)),
}
"""By rank, the last entry for all higher ones: the axes that each tensor is given, and the one along which they are joined."""


def new_axes(name: str, rank: int) -> tuple[tuple[int, ...], int]:
    """What ``hstack``, ``vstack``, ``dstack`` or ``column_stack`` does with tensors of a rank: new axes, and the one to join."""
    return _NEW[name][min(rank, len(_NEW[name]) - 1)]


def _join(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    found = _sequence(args, kwargs)
    if found is None:
        return NotImplemented
    xs, dim = found
    new: tuple[int, ...] = ()
    if name == "stack":
        dim %= xs[0].dim() + 1
        new = (dim,)
    elif name in _NEW:
        new, dim = new_axes(name, xs[0].dim())
    if not real_operands(*xs):
        if any(info(x) is not None for x in xs):
            return NotImplemented
        return record_float_move(func, args, kwargs, xs, partial(_write_equal, dim, new))
    return cast(CatInt, operator_at_site("cat", len(xs)))(xs, dim, new)


def _write_equal(dim: int, new: tuple[int, ...], tape: Tape, *tensors: Tensor) -> None:
    """Side by side what one quantizer has made: tensors of one scale, and behind them the result."""
    *xs, y = tensors
    dim %= y.dim()
    parts = [FileTensor.of(tape, x, info(x), "cat") for x in xs]
    for at in new:
        parts = [part.unsqueeze(at) for part in parts]
    parts[0].cat(parts[1:], dim).done(y)


@handles("cat", "torch.cat torch.concat torch.concatenate")
def _cat(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _join(func, args, kwargs, "cat")


@handles("stack", "torch.stack")
def _stack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _join(func, args, kwargs, "stack")


@handles("hstack", "torch.hstack")
def _hstack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _join(func, args, kwargs, "hstack")


@handles("vstack", "torch.vstack torch.row_stack")
def _vstack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _join(func, args, kwargs, "vstack")


@handles("dstack", "torch.dstack")
def _dstack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _join(func, args, kwargs, "dstack")


@handles("column_stack", "torch.column_stack")
def _column_stack(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _join(func, args, kwargs, "column_stack")


__all__ = ["CatInt", "new_axes"]
