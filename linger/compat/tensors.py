"""Quantized tensors under their older names: views of the one representation, a plain tensor with a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from linger import ops
from linger.nn.base import accept, calibrate_input
from linger.nn.functional import FunctionalLayer
from linger.quantizers import in_float
from linger.runtime import Format, current_tape, factory, info, operator_at_site, state, tag
from linger.settings import QuantMode

_EXPONENTS = (0, 23)  # log2 of the scales that the chips have


def _exponent(scale: Any, call: str) -> int:
    """log2 of a scale.

    Raises:
        ValueError: It is no power of two, or none that the chips have.
    """
    value = float(scale)
    mantissa, exponent = torch.frexp(torch.tensor(value, dtype=torch.float64))
    if float(mantissa) != 0.5 or not _EXPONENTS[0] <= int(exponent) - 1 <= _EXPONENTS[1]:
        raise ValueError(f"{call}: scale must be a power of two from 1 to 2**23, got {value}")
    return int(exponent) - 1


def _fitting(x: Tensor, bits: int) -> float:
    """The scale that MOM would give a tensor alone."""
    largest = max(float(x.detach().abs().max()) if x.numel() else 0.0, 1e-6)
    k = int(torch.round(torch.log2(torch.tensor(largest, dtype=torch.float64))))
    return float(2.0 ** min(max(bits - 1 - k, _EXPONENTS[0]), _EXPONENTS[1]))


_ROUND: dict[QuantMode, Callable[[Tensor], Tensor]] = {
    QuantMode.floor: torch.floor,
    QuantMode.floor_add: lambda v: torch.floor(v + 0.5),
    QuantMode.round: torch.round,
    QuantMode.ceil: torch.ceil,
}


def quant(
    x: Tensor, bits: int = 8, scale: float = -1, zero_point: int = 0, mode: QuantMode = QuantMode.floor_add
) -> tuple[Tensor, float]:
    """Integer codes of a tensor, as floats, and their scale: ``clamp(round(x * scale), -2**(bits-1), 2**(bits-1) - 1)``.

    Args:
        x: Any shape.
        bits: Width of the codes, 2..32.
        scale: A power of two; anything not above 0 chooses the one that fits the largest magnitude.
        zero_point: 0, the only one.
        mode: Rounding.

    Raises:
        ValueError: Another scale, width or zero point.

    Source: docs/numerics.md, "Quant".
    """
    _check_zero_point("quant", zero_point)
    if not 2 <= bits <= 32:
        raise ValueError(f"quant: bits must be in [2, 32], got {bits}")
    factor = _fitting(x, bits) if scale <= 0 else float(2 ** _exponent(scale, "quant"))
    wide = x.double() if bits > 16 else x
    codes = _ROUND[QuantMode(mode)](wide * factor).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return codes, factor


def dequant(x: Tensor, scale: float) -> Tensor:
    """Codes back to real values: ``x / scale``."""
    return x / scale


def _check_zero_point(call: str, zero_point: Any) -> None:
    if zero_point != 0:
        raise ValueError(f"{call}: zero_point must be 0, the chips compute with symmetric codes; got {zero_point}")


def _quantized(kind: type[Tensor], t: Tensor, scale: float | None, data_bits: int | None, zero_point: int) -> Any:
    """What ``QTensor(...)`` and the functions of both generations make, of the class that they promise."""
    _check_zero_point("QTensor", zero_point)
    if data_bits is not None and data_bits not in (8, 16, 32):
        raise ValueError(f"QTensor: data_bits must be 8, 16 or 32, got {data_bits}")
    fmt, tape = info(t), current_tape()
    if fmt is not None and scale is None and data_bits in (None, fmt.bits):
        with torch._C.DisableTorchFunction():
            view = tag(t.view_as(t).as_subclass(kind), fmt.view(fmt.codes))
        if tape is not None:
            tape.alias(view, t)
        return view
    if tape is not None and fmt is not None:  # other codes of the same values: an island between Dequant and Quant
        source = from_qtensor_to_tensor(t)
        tape.bind(source, tape.float_name(t))
        t = source
    bits = data_bits or 8
    factor = _fitting(t, bits) if scale is None else float(2 ** _exponent(scale, "QTensor"))
    codes, _ = quant(t.detach(), bits, factor)
    value = (codes / factor).to(torch.float32)
    if t.requires_grad:
        whole = (t.detach() * factor).round()
        inside = whole.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) == whole
        value = value + torch.where(inside, t - t.detach(), torch.zeros_like(t))
    kept = codes.to(torch.int8 if bits == 8 else torch.int32)
    made = tag(value.as_subclass(kind), Format(torch.tensor(factor, device=t.device), bits, kept))
    if tape is not None:
        tape.quant(t, made, bits, factor)
    return made


def from_tensor_to_qtensor(
    t: Tensor, scale: float | None = None, data_bits: int | None = None, zero_point: int = 0
) -> QTensor:
    """Quantize a float tensor and mark it with its format; gradients pass straight through where nothing saturates.

    Args:
        t: float32, any shape. A quantized tensor for which nothing else is asked is shown as it is.
        scale: A power of two; None chooses the one that fits the largest magnitude.
        data_bits: 8, 16 or 32; None: 8.
        zero_point: 0, the only one.

    Raises:
        ValueError: Another scale, width or zero point.
    """
    return cast(QTensor, _quantized(QTensor, t, scale, data_bits, zero_point))


def from_qtensor_to_tensor(t: Tensor) -> Tensor:
    """The same values without a format."""
    with torch._C.DisableTorchFunction():
        return t.as_subclass(Tensor).view_as(t)


class _ByFormat(torch._C._TensorMeta):
    """``isinstance`` is answered by the format that a tensor carries."""

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Tensor) and info(value) is not None


class QTensor(Tensor, metaclass=_ByFormat):
    """3.x name of a quantized tensor: a view of a tensor and its format.

    ``isinstance(y, QTensor)`` is true for every tensor that carries a format, what a layer returns included. That is a plain
    tensor: ``QTensor(y)`` shows its format as attributes, and :meth:`scale_of`, :meth:`bits_of` and :meth:`codes_of` read it.
    What torch computes from a view is a plain tensor again.

    Args:
        data: float32, any shape.
        scale: A power of two; None: that of a quantized tensor, else 1.
        data_bits: 8, 16 or 32; None: those of a quantized tensor, else 8.
        zero_point: 0, the only one.

    Attributes:
        scale: Codes per unit: ``code = value * scale``.
        data_bits: Width of the codes.
        value: The values as a plain tensor without a format.
        codes: The integer codes.

    Raises:
        ValueError: Another scale, width or zero point.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    zero_point = 0

    def __new__(
        cls, data: Tensor, scale: float | None = None, data_bits: int | None = None, zero_point: int = 0
    ) -> QTensor:
        """See the class."""
        if scale is None and info(data) is None:
            scale = 1.0
        return cast(QTensor, _quantized(cls, data, scale, data_bits, zero_point))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """A copy, and a file, quantizes the values again: the same codes."""
        return (type(self), (self.value.detach(), self.scale, self.data_bits))

    def __deepcopy__(self, memo: dict[int, Any]) -> QTensor:
        """A view of values of its own."""
        copy = memo[id(self)] = type(self)(self.value.detach().clone(), self.scale, self.data_bits)
        return copy

    @staticmethod
    def _format(t: Tensor) -> Format:
        fmt = info(t)
        if fmt is None:
            raise TypeError("QTensor: this tensor is not quantized")
        return fmt

    @staticmethod
    def scale_of(t: Tensor) -> float:
        """Codes per unit of any quantized tensor: ``code = value * scale``."""
        return float(QTensor._format(t).scale)

    @staticmethod
    def bits_of(t: Tensor) -> int:
        """Width of the codes of any quantized tensor."""
        return QTensor._format(t).bits

    @staticmethod
    def codes_of(t: Tensor) -> Tensor:
        """The integer codes of any quantized tensor."""
        fmt = QTensor._format(t)
        return torch.round(t.detach().double() * fmt.scale.double()).to(torch.int8 if fmt.bits <= 8 else torch.int32)

    scale = property(lambda self: QTensor.scale_of(self))
    data_bits = property(lambda self: QTensor.bits_of(self))
    value = property(from_qtensor_to_tensor)
    codes = property(lambda self: QTensor.codes_of(self))


class IQTensor(QTensor):
    """Classic name of a quantized tensor, see :class:`QTensor`.

    Attributes:
        scale_data: As ``scale``.
        bits: As ``data_bits``.
        running_data: None: quantizers keep running values, tensors do not.
    """

    scale_data, bits, running_data = QTensor.scale, QTensor.data_bits, None

    @staticmethod
    def from_torch_tensor(t: Tensor, scale: float, bits: int, zero_point: int = 0, running: Any = None) -> IQTensor:
        """A tensor of these values and this format (``running`` is kept by quantizers, not by tensors)."""
        return cast(IQTensor, _quantized(IQTensor, t, scale, bits, zero_point))

    def quant_to_int8(self: Tensor, scale: float | None = None) -> IQTensor:
        """The tensor in 8 bits, at another scale where one is given."""
        return IQTensor.scale_to(self, QTensor.scale_of(self) if scale is None else scale, 8)

    requant_ = quant_to_int8

    def scale_to(self: Tensor, target_scale: float, bits: int | None = None) -> IQTensor:
        """The tensor at another scale, same width unless one is given."""
        width = QTensor.bits_of(self) if bits is None else bits
        return IQTensor.from_torch_tensor(from_qtensor_to_tensor(self), target_scale, width)


# ---- operators as functions


def _split(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Operands of both call forms: ``iqadd(module, x, y, name)`` and ``iqadd(x, y)``."""
    return args[1:] if args and isinstance(args[0], nn.Module) else args


def iqadd(*args: Any, name: str = "_default") -> Tensor:
    """``x + y``: ``iqadd(x, y)`` or, as the classic generation calls it, ``iqadd(module, x, y, name)``."""
    x, y, *_ = _split(args)
    return torch.add(x, y)


def iqmul(*args: Any, name: str = "_default") -> Tensor:
    """``x * y``: ``iqmul(x, y)`` or ``iqmul(module, x, y, name)``."""
    x, y, *_ = _split(args)
    return torch.mul(x, y)


def iqdiv(*args: Any, name: str = "_default") -> Tensor:
    """``x / y``: ``iqdiv(x, y)`` or ``iqdiv(module, x, y, name)``."""
    x, y, *_ = _split(args)
    return torch.div(x, y)


def iqsum(*args: Any, **kwargs: Any) -> Tensor:
    """``x.sum(...)``: ``iqsum(x, dim)`` or ``iqsum(module, x, dim)``."""
    x, *rest = _split(args)
    return torch.sum(x, *rest, **kwargs)


def iqcat(*args: Any, name: str = "_default", **kwargs: Any) -> Tensor:
    """``torch.cat(tensors, dim)``: ``iqcat(tensors, dim)`` or ``iqcat(module, tensors, dim)``."""
    tensors, *rest = _split(args)
    return torch.cat(tensors, *rest, **kwargs)


def iqclamp(*args: Any, name: str = "_default", **kwargs: Any) -> Tensor:
    """``x.clamp(min, max)``: ``iqclamp(x, min, max)`` or ``iqclamp(module, x, min, max)``."""
    x, *rest = _split(args)
    return torch.clamp(x, *rest, **kwargs)


def iqsigmoid(*args: Any, name: str = "_default") -> Tensor:
    """``sigmoid(x)``: ``iqsigmoid(x)`` or ``iqsigmoid(module, x)``."""
    return torch.sigmoid(_split(args)[0])


def iqtanh(*args: Any, name: str = "_default") -> Tensor:
    """``tanh(x)``: ``iqtanh(x)`` or ``iqtanh(module, x)``."""
    return torch.tanh(_split(args)[0])


class QuantTensor(FunctionalLayer):
    """A float tensor quantized by user code: one quantizer.

    Shape:
        x any -> the same shape, float32 on a power-of-two grid, tagged with its format.
    """

    operator = "quant_tensor"

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Quantize what is float; a quantized tensor is handed on as it is."""
        quantizer = self.operand_quantizer(0)
        quantizer.bits = bits
        with torch._C.DisableTorchFunction():
            if in_float():
                calibrate_input(x, quantizer)
                return tag(x * 1.0, Format(quantizer.scale.detach(), bits, exact=False))
            operand: ops.Coded = accept(x, quantizer)
            return operand.value


@factory("quant_tensor")
def _make(n_inputs: int, settings: Any) -> QuantTensor:
    return QuantTensor(n_inputs, settings)


def quant_tensor(
    module: nn.Module,
    x: Tensor,
    name: str = "_default_layername",
    mode: Any = None,
    bits: int = 8,
    zero_point: int = 0,
) -> Tensor:
    """Quantize a float tensor inside a ``forward``; float models and float regions get it back as it is.

    Args:
        module: The module whose ``forward`` runs (kept for the signature; the call site says which quantizer it is).
        x: float32, any shape.
        name: Kept for the signature.
        mode: ``QuantMode.QValue``, the only one.
        bits: 8, 16 or 32.
        zero_point: 0, the only one.

    Raises:
        ValueError: Another width or zero point.
    """
    _check_zero_point("quant_tensor", zero_point)
    if bits not in (8, 16, 32):
        raise ValueError(f"quant_tensor: bits must be 8, 16 or 32, got {bits}")
    if not state.frames or state.float_depth:
        return x
    return cast(Tensor, operator_at_site("quant_tensor", 1)(x, bits))
