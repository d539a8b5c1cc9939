"""What the readers of quantized nodes share: chip rows, operands, weights and shifts."""

from __future__ import annotations

import torch
from torch import Tensor

from linger.chip import LIMITS, MAX_LEFT_BITS, MAX_SHIFT, Limits
from linger.ops.elementwise import requant_codes
from linger.runtime.graph import NodeReader


def limits(node: NodeReader) -> Limits:
    """Row of the file's platform."""
    return LIMITS[node.platform]


def require_8_bits(node: NodeReader, *names: str) -> None:
    """Require that these width attributes, where written, say 8."""
    for name in names:
        if node.integer(name, 8) != 8:
            raise node.error(f"attribute {name!r} must be 8, got {node.integer(name)}")


def out_bits(node: NodeReader, allowed: tuple[int, ...]) -> int:
    """Attribute ``o_bits``, one of ``allowed``."""
    bits = node.integer("o_bits", 8)
    if bits not in allowed:
        raise node.error(f"attribute 'o_bits' must be one of {allowed} on {node.platform}, got {bits}")
    return bits


def operand(node: NodeReader, i: int, scale: str, rank: int | None = None, bits: int = 8) -> tuple[Tensor, int]:
    """Codes of input ``i``, ``bits`` wide, and their exponent, which must be the one they were made with."""
    value, exp2 = node.codes(i), node.scale(scale)
    if value.bits != bits:
        raise node.error(f"input {i} must be int{bits}, got int{value.bits}")
    if rank is not None and value.codes.dim() != rank:
        raise node.error(f"input {i} must have {rank} dimensions, got shape {tuple(value.codes.shape)}")
    node.match(i, exp2)
    return value.codes, exp2


def weight_bits(node: NodeReader) -> int:
    """Attribute ``w_bits``: 8, or 4 stored in int8."""
    bits = node.integer("w_bits", 8)
    if bits not in (4, 8):
        raise node.error(f"attribute 'w_bits' must be 4 or 8, got {bits}")
    return bits


def weights(node: NodeReader, i: int, rank: int, bits: int = 8) -> Tensor:
    """int8 initializer ``i`` with ``rank`` non-empty dimensions; ``bits`` = 4 restricts the values to -8..7."""
    weight = node.constant(i)
    if weight.dtype != torch.int8 or weight.dim() != rank or weight.numel() == 0:
        raise node.error(f"input {i} must be an int8 initializer of {rank} dimensions, got {_shown(weight)}")
    if bits == 4 and (int(weight.min()) < -8 or int(weight.max()) > 7):
        raise node.error(f"input {i} must hold 4-bit weights, -8..7")
    return weight


def bias(node: NodeReader, i: int, n: int) -> Tensor | None:
    """int32 initializer ``[n]``, or None where input ``i`` is not wired."""
    if not node.has_input(i):
        return None
    value = node.constant(i)
    if value.dtype != torch.int32 or tuple(value.shape) != (n,):
        raise node.error(f"input {i} must be an int32 initializer of shape ({n},), got {_shown(value)}")
    return value


def _shown(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def right_shift(node: NodeReader, shift: int, what: str, lowest: int = 0) -> int:
    """Check a right shift that follows from the scales.

    Raises:
        ModelError: Below ``lowest`` (the output scale is finer than the chip can give) or above 63.
    """
    if not lowest <= shift <= MAX_SHIFT:
        raise node.error(f"the scales ask for a shift of {what} = {shift} bits, the chip takes {lowest}..{MAX_SHIFT}")
    return shift


def requantize(node: NodeReader, codes: Tensor, left: int, bits: int = 8) -> Tensor:
    """int8 codes times 2**left, rounded half up and saturated to ``bits``; 8-bit results go at most 6 bits to the left."""
    highest = MAX_LEFT_BITS if bits == 8 else MAX_SHIFT
    if not -MAX_SHIFT <= left <= highest:
        raise node.error(f"the scales ask for a left shift of {left} bits, the chip takes {-MAX_SHIFT}..{highest}")
    if left == 0 and bits == 8:
        return codes
    return requant_codes(codes, -left, bits)


def window(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Output size of a sliding window, rounded down; may be <= 0."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def positive(node: NodeReader, name: str, length: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """A list attribute of ``length`` sizes >= 1."""
    values = node.integers(name, length, default)
    if any(not 1 <= v <= 1 << 20 for v in values):
        raise node.error(f"attribute {name!r} must hold sizes >= 1, got {values}")
    return values


def borders(node: NodeReader, length: int, limits: tuple[int, ...]) -> tuple[int, ...]:
    """Attribute ``pads``: ``length`` values, begins then ends, each within the window ``limits`` of its axis."""
    values = node.integers("pads", length, (0,) * length)
    if any(not 0 <= v <= limits[i % len(limits)] for i, v in enumerate(values)):
        raise node.error(f"attribute 'pads' must lie within the kernel, got {values}")
    return values
