"""What convolutions and linear share: checks of operands, the quantized weight, forward and backward around the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks, gradients
from linger.ops.spec import GRAD, Coded, Output, flags_of

_quantize_weight = torch.ops.linger.quantize_weight.default
_weight_key = torch.ops.linger.weight_key.default
_mask_grad_in_place = torch.ops.linger.mask_grad_.default
_conv_pack = torch.ops.linger.conv_pack.default


class Weight(NamedTuple):
    """A quantized weight: codes int8, scale, and for backward its flat mask and TQT slope (empty when absent)."""

    codes: Tensor
    scale: Tensor
    mask: Tensor
    slope: Tensor


class Form(Protocol):
    """One bilinear operator: its engine on codes, and its float form on real numbers."""

    def arranged(self, codes: Tensor) -> Tensor:
        """Weight codes as the engine takes them."""

    def packing(self) -> tuple[Sequence[int], int]:
        """Stride and groups, for the packed form of the weight."""

    def run(
        self, x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, out: Output, flags: int,
        packed: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Value, codes, scale, mask in rows of outputs, slope; ``w`` is arranged."""

    def ordered(self, grad: Tensor) -> Tensor:
        """A gradient in the memory order of the result."""

    def gradients(
        self, grad: Tensor, mask: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool], whole: bool
    ) -> tuple[Tensor | None, Any, Tensor | None]:  # fmt: skip
        """Gradients of the float operator with respect to x, weight and bias, of a result behind ``mask``.

        The weight's passes the weight's own mask unless ``whole``: a threshold's gradient needs all of it.
        """

    def real(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        """The float operator."""


class KeptWeight:
    """A layer's quantized and packed weight between evaluations: one place, filled by the operators.

    Every use compares what the codes depend on: the weight's version (any in-place write that torch sees), a sample of up to
    1024 of its elements (writes through ``.data`` or numpy; all elements of small weights), its quantizer's exponent and the
    bias's limit. Copies and pickles start empty. Threads may share it.
    """

    __slots__ = ("entry",)

    def __init__(self) -> None:
        self.entry: tuple[object, tuple[object, ...], Tensor, Tensor, Tensor] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (KeptWeight, ())


def check_operands(
    op: str, x: Coded, weight: Tensor, bias: Tensor | None, weight_out: Output, out: Output, outputs: int | None = None
) -> None:
    """Refuses what no kernel computes; ``outputs`` is the length of the weight's first axis where nothing is said.

    Raises:
        UnsupportedError: Codes wider than 8 bits, or a device without a kernel.
        TypeError: An operand of another kind or dtype.
        ValueError: A setting out of range, or a bias of another size than the weight's outputs.
    """
    checks.check_coded(op, "x", x)
    checks.check_float(op, "weight", weight)
    checks.check_output(op, weight_out)
    checks.check_output(op, out)
    checks.check_device(op, x.codes)
    if x.codes.dtype != torch.int8:
        raise UnsupportedError(f"{op}: the input must have at most 8 bits, got codes of type {x.codes.dtype}")
    if weight_out.bits > 8:
        raise UnsupportedError(f"{op}: the weight must have at most 8 bits, got {weight_out.bits}")
    if bias is None:
        return
    checks.check_float(op, "bias", bias)
    outputs = weight.shape[0] if outputs is None else outputs
    if tuple(bias.shape) != (outputs,):
        raise ValueError(f"{op}: bias must have shape ({outputs},), got {tuple(bias.shape)}")


def check_codes(op: str, x: Tensor, w: Tensor, bias: Tensor | None, shift: int, bits: int) -> None:
    """Refuses what the integer forms do not compute.

    Raises:
        TypeError: Operands that are not int8 codes, or a bias that is not int32.
        ValueError: A shift or width out of range, or a bias of another size than the weight's outputs.
        UnsupportedError: A device without a kernel.
    """
    for name, t, dtype in (("x", x, torch.int8), ("w", w, torch.int8), ("bias", bias, torch.int32)):
        if t is None and name == "bias":
            continue
        if not isinstance(t, Tensor) or t.dtype != dtype:
            raise TypeError(f"{op}: {name} must be {dtype}, got {getattr(t, 'dtype', type(t).__name__)}")
    if bias is not None and bias.shape != w.shape[:1]:
        raise ValueError(f"{op}: bias must have shape ({w.shape[0]},), got {tuple(bias.shape)}")
    checks.check_range(op, "bits", bits, 2, 32)
    checks.check_range(op, "shift", shift, -31 if bits == 32 else 0, 63)
    checks.check_device(op, x)


def codes_dtype(bits: int) -> torch.dtype:
    """Type of the integer forms' results: int8, int16 or int32."""
    return torch.int8 if bits <= 8 else torch.int16 if bits <= 16 else torch.int32


def quantize_weight(weight: Tensor, bias: Tensor | None, x_scale: Tensor, out: Output, grad: bool) -> Weight:
    """Codes of a weight, its exponent lowered where the bias would not fit 32 bits."""
    flags = int(out.observe) + GRAD * grad
    return Weight(*_quantize_weight(weight, *out.stats, out.threshold, bias, x_scale, out.bits, flags))


def evaluation_weight(
    kept: KeptWeight | None, weight: Tensor, bias: Tensor | None, x: Coded, out: Output, form: Form
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arranged codes, scale and packed form of a weight outside training; from ``kept`` while nothing has changed.

    Only parameters are kept, not weights that a forward computes. Compiled and traced code quantizes and packs in every call:
    what is packed belongs to one processor.
    """
    if kept is not None and out.observe:
        kept.entry = None
    lasting = isinstance(weight if weight._base is None else weight._base, torch.nn.Parameter)
    if kept is None or not lasting or out.observe or _traced(x):
        w = quantize_weight(weight, bias, x.scale, out, False)
        return form.arranged(w.codes), w.scale, None
    version = (None if weight.is_inference() else weight._version, out.bits)
    key = _weight_key(weight, *out.stats, out.threshold, bias, x.scale, out.bits)
    entry = kept.entry
    if entry is None or entry[0] != version or entry[1] != key:
        w = quantize_weight(weight, bias, x.scale, out, False)
        codes = form.arranged(w.codes)
        kept.entry = entry = (version, key, codes, w.scale, _conv_pack(codes, *form.packing()))
    return entry[2:]


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_threshold: Tensor | None,
        out_threshold: Tensor | None,
        codes: Tensor,
        scale: Tensor,
        form: Form,
        weight_out: Output,
        out: Output,
        links: gradients.Links,
    ) -> tuple[Tensor, Tensor, Tensor]:
        w = quantize_weight(weight, bias, scale, weight_out, ctx.needs_input_grad[1] or ctx.needs_input_grad[3])
        engine = form.arranged(w.codes)
        y, y_codes, y_scale, mask, slope = form.run(codes, scale, engine, w.scale, bias, out, flags_of(out, True))
        ctx.form, ctx.links, ctx.outputs = form, links, engine.shape[0]
        ctx.save_for_backward(codes, scale, *w, mask, slope, y_scale)
        ctx.mark_non_differentiable(y_codes, y_scale)
        ctx.set_materialize_grads(False)
        return y, y_codes, y_scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 11
        codes, scale, *weight, mask, slope, y_scale = ctx.saved_tensors
        w, form = Weight(*weight), ctx.form
        want_x, want_w, want_b, want_wt, want_ot, *_rest = ctx.needs_input_grad
        grad_t = gradients.of_threshold(ctx, form.ordered(grad), slope, y_scale) if want_ot else None
        gx = gw = gb = gwt = None
        if want_x or want_w or want_wt or want_b:
            weights, graph = want_w or want_wt, gradients.again(ctx)
            if graph:
                masked = checks.mask_grad(form.ordered(grad), mask, ctx.outputs)
                gx, gw, gb = _as_graph(ctx, masked, codes, scale, w)
            else:
                gx, gw, gb = form.gradients(grad, mask, codes, scale, w, (want_x, weights, want_b), want_wt)
            if weights and (graph or want_wt):
                gw, gwt = weight_gradients(gw, w, want_w, want_wt, ctx.links and ctx.links[3])
        return gx, gw, gb, gwt, grad_t, *(None,) * 6


def _as_graph(ctx: Any, grad: Tensor, codes: Tensor, scale: Tensor, w: Weight) -> tuple[Any, ...]:
    at_x, at_w, _at_b, at_t, _out = ctx.links
    x, weight = gradients.operand(at_x, codes, scale), gradients.weight_operand(at_w, at_t, w)
    bias = grad.new_zeros(ctx.outputs, requires_grad=ctx.needs_input_grad[2])
    return gradients.differentiated(ctx.form.real, grad, x, weight, bias)


def checked(
    form: Form,
    check: Callable[[], None],
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    weight_out: Output,
    out: Output,
    kept: KeptWeight | None,
) -> Coded:
    """A bilinear operator on operands that ``check`` refuses where they do not fit.

    A layer's evaluation, which moves no state, asks only once the native operator has refused: the checks take as long as a
    small product.
    """
    if kept is not None and not (weight_out.observe or out.observe or torch.is_grad_enabled() or _traced(x)):
        try:
            return bilinear(form, x, weight, bias, weight_out, out, kept)
        except (AttributeError, IndexError, RuntimeError):  # what the native operators and torch's own say
            check()
            raise
    check()
    return bilinear(form, x, weight, bias, weight_out, out, kept)


def _traced(x: Coded) -> bool:
    """Whether something else than this processor's numbers goes through: compiled, fake or recorded tensors."""
    return (
        torch.compiler.is_compiling()
        or type(x.codes) is not Tensor
        or not x.codes.is_cpu
        or torch._C._get_tracing_state() is not None
    )


def bilinear(
    form: Form, x: Coded, weight: Tensor, bias: Tensor | None, weight_out: Output, out: Output, kept: KeptWeight | None
) -> Coded:
    """A bilinear operator on checked operands."""
    weight = checks.as_float32(weight)
    bias = None if bias is None else checks.as_float32(bias)
    value = checks.as_float32(x.value)
    floats = (value, weight, bias, weight_out.threshold, out.threshold)
    if checks.needs_grad(*floats):
        call = (*floats, x.codes, x.scale, form, weight_out, out, gradients.links(*floats))
        y, codes, scale = checks.applied(_Bilinear)(*call)
    else:
        w, w_scale, packed = evaluation_weight(kept, weight, bias, x, weight_out, form)
        y, codes, scale, _, _ = form.run(x.codes, x.scale, w, w_scale, bias, out, flags_of(out, False), packed)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), codes, scale)


def weight_gradients(
    grad: Tensor, w: Weight, want_weight: bool, want_threshold: bool, threshold: Tensor | None = None
) -> tuple[Any, Any]:
    """Gradients of the float weight and of its threshold from that of the quantized weight, which is written over."""
    grad = checks.in_layout(grad, checks.layout_of(w.codes))
    slope = checks.threshold_grad(grad, w.slope, w.scale, threshold) if want_threshold else None
    if want_weight and (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        grad = checks.mask_grad(grad, w.mask)
    elif want_weight:
        _mask_grad_in_place(grad, w.mask)
    return grad if want_weight else None, slope


def weight_masked(grad: Tensor | None, w: Weight, whole: bool) -> Tensor | None:
    """What :meth:`Form.gradients` returns for the weight, from the gradient of the quantized weight, which is written over."""
    return grad if grad is None or whole else weight_gradients(grad, w, True, False)[0]


def fake_outputs(
    value: Tensor, pixels: Any, o: Any, bits: int, threshold: Tensor | None, flags: int
) -> tuple[Tensor, ...]:
    """Shapes of a training operator's results; ``value`` has the right shape and strides."""
    grad = bool(flags & GRAD)
    codes = torch.empty_like(value, dtype=checks.code_dtype(bits))
    mask = value.new_empty([pixels * ((o + 15) // 16 * 2) if grad else 0], dtype=torch.uint8)
    slope = torch.empty_like(value) if grad and threshold is not None else value.new_empty([0])
    return value, codes, value.new_empty([]), mask, slope


@checks.fake("linger::weight_key")
def _fake_weight_key(
    w: Tensor, running: Tensor, is_init: Tensor, scale: Tensor, n_batches: Tensor, n_skipped: Tensor,
    threshold: Tensor | None, bias: Tensor | None, x_scale: Tensor | None, bits: int,
) -> tuple[int, int, int, bool]:  # fmt: skip
    return 0, 0, 0, False


@checks.fake("linger::conv_pack")
def _fake_conv_pack(w: Tensor, stride: list[int], groups: int) -> Tensor:
    return w.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)  # what the processor needs
