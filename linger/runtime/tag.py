"""How a quantized tensor is carried: a plain tensor with one attribute, its format.

The float value is ``code / scale``. The format may carry the codes, so that the next layer need not recover them; the
tensor's version at tagging time is kept, so that an in-place write nobody handled drops the tag instead of lying.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from linger import ops

_ATTRIBUTE = "_linger_format"
_EXACT_BITS = 24  # of a float32: wider codes cannot be recovered from the value


class Memory:
    """Counts the in-place writes that handlers know of, where torch's own counter cannot be read; views share it."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        self.writes = 0


class Format:
    """Format of a quantized tensor.

    Args:
        scale: 0-dim float32 snapshot, a power of two, or NaN when a NaN entered.
        bits: Width of the codes.
        codes: Integer codes with the tensor's shape, or None where nobody has computed them yet.
        exact: False inside ``calibration()``, where the value is an unrounded float that only carries the marks.
        relu: The producer has applied the ReLU that follows it.

    Attributes:
        maker: Name of the quantizer that made the codes, for messages; None: unknown.
        guard: How float operators compute the tensor, where a constant in it is too small for codes (``guards.py``).
    """

    __slots__ = ("bits", "codes", "exact", "guard", "maker", "memory", "relu", "scale", "version", "writes")

    def __init__(
        self, scale: Tensor, bits: int, codes: Tensor | None = None, *, exact: bool = True, relu: bool = False
    ) -> None:
        self.scale, self.bits, self.codes, self.exact, self.relu = scale, bits, codes, exact, relu
        self.version: int | None = None
        self.memory: Memory | None = None
        self.guard: Any = None
        self.maker: str | None = None
        self.writes = 0

    def view(self, codes: Tensor | None) -> Format:
        """The same format for a tensor that may share memory with this one's."""
        fmt = self.like(codes)
        fmt.memory = self.memory
        return fmt

    def moved(self, result: Tensor, codes: Tensor | None, source: Tensor) -> Format:
        """The same format for the ``result`` of a shape operator on ``source``: a copy is not written when that is."""
        if self.memory is None:
            return self.like(codes)
        if torch.compiler.is_dynamo_compiling():
            shares = result._base is not None  # a copy has none yet
        else:
            shares = torch._C._is_alias_of(result, source)  # type: ignore[attr-defined]
        return self.view(codes) if shares else self.like(codes)

    def like(self, codes: Tensor | None) -> Format:
        """The same format for another tensor (a maximum, a sum) with its own codes."""
        fmt = Format(self.scale, self.bits, codes, exact=self.exact)
        fmt.maker = self.maker
        return fmt

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and files carry no format: their versions start anew. An empty set loads everywhere, weights only too."""
        return (set, ())


class CellFormat(Format):
    """Format of an LSTM's cell state: the chip's own 16 or 32 bits. A layer that takes 8 bits quantizes it as a float tensor."""

    __slots__ = ()

    def like(self, codes: Tensor | None) -> Format:
        """The same format for another tensor with its own codes."""
        return CellFormat(self.scale, self.bits, codes, exact=self.exact)


def version_of(t: Tensor) -> int | None:
    """None where torch keeps no version, or where compiled code cannot read it: handlers drop the tag there themselves."""
    return None if torch.compiler.is_compiling() or t.is_inference() else t._version


def tag(t: Tensor, fmt: Format) -> Tensor:
    """Mark ``t`` as quantized with ``fmt``; use the result: in compiled code it is a view of ``t``."""
    if torch.compiler.is_compiling():
        t = t.view_as(t)  # attributes stay only on results of operators with one output
    elif not t.is_inference():
        fmt.version = t._version
        setattr(t, _ATTRIBUTE, fmt)
        return t
    _mark(t, fmt)
    return t


def _mark(t: Tensor, fmt: Format) -> None:
    fmt.version = version_of(t)
    if fmt.version is None:
        if fmt.memory is None:
            fmt.memory = Memory()
        fmt.writes = fmt.memory.writes
    setattr(t, _ATTRIBUTE, fmt)


def overwritten(t: Tensor, fmt: Format | None = None) -> None:
    """An in-place write has changed ``t``: it and all that share its memory lose their format; ``t`` then has ``fmt``."""
    old: Format | None = getattr(t, _ATTRIBUTE, None) or None
    memory = None if old is None else old.memory
    if memory is not None:
        memory.writes += 1
    if not torch.compiler.is_compiling() and t._is_view() and t._base is not None:
        untag(t._base)
    if fmt is not None:
        fmt.memory = memory
        _mark(t, fmt)
    elif old is not None:
        untag(t)


def untag(t: Tensor) -> None:
    """Forget the format of ``t`` (an in-place write changed its values)."""
    if hasattr(t, _ATTRIBUTE):
        setattr(t, _ATTRIBUTE, None)  # compiled code cannot delete


def info(t: object) -> Format | None:
    """Format of ``t``, or None: not a tensor, never quantized, or written since."""
    fmt: Format | None = getattr(t, _ATTRIBUTE, None)
    if not fmt:  # None, or the empty set of a copy
        return _behind_hook(t) if isinstance(t, Tensor) and not torch.compiler.is_compiling() else None
    if not isinstance(t, Tensor):
        return None
    if fmt.memory is not None and fmt.memory.writes != fmt.writes:
        return None
    if torch.compiler.is_compiling():
        return fmt
    now = None if t.is_inference() else t._version
    unseen = now is None or fmt.version is None
    return fmt if unseen or fmt.version == now else None


def _behind_hook(t: Tensor) -> Format | None:
    """A module with a full backward hook hands on views of its inputs and outputs: they have the format of what they show."""
    if type(t.grad_fn).__name__ != "BackwardHookFunctionBackward" or t._base is None:
        return None
    fmt = info(t._base)
    if fmt is None:
        return None
    whole = t.shape == t._base.shape and t.stride() == t._base.stride()
    if not whole and fmt.bits > _EXACT_BITS:
        return None
    tag(t, fmt.view(fmt.codes if whole else None))
    return info(t)


def codes(t: Tensor, fmt: Format) -> Tensor:
    """Integer codes of a tensor tagged with ``fmt``: those that travel along, else one exact multiplication."""
    if fmt.codes is None:
        fmt.codes = ops.codes_of(t.detach(), fmt.scale, fmt.bits)
    return fmt.codes


def coded(t: Tensor, fmt: Format) -> ops.Coded:
    """Value, codes and scale of a tagged tensor, as the operators take them."""
    return ops.Coded(t, codes(t, fmt), fmt.scale)


def fixed_output(scale: Tensor, bits: int = 8, *, relu: bool = False) -> ops.Output:
    """Quantize to a scale that is given: no statistics are taken, none move.

    Args:
        scale: float32 ``[]``, a power of two, or NaN: the result is NaN.
        bits: Width of the codes.
        relu: No negative codes.
    """
    counter = torch.zeros(1, dtype=torch.int64, device=scale.device)
    known = torch.ones((), dtype=torch.bool, device=scale.device)
    stats = ops.Stats(torch.zeros_like(scale), known, scale.clone(), counter, counter.clone())
    return ops.Output(stats, None, bits, 1, 0.0, False, relu)


def is_quantized(t: object) -> bool:
    """Whether ``t`` carries chip integers."""
    fmt = info(t)
    return fmt is not None and fmt.exact


def follow(t: Tensor, like: Tensor) -> Tensor:
    """Give ``t`` the format of ``like`` without codes, when ``like`` has one."""
    fmt = info(like)
    return t if fmt is None else tag(t, fmt.like(None))


def scale_value(fmt: Format) -> float:
    """Host read of the scale; for export and messages only, never in a training step."""
    return float(torch.as_tensor(fmt.scale))


def float_tensors(value: Any) -> Iterator[Tensor]:
    """The float tensors among arguments or results, in order; whatever holds them."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from float_tensors(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from float_tensors(v)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from float_tensors(getattr(value, name))


def tensors(args: Iterable[Any]) -> Iterable[Tensor]:
    """Tensors among arguments, one level of lists and tuples deep."""
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, (list, tuple)):
            yield from (t for t in a if isinstance(t, Tensor))
