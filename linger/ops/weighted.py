"""What convolutions and linear share: operators with a weight, its quantizer, and how a layer keeps it between evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks, gradients
from linger.ops.output import Floats, Operands, Operator, Tensors, fake_results, places, quantized
from linger.ops.spec import GRAD, Coded, Output, flags_of

_quantize_weight = checks.native("quantize_weight")
_weight_key = checks.native("weight_key")
_mask_grad_in_place = checks.native("mask_grad_")
_conv_pack = checks.native("conv_pack")
_conv_grad = checks.native("conv_grad")


class Weight(NamedTuple):
    """A quantized weight: codes int8, scale, and for backward its flat mask and TQT slope (empty when absent)."""

    codes: Tensor
    scale: Tensor
    mask: Tensor
    slope: Tensor


class Weighted(Operator):
    """A bilinear operator with a float weight: its engine on codes, and its float form on real numbers.

    Its floats are x, weight, bias and the weight's threshold; its operands codes and scale of x, and the weight's quantizer.
    """

    __slots__ = ()

    def arranged(self, codes: Tensor) -> Tensor:
        """Weight codes as the engine takes them."""
        return codes

    def packing(self) -> tuple[Sequence[int], int]:
        """Stride and groups, for the packed form of the weight."""
        return (1, 1), 1

    def checks_first(self, x: Tensor, weight_out: Output, out: Output) -> bool:
        """Whether the training step's native operator refuses what does not fit before a state moves."""
        return False

    def engine(
        self, x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None, out: Output, flags: int,
        packed: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Value, codes, scale, mask in rows of outputs, slope; ``w`` is arranged."""
        raise NotImplementedError

    def float_gradients(
        self, grad: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """Gradients of the float operator with respect to x, weight and bias."""
        raise NotImplementedError

    def run(
        self, floats: Floats, operands: Operands, out: Output, flags: int, want: Sequence[bool]
    ) -> tuple[tuple[Tensor, ...], Tensors]:
        """Quantizes the weight, then the engine."""
        _value, weight, bias, _t = floats
        codes, scale, weight_out = operands
        assert weight is not None
        w = quantize_weight(weight, bias, scale, weight_out, want[1] or want[3])
        return self.engine(codes, scale, self.arranged(w.codes), w.scale, bias, out, flags), (codes, scale, *w)

    def gradients(self, grad: Tensor, kept: Tensors, want: Sequence[bool]) -> tuple[Any, ...]:
        """Those of the float operator, and through the weight's quantizer."""
        codes, scale, *weight = kept
        want_x, want_w, want_b, want_t = want
        w, weights = Weight(*weight), want_w or want_t
        gx, gw, gb = self.float_gradients(grad, codes, scale, w, (want_x, weights, want_b))
        return gx, *_of_weight(gw, gb, w, want_w, want_t, None)

    def as_graph(
        self, grad: Tensor, kept: Tensors, places: Sequence[Tensor | None], want: Sequence[bool]
    ) -> tuple[Any, ...]:
        """The same as a graph."""
        at_x, at_w, _at_b, at_t, _out = places
        codes, scale, *weight = kept
        w = Weight(*weight)
        x, real = gradients.operand(at_x, codes, scale), gradients.weight_operand(at_w, at_t, w)
        bias = grad.new_zeros(self.row(grad), requires_grad=want[2])
        gx, gw, gb = gradients.differentiated(self.real, grad, x, real, bias)
        return gx, *_of_weight(gw, gb, w, want[1], want[3], at_t)


def _of_weight(gw: Any, gb: Any, w: Weight, want_w: bool, want_t: bool, threshold: Tensor | None) -> tuple[Any, ...]:
    """Gradients of weight, bias and the weight's threshold."""
    gt = None
    if want_w or want_t:
        gw, gt = weight_gradients(gw, w, want_w, want_t, threshold)
    return gw, gb, gt


def native_gradients(
    geometry: Sequence[Any], grad: Tensor, mask: Tensor, x: Tensor, x_scale: Tensor, w: Weight, want: Sequence[bool]
) -> tuple[Any, ...]:
    """Gradients of x, weight, bias and the weight's threshold by the native operator, which reads codes and masks.

    Nothing is dequantized, masked or reordered. ``geometry``: stride, padding, dilation and groups of a convolution of images,
    sequences or rows.
    """
    want_x, want_w, want_b, want_t = want
    weights = want_w or want_t
    w_mask = w.mask if want_w and not want_t else None  # a threshold's gradient needs all of the weight's
    wanted = want_x + 2 * weights + 4 * want_b
    gx, gw, gb = _conv_grad(grad, mask, x, x_scale, w.codes, w.scale, w_mask, *geometry, wanted)
    gt = None
    if want_t:
        gw, gt = weight_gradients(gw, w, want_w, True)
    return gx if want_x else None, gw if want_w else None, gb if want_b else None, gt


class KeptWeight:
    """A layer's quantized and packed weight between evaluations: one place, filled by the operators.

    Every use compares what the codes depend on: the weight's version (any in-place write that torch sees), a sample of up to
    1024 of its elements (writes through ``.data`` or numpy; all elements of small weights), its quantizer's exponent and the
    bias's limit. Copies and pickles start empty. Threads may share it.
    """

    __slots__ = ("entry", "plan")

    def __init__(self) -> None:
        self.plan: tuple[object, Weighted] | None = None
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
    checks.check_narrow(op, "the input", x.codes)
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
    checks.check_dtype(op, "x", x, "torch.int8")
    checks.check_dtype(op, "w", w, "torch.int8")
    if bias is not None:
        checks.check_dtype(op, "bias", bias, "torch.int32")
    if bias is not None and bias.shape != w.shape[:1]:
        raise ValueError(f"{op}: bias must have shape ({w.shape[0]},), got {tuple(bias.shape)}")
    checks.check_range(op, "bits", bits, 2, 32)
    checks.check_range(op, "shift", shift, -31 if bits == 32 else 0, 63)
    checks.check_device(op, x)


def quantize_weight(weight: Tensor, bias: Tensor | None, x_scale: Tensor, out: Output, grad: bool) -> Weight:
    """Codes of a weight, its exponent lowered where the bias would not fit 32 bits."""
    flags = int(out.observe) + GRAD * grad
    return Weight(*_quantize_weight(weight, *out.stats, out.threshold, bias, x_scale, out.bits, flags))


def evaluation_weight(
    kept: KeptWeight | None, weight: Tensor, bias: Tensor | None, x: Coded, out: Output, op: Weighted
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arranged codes, scale and packed form of a weight outside training; from ``kept`` while nothing has changed.

    Only parameters are kept, not weights that a forward computes. Compiled and traced code has None there, and quantizes and
    packs in every call: what is packed belongs to one processor.
    """
    if kept is not None and out.observe:
        kept.entry = None
    lasting = isinstance(weight if weight._base is None else weight._base, torch.nn.Parameter)
    if kept is None or not lasting or out.observe:
        w = quantize_weight(weight, bias, x.scale, out, False)
        return op.arranged(w.codes), w.scale, None
    version = (None if weight.is_inference() else weight._version, out.bits)
    key = _weight_key(weight, *out.stats, out.threshold, bias, x.scale, out.bits)
    entry = kept.entry
    if entry is None or entry[0] != version or entry[1] != key:
        w = quantize_weight(weight, bias, x.scale, out, False)
        codes = op.arranged(w.codes)
        kept.entry = entry = (version, key, codes, w.scale, _conv_pack(codes, *op.packing()))
    return entry[2:]


def weighted(
    op: Weighted,
    check: Callable[[], None],
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    weight_out: Output,
    out: Output,
    kept: KeptWeight | None,
) -> Coded:
    """Runs an operator with a weight; operands that do not fit are refused by ``check``.

    A layer asks only once the native operator has refused, where no state has moved by then: the checks take as long as a small
    product.
    """
    moves = weight_out.observe or out.observe or torch.is_grad_enabled()
    kept = None if kept is None or traced(x.codes) else kept
    if kept is not None and (not moves or op.checks_first(x.codes, weight_out, out)):
        try:
            return _run(op, x, weight, bias, weight_out, out, kept)
        except (AttributeError, IndexError, RuntimeError):  # what the native operators and torch's own say
            check()
            raise
    check()
    return _run(op, x, weight, bias, weight_out, out, kept)


def _run(
    op: Weighted,
    x: Coded,
    weight: Tensor,
    bias: Tensor | None,
    weight_out: Output,
    out: Output,
    kept: KeptWeight | None,
) -> Coded:
    weight = checks.as_float32(weight)
    bias = None if bias is None else checks.as_float32(bias)
    floats = (checks.as_float32(x.value), weight, bias, weight_out.threshold)
    if checks.needs_grad(*floats, out.threshold):
        return quantized(op, floats, (x.codes, x.scale, weight_out), out, x.value.dtype)
    w, w_scale, packed = evaluation_weight(kept, weight, bias, x, weight_out, op)
    y, codes, scale, _, _ = op.engine(x.codes, x.scale, w, w_scale, bias, out, flags_of(out, False), packed)
    return Coded(y if x.value.dtype == torch.float32 else y.to(x.value.dtype), codes, scale)


def traced(codes: Tensor) -> bool:
    """Whether something else than this processor's numbers goes through: compiled, fake or recorded tensors."""
    return (
        torch.compiler.is_compiling()
        or type(codes) is not Tensor
        or not codes.is_cpu
        or torch._C._get_tracing_state() is not None
    )


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


@checks.fake("linger::quantize_weight")
def _fake_quantize_weight(w: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    at = places("linger::quantize_weight")
    bits, threshold, flags = (rest[at[name] - 1] for name in ("bits", "threshold", "flags"))
    return fake_results(checks.empty_dense(w, torch.float32), 0, bits, threshold, flags)[1:]


@checks.fake("linger::weight_key")
def _fake_weight_key(*_: Any) -> tuple[int, int, int, bool]:
    return 0, 0, 0, False


@checks.fake("linger::conv_pack")
def _fake_conv_pack(w: Tensor, stride: list[int], groups: int) -> Tensor:
    return w.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)  # what the processor needs
