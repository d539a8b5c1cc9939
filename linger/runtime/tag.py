"""How a quantized tensor is carried: a plain tensor with one attribute, its format.

The float value is ``code / scale``. The format may carry the codes, so that the next layer need not recover them; the
tensor's version at tagging time is kept, so that an in-place write nobody handled drops the tag instead of lying.
"""

from __future__ import annotations

import torch
from torch import Tensor

from linger import ops

_ATTRIBUTE = "_linger_format"


class Format:
    """Format of a quantized tensor.

    Args:
        scale: 0-dim float32 snapshot, a power of two, or NaN when a NaN entered.
        bits: Width of the codes.
        codes: Integer codes with the tensor's shape, or None where nobody has computed them yet.
        exact: False inside ``calibration()``, where the value is an unrounded float that only carries the marks.
        relu: The producer has applied the ReLU that follows it.
    """

    __slots__ = ("bits", "codes", "exact", "relu", "scale", "version")

    def __init__(
        self, scale: Tensor, bits: int, codes: Tensor | None = None, *, exact: bool = True, relu: bool = False
    ) -> None:
        self.scale, self.bits, self.codes, self.exact, self.relu = scale, bits, codes, exact, relu
        self.version: int | None = None

    def like(self, codes: Tensor | None) -> Format:
        """The same format for another tensor (a view, a slice, a maximum) with its own codes."""
        return Format(self.scale, self.bits, codes, exact=self.exact)

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.scale, self.bits, self.exact))


def _restore(scale: Tensor, bits: int, exact: bool) -> Format:
    restored = Format(scale, bits, exact=exact)
    restored.version = -1  # a copy of a tensor starts its versions anew: never trust the tag
    return restored


def _version(t: Tensor) -> int | None:
    return None if t.is_inference() else t._version


def tag(t: Tensor, fmt: Format) -> Tensor:
    """Mark ``t`` as quantized with ``fmt``; returns ``t``."""
    fmt.version = _version(t)
    setattr(t, _ATTRIBUTE, fmt)
    return t


def untag(t: Tensor) -> None:
    """Forget the format of ``t`` (an in-place write changed its values)."""
    if hasattr(t, _ATTRIBUTE):
        delattr(t, _ATTRIBUTE)


def info(t: object) -> Format | None:
    """Format of ``t``, or None: not a tensor, never quantized, or written since."""
    fmt: Format | None = getattr(t, _ATTRIBUTE, None)
    if fmt is None or not isinstance(t, Tensor):
        return None
    return fmt if fmt.version == _version(t) else None


def codes(t: Tensor, fmt: Format) -> Tensor:
    """Integer codes of a tensor tagged with ``fmt``: those that travel along, else one exact multiplication."""
    if fmt.codes is None:
        fmt.codes = ops.codes_of(t.detach(), fmt.scale, fmt.bits)
    return fmt.codes


def coded(t: Tensor, fmt: Format) -> ops.Coded:
    """Value, codes and scale of a tagged tensor, as the operators take them."""
    return ops.Coded(t, codes(t, fmt), fmt.scale)


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
