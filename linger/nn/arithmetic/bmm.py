"""Matrix products of two tensors: ``torch.bmm``, ``torch.matmul``, ``@`` (read back in ``bmm_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from linger import ops
from linger.nn.functional import FunctionalLayer, common_attributes, move_coded, real_operands
from linger.runtime import HANDLERS, Format, Tape, current_tape, factory, handles, operator_at_site, tag


class BmmInt(FunctionalLayer):
    """Product of two stacks of matrices; leading axes are the stack, a matrix on the right may serve all of it.

    Shape:
        x ``(..., M, K)``, y ``(..., K, N)`` with leading axes that broadcast, or y ``(K, N)`` -> ``(..., M, N)``, float32 on a
        power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "BmmInt".
    """

    operator = "bmm"
    row = "BmmInt"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Chip integers in forward; the gradients of the float product where it does not saturate."""
        lead = x.shape[:-2] if y.dim() == 2 else common_lead(x, y) or ()
        shape = (*lead, x.shape[-2], y.shape[-1])
        stack = 1
        if y.dim() > 2:
            for size in lead:  # Size.numel() would make a number of a symbol
                stack *= size

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            a = _reshaped(_repeated(operands[0], lead), (stack, -1, x.shape[-1]))
            b = _reshaped(operands[1] if y.dim() == 2 else _repeated(operands[1], lead), (stack, *y.shape[-2:]))
            stacks[:] = a, b
            return ops.bmm(a, b, out)

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
            known = tape.constant_of(operands[1].value)
            matrix = known if known is not None and known.ndim == 2 else None
            self._write(tape, stacks[0], stacks[1], out, z, matrix)

        stacks: list[ops.Coded] = []
        z = self.compute((x, y), torch.matmul, integers, write)
        if z.shape == shape:
            return z
        with torch._C.DisableTorchFunction():
            return cast(Tensor, HANDLERS[torch.reshape](torch.reshape, (z, shape), {}))

    def _write(self, tape: Tape, a: ops.Coded, b: ops.Coded, out: ops.Coded, z: Tensor, matrix: Any) -> None:
        bits, name = self.output_quantizer.bits, self.name
        scales = dict(zip(("scale_x", "scale_y", "scale_o"), map(float, (a.scale, b.scale, out.scale)), strict=True))
        if matrix is not None:  # a matrix of the file: the same sums as a linear layer's
            attributes = common_attributes(tape) | {"data_bits": 8, "parameter_bits": 8, "o_bits": bits} | scales
            attributes["scale_w"] = attributes.pop("scale_y")
            weight = np.ascontiguousarray(matrix.T)
            tape.node("LinearInt", [a.value, weight], [z], attributes, domain="linger", hint=name)
            return
        attributes = common_attributes(tape) | {"x_bits": 8, "y_bits": 8, "o_bits": bits} | scales
        tape.node("BmmInt", [a.value, b.value], [z], attributes, domain="linger", hint=name)


def _reshaped(x: ops.Coded, shape: tuple[int, ...]) -> ops.Coded:
    """The operand as (stack, rows, columns); nothing where it has this shape (and no node: explicit reshapes only)."""
    fits = x.codes.dim() == 3 and x.codes.shape[0] == shape[0]
    return x if fits else _moved(x, torch.reshape, shape)


def _repeated(x: ops.Coded, lead: tuple[int, ...]) -> ops.Coded:
    """The operand once for every matrix of the stack."""
    same = tuple(x.codes.shape[:-2]) == tuple(lead)
    return x if same else _moved(x, Tensor.expand, *lead, *x.codes.shape[-2:])


def _moved(x: ops.Coded, func: Callable[..., Any], *args: Any) -> ops.Coded:
    """The operand behind a shape operator; of a constant of the file, another constant."""
    tape = current_tape()
    known = None if tape is None else tape.constant_of(x.value)
    if tape is None or known is None:
        return move_coded(x, func, *args)
    moved = ops.Coded(func(x.value, *args), func(x.codes, *args), x.scale)
    tag(moved.value, Format(x.scale, 8, moved.codes))
    tape.bind(moved.value, tape.constant(func(torch.from_numpy(known), *args).contiguous().numpy(), "constant"))
    return moved


def common_lead(x: Tensor, y: Tensor) -> tuple[int, ...] | None:
    """Leading axes of the result, or None where those of the operands do not broadcast."""
    if x.shape[:-2] == y.shape[:-2]:
        return tuple(x.shape[:-2])
    try:
        return tuple(torch.broadcast_shapes(x.shape[:-2], y.shape[:-2]))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None


@factory("bmm")
@factory("matmul")
def _make(n_inputs: int, quant: Any) -> BmmInt:
    return BmmInt(n_inputs, quant)


def _fits(x: Tensor, y: Tensor) -> bool:
    """Whether the integers compute a product: the same answer for every size of the batch."""
    if x.dim() < 2 or x.shape[-1] != y.shape[-2] or 0 in (*x.shape, *y.shape):
        return False
    return y.dim() == 2 or common_lead(x, y) is not None


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The two tensors of a call that can run in integers, or None."""
    names = ("input", "self", "mat2", "tensor2", "other")
    if any(v is not None for k, v in kwargs.items() if k not in names):
        return None
    values = [*args, *(kwargs[k] for k in names if k in kwargs)]
    if len(values) != 2 or not all(isinstance(v, Tensor) and v.is_floating_point() for v in values):
        return None
    x, y = values
    if not real_operands(x, y) or y.dim() < 2:
        return None
    return (x, y) if _fits(x, y) else None


@handles("bmm", "torch.bmm Tensor.bmm")
def _bmm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else operator_at_site("bmm", 2)(*pair)


@handles("matmul", "torch.matmul Tensor.matmul Tensor.__matmul__ operator.matmul torch.mm Tensor.mm")
def _matmul(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args, kwargs)
    return NotImplemented if pair is None else operator_at_site("matmul", 2)(*pair)


@handles("rmatmul", "Tensor.__rmatmul__")
def _reflected(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pair = _operands(args[::-1], kwargs)
    return NotImplemented if pair is None else operator_at_site("matmul", 2)(*pair)


__all__ = ["BmmInt"]
