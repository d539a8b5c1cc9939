"""The output quantizer of every operator: one autograd Function, one builder of fake kernels, the checks that all share.

An operator is an :class:`Operator`: its kernel call, its gradient and its float form. :func:`quantized` runs it, with a gradient
where one is needed; the native side of the same stage is ``csrc/ops/output.h``, which also chooses the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from linger.ops import checks, gradients
from linger.ops.spec import GRAD, Coded, Output, flags_of

Floats = tuple[Tensor | None, ...]
Tensors = tuple[Tensor, ...]
Operands = tuple[Any, ...]
_Shape = TypeVar("_Shape", bound=Callable[..., tuple[Tensor, int]])


class Operator:
    """What one operator adds to the stage. Its instances hold settings; tensors come as arguments, so that autograd keeps them.

    The operands that a derivative may be wanted of are *floats*, float32 or None; what the kernel computes with are *operands*.

    Attributes:
        keeps_operands: Whether a second derivative needs the places of the floats in the graph. False: the gradients are linear
            in the incoming one and can be differentiated as they are.
    """

    __slots__ = ()
    keeps_operands = True

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        """The kernel call.

        Args:
            floats: Real operands.
            operands: Codes and scales.
            out: The output quantizer; :func:`settings` gives it to the native operator.
            flags: As the native operator takes them.
            want: Which floats want a gradient; empty: none.

        Returns:
            value, codes, scale, mask, slope; and what :meth:`gradients` needs of the operands.
        """
        raise NotImplementedError

    def ordered(self, grad: Tensor, layout: tuple[int, ...] | None) -> Tensor:
        """A gradient in the memory order of the mask; ``layout`` is the value's."""
        return checks.in_layout(grad, layout)

    def row(self, grad: Tensor) -> int:
        """Elements per row of the mask, 0 for a flat one; ``grad`` is ordered."""
        return grad.numel()

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        """Gradients of the floats, from the masked and ordered one of the result."""
        raise NotImplementedError

    def gradients_behind(
        self, grad: Tensor, mask: Tensor, layout: tuple[int, ...] | None, kept: Tensors, want: Sequence[bool]
    ) -> tuple[Any, ...]:
        """The same from a gradient as it comes; for an operator whose native gradient reads the mask itself."""
        return self.gradients(self.masked(grad, mask, layout), kept, want)

    def masked(self, grad: Tensor, mask: Tensor, layout: tuple[int, ...] | None) -> Tensor:
        """A gradient of the result, ordered, where nothing was cut."""
        grad = self.ordered(grad, layout)
        return checks.mask_grad(grad, mask, self.row(grad))

    def as_graph(
        self, grad: Tensor, kept: Tensors, places: Sequence[Tensor | None], want: Sequence[bool]
    ) -> tuple[Any, ...]:
        """The same as a graph, for those who differentiate again; here that of :meth:`real` at codes and scales kept in pairs.

        Args:
            places: Where the floats stand in the graph and, last, the threshold; None for those without a gradient.
        """
        pairs = [gradients.operand(place, *kept[2 * i : 2 * i + 2]) for i, place in enumerate(places[:-1])]
        return gradients.differentiated(self.real, grad, *pairs)

    def real(self, *operands: Any, **_: Any) -> Tensor:
        """The operator on real numbers."""
        raise NotImplementedError


class Unary(Operator):
    """An operator of one quantized tensor, whose native operators take codes, scale and the operator's numbers.

    Args:
        native: The kernel call.
        gradient: The native gradient: of the result's, codes and scale.
        real: The float form.
        numbers: What ``native`` takes behind the scale.
        shape: What ``gradient`` takes behind the scale.
        last: Whether the mask has a row for each of the last axis; else it is one row.
    """

    __slots__ = ("form", "gradient", "last", "native", "numbers", "shape")

    def __init__(
        self,
        native: Callable[..., Any],
        gradient: Callable[..., Any],
        real: Callable[[Tensor], Tensor],
        numbers: tuple[Any, ...],
        shape: tuple[Any, ...] = (),
        last: bool = False,
    ) -> None:
        self.native, self.gradient, self.form = native, gradient, real
        self.numbers, self.shape, self.last = numbers, shape, last

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[Any, Tensors]:
        """The kernel call."""
        return self.native(*operands, *self.numbers, *settings(out, flags)), operands

    def row(self, grad: Tensor) -> int:
        """All elements, or those of the last axis."""
        return grad.shape[-1] if self.last else grad.numel()

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        """The native gradient."""
        return (self.gradient(grad, *kept[:2], *self.shape),)

    def real(self, x: Tensor) -> Tensor:
        """The float form."""
        return self.form(x)


def settings(out: Output, flags: int) -> tuple[Any, ...]:
    """State, format and flags as every native operator with an output quantizer takes them."""
    return (*out.stats, out.threshold, out.bits, float(out.clamp), int(out.rounding), flags)


class _Quantized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, op: Operator, operands: Operands, out: Output, links: gradients.Links, t: Tensor | None, *floats: Tensor | None
    ) -> Tensors:  # fmt: skip
        results, kept = op.run(floats, operands, out, flags_of(out, True), ctx.needs_input_grad[5:])
        value, codes, scale, mask, slope = results
        # saved tensors are read once: torch's checkpoint gives them away
        ctx.save_for_backward(*kept, mask, *(() if t is None else (slope, scale)))
        ctx.op, ctx.links, ctx.count = op, links, len(kept)
        ctx.layout = checks.layout_of(value)
        ctx.mark_non_differentiable(codes, scale)
        ctx.set_materialize_grads(False)
        return value, codes, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        _op, _operands, _out, _links, for_t, *want = ctx.needs_input_grad
        if grad is None:
            return (None,) * (5 + len(want))
        op: Operator = ctx.op
        saved = ctx.saved_tensors
        kept, mask, layout = saved[: ctx.count], saved[ctx.count], ctx.layout
        gt = gradients.of_threshold(ctx, op.ordered(grad, layout), *saved[ctx.count + 1 :]) if for_t else None
        found: tuple[Any, ...] = (None,) * len(want)
        if any(want) and op.keeps_operands and gradients.needs_graph(ctx):
            found = op.as_graph(op.masked(grad, mask, layout), kept, ctx.links, want)
        elif any(want):
            found = op.gradients_behind(grad, mask, layout, kept, want)
        return None, None, None, None, gt, *found


# what Function.apply ends in where no torch.func transform and no tracer runs; the wrapper around it takes 2.5 us
_apply: Callable[..., Any] = super(torch.autograd.Function, _Quantized).apply


def quantized(op: Operator, floats: Floats, operands: Operands, out: Output, dtype: torch.dtype) -> Coded:
    """Runs an operator on checked operands; the result's value has ``dtype``.

    Args:
        op: The operator.
        floats: Its real operands, float32.
        operands: What its kernel takes.
        out: The output quantizer.
        dtype: Of the operands' values as the caller gave them.
    """
    t = out.threshold
    if checks.needs_grad(t, *floats):
        apply, links = _apply, None
        if torch.compiler.is_compiling():
            apply, floats = _Quantized.apply, _views_of_repeated(floats)
        elif torch._C._are_functorch_transforms_active():
            apply = _Quantized.apply
        if op.keeps_operands:
            links = gradients.links(*floats, t)
        elif t is not None:
            links = gradients.links(*(None,) * len(floats), t)
        value, codes, scale = apply(op, operands, out, links, t, *floats)
    else:
        (value, codes, scale, _, _), _ = op.run(floats, operands, out, flags_of(out, False), ())
    return Coded(value if dtype == torch.float32 else value.to(dtype), codes, scale)


def along(op: Operator, x: Coded, out: Output, dim: int = -1) -> Coded:
    """Runs an operator of one checked tensor, which computes along its last axis, along ``dim``."""
    value, codes = checks.as_float32(x.value).movedim(dim, -1), x.codes.movedim(dim, -1)
    y = quantized(op, (value,), (codes, x.scale), out, x.value.dtype)
    return Coded(y.value.movedim(-1, dim), y.codes.movedim(-1, dim), y.scale)


def _views_of_repeated(floats: Floats) -> Floats:
    """X * x: dynamo refuses one tensor in two places of an autograd.Function."""
    apart: list[Tensor | None] = []
    for x in floats:
        apart.append(x.view_as(x) if x is not None and any(x is other for other in apart) else x)
    return tuple(apart)


def check_unary(op: str, x: Coded, out: Output, narrow: bool = False) -> None:
    """What operators of one quantized tensor refuse alike; ``narrow``: codes above 8 bits, too.

    Raises:
        TypeError: ``x`` is not Coded, ``out`` no Output.
        ValueError: A setting out of range.
        UnsupportedError: Codes that are too wide, or a device without kernel.
    """
    checks.check_coded(op, "x", x)
    checks.check_output(op, out)
    checks.check_device(op, x.codes)
    if narrow:
        checks.check_narrow(op, "the input", x.codes)


def check_binary(op: str, x: Coded, y: Coded, out: Output) -> None:
    """What operators of two quantized tensors refuse alike.

    Raises:
        TypeError: An operand is not Coded, ``out`` no Output.
        ValueError: A setting out of range.
        UnsupportedError: A device without kernel.
    """
    checks.check_coded(op, "x", x)
    checks.check_coded(op, "y", y)
    checks.check_output(op, out)
    checks.check_device(op, x.codes)


def pair(x: Coded, y: Coded) -> tuple[Floats, Tensors, torch.dtype]:
    """Floats, operands of one integer type, and the result's float type of an element-wise operator of two."""
    xq, yq = x.codes, y.codes
    if xq.dtype != yq.dtype:
        xq, yq = xq.to(torch.int32), yq.to(torch.int32)
    floats = checks.as_float32(x.value), checks.as_float32(y.value)
    return floats, (xq, x.scale, yq, y.scale), torch.promote_types(x.value.dtype, y.value.dtype)


def fake(*ops: str) -> Callable[[_Shape], _Shape]:
    """Declares the fake kernel of native operators with an output quantizer.

    The decorated function takes the operator's operands (the arguments before the state) and returns the value, of the right
    shape and strides, and the elements per row of the mask, 0 for a flat one; the other results follow.
    """

    def declare(shape: _Shape) -> _Shape:
        def kernel(*arguments: Any) -> Tensors:
            at = places(ops[0])
            value, row = shape(*arguments[: at["running"]])
            return fake_results(value, row, *(arguments[at[name]] for name in ("bits", "threshold", "flags")))

        for op in ops:
            checks.fake(op)(kernel)
        return shape

    return declare


def fake_gradient(op: str) -> None:
    """Declares the fake kernel of a native gradient: float32, contiguous, the shape of the codes, its second argument."""
    checks.fake(op)(lambda grad, codes, *_: codes.new_empty(codes.shape, dtype=torch.float32))


@cache
def places(op: str) -> dict[str, int]:
    """Where each argument of ``linger::name`` stands in its schema."""
    schema = checks.native(op.removeprefix("linger::"))._schema
    return {argument.name: i for i, argument in enumerate(schema.arguments)}


def fake_results(value: Tensor, row: Any, bits: int, threshold: Tensor | None, flags: int) -> Tensors:
    """Value, codes, scale, mask and slope as the native operators return them (fake kernels)."""
    grad = bool(flags & GRAD)
    n: Any = value.numel()
    size = ((n + 7) // 8 if row == 0 else n // row * ((row + 15) // 16 * 2)) if grad else 0
    return (
        value,
        torch.empty_like(value, dtype=checks.quantized_dtype(bits)),
        value.new_empty([]),
        value.new_empty([size], dtype=torch.uint8),
        torch.empty_like(value) if grad and threshold is not None else value.new_empty([0]),
    )
