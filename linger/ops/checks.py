"""Argument checks, strides and gradients that every entry shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

import linger._C  # noqa: F401  registers torch.ops.linger
from linger.errors import UnsupportedError
from linger.ops.spec import Coded, Output

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])
CODE_DTYPES = (torch.int8, torch.int16, torch.int32)
FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


_fakes: dict[str, Callable[..., Any]] = {}


def native(op: str) -> Any:
    """The native operator ``linger::op``, called without the choice of an overload: it costs a microsecond."""
    return getattr(torch.ops.linger, op).default


_native_mask_grad, _native_threshold_grad = native("mask_grad"), native("threshold_grad")


def fake(op: str) -> Callable[[_Kernel], _Kernel]:
    """Declares the decorated function as the fake kernel (shapes and strides only) of ``linger::name``."""

    def declare(kernel: _Kernel) -> _Kernel:
        _fakes[op] = kernel
        return kernel

    return declare


def fake_kernel(op: str) -> Callable[..., Any]:
    """The fake kernel of ``linger::name``.

    Raises:
        UnsupportedError: None is declared.
    """
    if op not in _fakes:
        raise UnsupportedError(f"{op} has no fake kernel: it cannot be traced")
    return _fakes[op]


def check_float(op: str, name: str, x: Any) -> None:
    """Refuses what is not a floating tensor.

    Raises:
        TypeError: ``x`` is no tensor, or of another dtype.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(x).__name__}")
    if x.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{op}: {name} must be float32, float16, bfloat16 or float64, got {x.dtype}")


def check_codes(op: str, name: str, x: Any) -> None:
    """Refuses what is not an integer tensor of codes.

    Raises:
        TypeError: ``x`` is no tensor, or not int8, int16 or int32.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(x).__name__}")
    if x.dtype not in CODE_DTYPES:
        raise TypeError(f"{op}: {name} must be int8, int16 or int32, got {x.dtype}")


def check_coded(op: str, name: str, x: Any) -> None:
    """Refuses what is not a coded tensor.

    Raises:
        TypeError: Not a :class:`Coded`, or codes that are not int8 or int32.
    """
    if not isinstance(x, Coded):
        raise TypeError(f"{op}: {name} must be Coded, got {type(x).__name__}")
    if x.codes.dtype not in (torch.int8, torch.int32):
        raise TypeError(f"{op}: {name}.codes must be int8 or int32, got {x.codes.dtype}")


def check_narrow(op: str, name: str, codes: Tensor) -> None:
    """Refuses codes above 8 bits.

    Raises:
        UnsupportedError: Codes that are not int8.
    """
    if codes.dtype != torch.int8:
        raise UnsupportedError(f"{op}: {name} must have at most 8 bits, got codes of type {codes.dtype}")


def check_dtype(op: str, name: str, x: Any, *dtypes: str) -> None:
    """Refuses what is not a tensor of one of these types, which are named as the message shall name them.

    Raises:
        TypeError: ``x`` is no tensor, or of another dtype.
    """
    if not isinstance(x, Tensor) or str(x.dtype).removeprefix("torch.") not in [
        d.removeprefix("torch.") for d in dtypes
    ]:
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{op}: {name} must be {' or '.join(dtypes)}, got {got}")


def check_scale(op: str, name: str, scale: Any) -> None:
    """Refuses what is not one float32 scale.

    Raises:
        TypeError: No tensor, or not float32.
        ValueError: More or fewer elements than one.
    """
    if not isinstance(scale, Tensor) or scale.dtype != torch.float32:
        raise TypeError(f"{op}: {name} must be a float32 Tensor, got {getattr(scale, 'dtype', type(scale).__name__)}")
    if scale.numel() != 1:
        raise ValueError(f"{op}: {name} must have one element, got {scale.numel()}")


def check_range(op: str, name: str, value: int, low: int, high: int) -> None:
    """Refuses an integer outside ``[low, high]``.

    Raises:
        TypeError: Not an int.
        ValueError: Outside.
    """
    if not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{op}: {name} must be in [{low}, {high}], got {value}")


def check_integer_form(op: str, x: Tensor, bits: int, shift: int = 0, exp2: int = 0, lowest: int = 0) -> None:
    """Refuses numbers that no integer form takes, and a device without a kernel.

    Args:
        op: Operator, for the message.
        x: Its operand.
        bits: Width of the result, 2..32.
        shift: ``lowest``..63.
        exp2: log2 of the operand's scale, -126..126.
        lowest: Of the shift.

    Raises:
        TypeError, ValueError: As :func:`check_range`.
        UnsupportedError: As :func:`check_device`.
    """
    check_range(op, "exp2", exp2, -126, 126)
    check_range(op, "shift", shift, lowest, 63)
    check_range(op, "bits", bits, 2, 32)
    check_device(op, x)


def check_output(op: str, out: Output) -> None:
    """Refuses settings that no kernel understands.

    Raises:
        TypeError: ``out`` is not an :class:`Output`.
        ValueError: ``bits``, ``rounding`` or ``clamp`` out of range.
        UnsupportedError: A transform of ``torch.func`` is running.
    """
    refuse_transforms()
    if not isinstance(out, Output):
        raise TypeError(f"{op}: out must be an Output, got {type(out).__name__}")
    _, _, bits, rounding, clamp, _, _ = out
    if 2 <= bits <= 32 and 0 <= rounding <= 3 and clamp >= 0.0:
        return
    if not 2 <= out.bits <= 32:
        raise ValueError(f"{op}: bits must be in [2, 32], got {out.bits}")
    if not 0 <= out.rounding <= 3:
        raise ValueError(f"{op}: rounding must be in [0, 3], got {out.rounding}")
    if not out.clamp >= 0.0:
        raise ValueError(f"{op}: clamp must be 0 (none) or positive, got {out.clamp}")


@cache
def has_cuda_kernels() -> bool:
    """Whether this build has CUDA kernels: then every operator has one."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("linger::quantize", "CUDA")


def check_device(op: str, x: Tensor) -> None:
    """Refuses a device for which no kernel exists.

    Args:
        op: Operator, for the message.
        x: The tensor whose device decides.

    Raises:
        UnsupportedError: Names the operator and the device.
    """
    if x.is_cpu or x.is_meta or (x.is_cuda and has_cuda_kernels()):
        return
    if x.is_cuda:
        raise UnsupportedError(f"linger::{op}: this build has no CUDA kernels; rebuild with nvcc and LINGER_CUDA=1")
    raise UnsupportedError(f"linger::{op} has no {x.device.type.upper()} kernel; move the model to the CPU")


def is_dense(x: Tensor) -> bool:
    """Whether the elements of ``x`` fill one block of memory, in any order of the axes."""
    if x.is_contiguous():
        return True
    block = 1
    sizes = [(stride, size) for size, stride in zip(x.shape, x.stride(), strict=True) if size != 1]
    for stride, size in sorted(sizes):
        if stride != block:
            return False
        block *= size
    return True


def empty_dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """What the native operators return for ``x``: its strides when it is dense, else contiguous (fake kernels)."""
    if is_dense(x):
        return torch.empty_strided(x.shape, x.stride(), dtype=dtype, device=x.device)
    return torch.empty(x.shape, dtype=dtype, device=x.device)


def pair_order(x: Tensor, y: Tensor) -> Tensor:
    """A tensor with the strides of a two-operand result (fake kernels)."""
    same = all(n < 2 or a == b for n, a, b in zip(x.shape, x.stride(), y.stride(), strict=True))
    return x if same and is_dense(x) else torch.empty(x.shape, dtype=x.dtype, device=x.device)


def quantized_dtype(bits: int) -> torch.dtype:
    """The dtype in which the quantizing operators return codes: of two, so that an operand has one of two."""
    return torch.int8 if bits <= 8 else torch.int32


def integer_form_dtype(bits: int) -> torch.dtype:
    """The dtype of the integer forms' results (runner, chip functions): int8, int16 or int32."""
    return torch.int8 if bits <= 8 else torch.int16 if bits <= 16 else torch.int32


def narrowed(codes: Tensor, bits: int) -> Tensor:
    """Codes of the ``*_codes`` operators: int8 up to 8 bits, int16 up to 16, int32 above."""
    return codes.to(torch.int16) if 8 < bits <= 16 else codes


def widened(codes: Tensor) -> Tensor:
    """int16 codes as int32, the form the native operators take."""
    return codes.to(torch.int32) if codes.dtype == torch.int16 else codes


def as_float32(x: Tensor) -> Tensor:
    """``x`` in the arithmetic's type, differentiable."""
    return x if x.dtype == torch.float32 else x.to(torch.float32)


def no_autocast(t: Tensor) -> AbstractContextManager[Any]:
    """Arithmetic in float32 inside, whatever the autocast region of ``t``'s device (also around ``backward``)."""
    device = t.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def plain_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply``, or what it ends in where no torch.func transform and no tracer runs.

    The wrapper around it takes 2.5 us.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return function.apply
    plain: Callable[..., Any] = cast(Any, super(torch.autograd.Function, function)).apply
    return plain


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (grad, vmap, jvp ...) runs, which native operators do not know."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def refuse_transforms() -> None:
    """Refuse what the native operators of an initialised model do not know.

    Raises:
        UnsupportedError: A transform of ``torch.func`` is running.
    """
    if transformed():
        raise UnsupportedError(
            "linger: the transforms of torch.func (grad, vjp, jvp, vmap, jacrev ...) do not know the native operators of an "
            "initialised model: use loss.backward(), torch.autograd.grad or torch.autograd.functional.jacobian; "
            "torch.func.functional_call alone works"
        )


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd wants to hear of an operator on these tensors."""
    for t in tensors:  # any() with a generator takes twice as long
        if t is not None and t.requires_grad:
            return torch.is_grad_enabled()
    return False


def layout_of(x: Tensor) -> tuple[int, ...] | None:
    """What a backward needs to know of the memory order: None for contiguous, else the strides."""
    return None if x.is_contiguous() else x.stride()


def in_layout(grad: Tensor, layout: tuple[int, ...] | None) -> Tensor:
    """``grad`` in the memory order of the forward's result, which is the order of its mask."""
    if layout is None:
        return grad if grad.is_contiguous() else grad.contiguous()
    if grad.stride() == layout:
        return grad
    return torch.empty_strided(grad.shape, layout, dtype=grad.dtype, device=grad.device).copy_(grad)


class _MaskGrad(torch.autograd.Function):
    """grad -> masked grad is linear: it is its own derivative."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, mask: Tensor, row: int) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.row, ctx.layout = row, layout_of(grad)
        out: Tensor = _native_mask_grad(grad, mask, row)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return mask_grad(in_layout(grad, ctx.layout), mask, ctx.row), None, None


def mask_grad(grad: Tensor, mask: Tensor, row: int = 0) -> Tensor:
    """``grad`` where the saved bit is 1, else 0; differentiable.

    Args:
        grad: float32, dense, in the memory order of the masked tensor (:func:`in_layout`).
        mask: uint8 bits of a quantizing operator.
        row: 0 for a flat mask, else elements per mask row.
    """
    if grad.requires_grad and torch.is_grad_enabled():
        doubly: Tensor = _MaskGrad.apply(grad, mask, row)  # type: ignore[no-untyped-call]
        return doubly
    out: Tensor = _native_mask_grad(grad, mask, row) if row else _native_mask_grad(grad, mask)
    return out


def threshold_grad(grad: Tensor, slope: Tensor, scale: Tensor, threshold: Tensor | None = None) -> Tensor:
    """Gradient of a TQT threshold, ``ln 2 / scale * sum(grad * slope)``; differentiable in ``grad`` and, by the scale, in t.

    Args:
        grad: float32, the shape of ``slope``.
        slope: float32, from a quantizing operator; a constant.
        scale: float32 ``[]`` snapshot of that call, ``2**-t`` times a constant.
        threshold: t, float32 ``[1]``; None where no second derivative of it is wanted.

    Returns:
        float32 ``[1]``; the sum is taken in float64 in a fixed order, whatever the number of threads.
    """
    if torch.is_grad_enabled() and (grad.requires_grad or threshold is not None):
        real = (grad * slope).sum(dtype=torch.float64).to(torch.float32).reshape(1) * (math.log(2.0) / scale)
        return real if threshold is None else real * torch.exp2(threshold - threshold.detach())  # times 1
    out: Tensor = _native_threshold_grad(grad, slope, scale)
    return out


def output_grads(ctx: Any, grad: Tensor | None, for_x: bool, for_t: bool) -> tuple[Tensor | None, Tensor | None]:
    """The masked gradient and that of the threshold, from saved mask and, with a threshold, slope and scale (flat mask)."""
    if grad is None:
        return None, None
    mask, *rest = ctx.saved_tensors
    grad = in_layout(grad, ctx.layout)
    gt = None
    if for_t:
        slope, scale = rest
        gt = threshold_grad(grad, slope, scale, ctx.threshold)
    return mask_grad(grad, mask) if for_x else None, gt


@fake("linger::mask_grad")
def _fake_mask_grad(grad: Tensor, mask: Tensor, row: int = 0) -> Tensor:
    return empty_dense(grad, torch.float32)


@fake("linger::mask_grad_")
def _fake_mask_grad_in_place(grad: Tensor, mask: Tensor) -> None:
    return None


@fake("linger::threshold_grad")
def _fake_threshold_grad(grad: Tensor, slope: Tensor, scale: Tensor) -> Tensor:
    return grad.new_empty(1)
