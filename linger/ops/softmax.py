"""Softmax and log-softmax as a chip computes them. ``chip`` is 0 (arcs, mars) or 1 (venusA); log-softmax is the same on both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from linger.ops import checks, gradients
from linger.ops.output import Floats, Operands, Tensors, Unary, along, check_unary, fake, fake_gradient
from linger.ops.spec import Coded, Output

_chip_softmax = checks.native("chip_softmax")
_softmax = checks.native("softmax")
_softmax_codes = checks.native("softmax_codes")
_grad = checks.native("softmax_grad")
Q15 = 15  # exponent of the chips' results


class _Softmax(Unary):
    """Keeps its computed result, at which its Jacobian is taken, again and again."""

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        results, _ = super().run(floats, operands, out, flags, want)
        return results, results[1:]

    def as_graph(
        self, grad: Tensor, kept: Tensors, places: Sequence[Tensor | None], want: Sequence[bool]
    ) -> tuple[Any, ...]:
        return (_jacobian(grad, _Result.apply(*places, *kept)),)  # type: ignore[no-untyped-call]


def _log_softmax(x: Tensor) -> Tensor:
    return F.log_softmax(x, -1)


def _operator(chip: int, log: bool) -> Unary:
    kind = Unary if log else _Softmax
    return kind(_softmax, _grad, _log_softmax, (chip, log), (log,), last=True)


def _jacobian(grad: Tensor, y: Tensor) -> Tensor:
    product = grad * y
    return product - y * product.sum(-1, keepdim=True)


class _Result(torch.autograd.Function):
    """The computed softmax in a graph, with the gradients of the operator itself: for those who differentiate again."""

    @staticmethod
    def forward(ctx: Any, place: Tensor | None, t: Tensor | None, *saved: Tensor) -> Tensor:
        ctx.save_for_backward(*saved)
        ctx.links = place, t
        return gradients.dequantized(*saved[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_x, for_t, *_rest = ctx.needs_input_grad
        saved = ctx.saved_tensors
        _, scale, mask, slope = saved
        grad, gx = grad.contiguous(), None
        gt = gradients.of_threshold(ctx, grad, slope, scale) if for_t else None
        if for_x:
            grad = checks.mask_grad(grad, mask, grad.shape[-1])
            gx = _jacobian(grad, _Result.apply(*ctx.links, *saved))  # type: ignore[no-untyped-call]
        return gx, gt, None, None, None, None


def _check_dim(op: str, x: Tensor, dim: int) -> None:
    checks.check_range(op, "dim", dim, -x.dim(), x.dim() - 1)
    if x.numel() and not x.shape[dim]:
        raise ValueError(f"{op}: axis {dim} of x is empty")


def chip_softmax(x: Tensor, chip: int, log: bool, dim: int = -1) -> Tensor:
    """Softmax or log-softmax of a chip on its own fixed formats.

    Args:
        x: int32, Q25, at least one dimension.
        chip: 0 or 1.
        log: Log-softmax.
        dim: Axis of the rows.

    Returns:
        int32, Q15, shape of ``x``.

    Raises:
        TypeError: ``x`` is not int32.
        ValueError: ``dim`` out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Softmax".
    """
    checks.check_dtype("chip_softmax", "x", x, "int32")
    _check_dim("chip_softmax", x, dim)
    checks.check_device("chip_softmax", x)
    y: Tensor = _chip_softmax(x.movedim(dim, -1), chip, log)
    return y.movedim(-1, dim)


def softmax(x: Coded, out: Output, *, chip: int, log: bool = False, dim: int = -1) -> Coded:
    """Softmax or log-softmax of codes along one axis: the chip's Q15 result, then an output quantizer.

    Args:
        x: Codes int8 or int32, any scale.
        out: State and settings; the output scale is at most ``2**15``.
        chip: 0 or 1.
        log: Log-softmax.
        dim: Axis.

    Returns:
        value, codes and scale. Gradients: softmax by its Jacobian at the computed result, log-softmax by that of the exact
        function at ``x``; where the result saturates the incoming gradient counts as 0.

    Raises:
        TypeError: ``x`` is not Coded, ``out`` no Output.
        ValueError: ``dim`` or a setting out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Softmax".
    """
    check_unary("softmax", x, out)
    _check_dim("softmax", x.codes, dim)
    return along(_operator(chip, log), x, out, dim)


def softmax_codes(x: Tensor, exp2: int, chip: int, log: bool, shift: int, bits: int) -> Tensor:
    """``sat(RSH(f(x), shift))`` along the last axis, f the chip's softmax or log-softmax with its Q15 result.

    Args:
        x: Codes, int8, int16 or int32.
        exp2: log2 of their scale, -126..126.
        chip: 0 or 1.
        log: Log-softmax.
        shift: 0..63.
        bits: Width of the result.

    Returns:
        int8 up to 8 bits, int16 up to 16, int32 above.

    Raises:
        TypeError: ``x`` of another dtype.
        ValueError: ``x`` has no elements along its last axis, or a number is out of range.
        UnsupportedError: A device without kernel.

    Source: docs/numerics.md, "Softmax".
    """
    checks.check_codes("softmax_codes", "x", x)
    _check_dim("softmax_codes", x, -1)
    checks.check_integer_form("softmax_codes", x, bits, shift, exp2)
    y: Tensor = _softmax_codes(checks.widened(x), exp2, chip, log, shift, bits)
    return y


@checks.fake("linger::chip_softmax")
def _fake_chip_softmax(x: Tensor, chip: int, log: bool) -> Tensor:
    return x.new_empty(x.shape)


@fake("linger::softmax")
def _fake_softmax(x: Tensor, x_scale: Tensor, chip: int, log: bool) -> tuple[Tensor, int]:
    return x.new_empty(x.shape, dtype=torch.float32), x.shape[-1]


@checks.fake("linger::softmax_codes")
def _fake_softmax_codes(x: Tensor, exp2: int, chip: int, log: bool, shift: int, bits: int) -> Tensor:
    return x.new_empty(x.shape, dtype=checks.integer_form_dtype(bits))


fake_gradient("linger::softmax_grad")
__all__ = ["Q15", "chip_softmax", "softmax", "softmax_codes"]
