"""Base of the operators that user code calls: state per call site, one forward for all, and what their calls share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from linger import ops
from linger.chip import OPERATORS
from linger.errors import UnsupportedError
from linger.quantizers import in_float
from linger.runtime import HANDLERS, Leaf, Tape, coded, current_tape, info, overwritten, state, tag

from .base import (
    accept,
    activation_quantizer,
    calibrate_input,
    emit,
    emit_calibrated,
    note_use,
    operand_zeros,
)

if TYPE_CHECKING:
    from linger.quantizers import Quantizer
    from linger.settings import LayerSettings

Integers = Callable[[Sequence[ops.Coded], ops.Output], ops.Coded]
Write = Callable[[Tape, Sequence[ops.Coded], ops.Coded, Tensor], None]


class FunctionalLayer(Leaf):
    """State of one functional operator at one call site: a quantizer per operand (float operands only) and one for the result."""

    operator = ""  # name in messages and files of an operator that has no name of its own
    row = ""  # of the operator table: the widths its chip has; empty where the class sees to them itself

    def __init__(self, n_inputs: int, quant: LayerSettings) -> None:
        super().__init__()
        self.quant = quant
        self._set_operands(n_inputs)
        self.output_quantizer = activation_quantizer(quant, quant.output_bits)

    def _set_operands(self, n: int) -> None:
        quant, device = self.quant, next((b.device for b in self.buffers()), None)
        made = [activation_quantizer(quant, quant.input_bits).to(device) for _ in range(n)]
        for i, quantizer in enumerate(made):
            quantizer.name = f"{self.name}.input_quantizer.{i}"
            quantizer.train(self.training)
        self.input_quantizer = nn.ModuleList(made)

    def operand_quantizer(self, i: int) -> Quantizer:
        """Quantizer of operand ``i``."""
        return cast("Quantizer", cast(Any, self._modules["input_quantizer"])._modules[str(i)])  # plain dicts are fast

    @property
    def name(self) -> str:
        """Qualified name, for messages and files."""
        return self.__dict__.get("_linger_name", "") or self.operator

    def verify(self) -> None:
        """Refuse widths that the chip lacks, when the operator is created.

        Raises:
            UnsupportedError: Names the operator, the widths of the chip and the key to set.
        """
        if not self.row:
            return
        allowed, quant = OPERATORS[self.row][self.quant.platform].bits, self.quant
        for key, bits, has in (("output_bits", quant.output_bits, allowed), ("input_bits", quant.input_bits, (8,))):
            if bits not in has:
                raise UnsupportedError(
                    f"linger: {key} {bits} of '{self.name}' ({self.row}): {quant.platform} has "
                    f"{' or '.join(map(str, has))}; set {key} in a section whose name covers it, in front of other sections"
                )

    def compute(
        self,
        xs: Sequence[Tensor],
        real: Callable[..., Tensor],
        integers: Integers,
        write: Write | None = None,
        widest: int = 32,
    ) -> Tensor:
        """One forward: the float operator inside ``calibration()``, else the chip's integers, recorded while a tape runs.

        Args:
            xs: Operands; float ones are quantized by the quantizer of their position.
            real: The float operator on the operands.
            integers: The chip's operator: coded operands and output settings to the coded result.
            write: Records tape, coded operands, coded result and its tensor; None where ``integers`` does it.
            widest: Bits of an operand that the operator takes.

        Raises:
            UnsupportedError: More tensors than at the first call, or an operand wider than ``widest``.
        """
        if not len(self.input_quantizer):
            self._set_operands(len(xs))  # from a checkpoint that does not say how many
        if str(len(xs) - 1) not in cast(Any, self._modules["input_quantizer"])._modules:
            raise UnsupportedError(
                f"linger: '{self.name}' was created for {len(self.input_quantizer)} tensor(s) and now got {len(xs)}; give the "
                "two forms calls of their own"
            )
        with torch._C.DisableTorchFunction():
            if in_float():
                for i, x in enumerate(xs):
                    calibrate_input(x, self.operand_quantizer(i))
                zeros = [operand_zeros(x, self.operand_quantizer(i)) for i, x in enumerate(xs)]

                def highest() -> Tensor:
                    return integers([z() for z in zeros], self.output_quantizer.output()._replace(observe=False)).scale

                return emit_calibrated(real(*xs), self.output_quantizer, highest)
            operands = [accept(x, self.operand_quantizer(i), widest) for i, x in enumerate(xs)]
            quantizer = self.output_quantizer
            note_use(quantizer)
            out = integers(operands, quantizer.output())
            y = emit(out, quantizer)
            tape = current_tape()
            if tape is not None and write is not None:
                write(tape, operands, out, y)
            return y

    def extra_repr(self) -> str:
        """Formats as the 3.x generation prints them."""
        return f"data_bits:{self.quant.input_bits}, o_bits:{self.quant.output_bits}"


def common_attributes(tape: Tape) -> dict[str, Any]:
    """Attributes that every element-wise node carries; the chips ignore their values."""
    return {"platform": tape.platform, "quant_mode": "floor_add", "platform_quant": "luna_quant"}


def pair_attributes(tape: Tape, bits: tuple[int, int, int], scales: tuple[float, float, float]) -> dict[str, Any]:
    """Attributes of a node of two operands: widths and scales of x, y and the result."""
    widths = dict(zip(("x_bits", "y_bits", "o_bits"), bits, strict=True))
    return common_attributes(tape) | widths | dict(zip(("scale_x", "scale_y", "scale_o"), scales, strict=True))


def move_coded(x: ops.Coded, func: Callable[..., Any], *args: Any) -> ops.Coded:
    """A coded tensor behind a shape operator of torch, which records itself."""
    y = HANDLERS[func](func, (x.value, *args), {})
    fmt = info(y)
    assert fmt is not None
    return coded(y, fmt)


# ---- calls

_BINARY = ("input", "self", "other")


def is_number(v: Any) -> bool:
    """Whether ``v`` is a finite Python number that a chip's constant can hold."""
    return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and abs(v) < 2.0**60


def both_operands(args: tuple[Any, ...], kwargs: dict[str, Any], also: str = "") -> tuple[Any, Any, Any] | None:
    """Both operands of a call and its keyword ``also`` (None: not given); None where it asks for more, as ``out=``."""
    if not kwargs:
        return (args[0], args[1], None) if len(args) == 2 else None
    if any(v is not None for k, v in kwargs.items() if k not in _BINARY and k != also):
        return None
    values = [*args, *(kwargs[k] for k in _BINARY if k in kwargs)]
    return (values[0], values[1], kwargs.get(also)) if len(values) == 2 else None


def real_operands(*values: Any, widest: int = 8) -> bool:
    """Whether the operands are float tensors of one device, and numbers; one tensor at least must be quantized.

    Args:
        *values: Operands.
        widest: Bits that the operator takes; wider tensors leave it to float.
    """
    first: Tensor | None = None
    quantized = False
    for v in values:
        if not isinstance(v, Tensor):
            if not is_number(v):
                return False
            continue
        if first is None:
            first = v
        if not v.is_floating_point() or v.device != first.device:
            return False
        fmt = info(v)
        if fmt is not None:
            quantized = True
            if fmt.bits > widest:
                return False
    return quantized


def store(target: Tensor, result: Tensor) -> Tensor:
    """Write a quantized result into ``target`` as an in-place operator does; the file sees only the result.

    A view passes its new values on to its base, which thereby loses its format.
    """
    fmt, tape = info(result), current_tape()
    guard = None if fmt is None else fmt.guard
    if guard is not None and guard.x is target:
        guard = guard._replace(x=_copy(target))
    target.copy_(result)
    overwritten(target, None if fmt is None else fmt.like(fmt.codes))
    if tape is not None:
        tape.alias(target, result)
    now = info(target)
    if now is not None:
        now.guard = guard
    return target


def _copy(x: Tensor) -> Tensor:
    """What a tensor is before it is overwritten."""
    fmt, tape, copy = info(x), current_tape(), x.clone()
    if fmt is not None:
        copy = tag(copy, fmt.like(fmt.codes))
    if tape is not None:
        tape.alias(copy, x)
    return copy


def platform_here() -> str:
    """The chip of the operator that user code is calling now: that of the section that covers its owner."""
    return _layer_of(state.frames[-1].owner).platform


def own_average_here() -> bool:
    """Whether means over whole axes have a scale of their own in the code that runs now."""
    return _layer_of(state.frames[-1].owner).own_average


def engine_here() -> str | None:
    """The release of the engine that the model whose code runs now is for."""
    return _engine_of(state.frames[-1].owner)


def _engine_of(owner: nn.Module) -> str | None:
    engine: str | None = owner.__dict__["_linger_settings"].engine
    return engine


def _layer_of(owner: nn.Module) -> LayerSettings:
    settings = owner.__dict__["_linger_settings"]
    known: tuple[object, LayerSettings] | None = owner.__dict__.get("_linger_layer_settings")
    if known is None or known[0] is not settings:  # a copy that is looked at for another chip has other settings
        known = settings, settings.layer(owner.__dict__["_linger_name"])
        owner.__dict__["_linger_layer_settings"] = known
    return known[1]


for _constant in (_layer_of, _engine_of):  # torch.compiler.assume_constant_result, without importing dynamo
    _constant.__dict__["_dynamo_marked_constant"] = True


__all__ = [
    "FunctionalLayer",
    "both_operands",
    "common_attributes",
    "engine_here",
    "is_number",
    "move_coded",
    "own_average_here",
    "pair_attributes",
    "platform_here",
    "real_operands",
    "store",
]
