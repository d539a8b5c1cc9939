"""Another width or another scale in the middle of a model (read back in ``quant_nodes.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from linger import ops
from linger.chip import MAX_LEFT_BITS, OPERATORS
from linger.errors import UnsupportedError
from linger.nn.functional import FunctionalLayer, platform_here
from linger.nn.nodes.requant import write_requant
from linger.runtime import Composite, Tape, factory, info, operator_at_site, state


class RequantInt(FunctionalLayer):
    """int8 codes at a scale of their own, or in 16 or 32 bits at the scale they have.

    Shape:
        x any -> the same shape, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "Requant".
    """

    operator = "requant"

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Chip integers in forward, gradient 1 where the result does not saturate."""
        self.output_quantizer.bits = bits

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            return ops.cat(operands, 0, out, left=MAX_LEFT_BITS, widest=bits > 8)

        return self.compute((x,), lambda v: v * 1.0, integers, self._write, widest=8)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, z: Tensor) -> None:
        scales = float(operands[0].scale), float(out.scale)
        write_requant(tape, operands[0].value, *scales, self.output_quantizer.bits, self.name, z)


@factory("requant")
def _make(n_inputs: int, quant: Any) -> RequantInt:
    return RequantInt(n_inputs, quant)


def requant(x: Tensor, bits: int = 8) -> Tensor:
    """Give a quantized tensor another scale (8 bits) or more bits (16, 32); in a float model nothing happens.

    Args:
        x: Any shape with at least one axis.
        bits: Width of the result, 8, 16 or 32.

    Returns:
        ``x`` itself outside initialised models and for float tensors.

    Raises:
        ValueError: Another width.
        UnsupportedError: ``x`` has more than 8 bits.

    Source: docs/numerics.md, "Requant".
    """
    if bits not in (8, 16, 32):
        raise ValueError(f"requant: bits must be 8, 16 or 32, got {bits}")
    fmt = info(x)
    if not state.frames or state.float_depth or fmt is None:
        return x
    platform = platform_here()
    if bits not in OPERATORS["Requant"][platform].bits:
        raise UnsupportedError(f"requant: {platform} has {OPERATORS['Requant'][platform].bits} bits, got {bits}")
    return cast(Tensor, operator_at_site("requant", 1)(x, bits))


class Requant(Composite):
    """:func:`requant` as a module, for ``nn.Sequential``: float models pass through, initialised ones change the format.

    Args:
        bits: Width of the result, 8, 16 or 32.

    Example:
        >>> import torch
        >>> from linger.nn import Requant
        >>> torch.nn.Sequential(torch.nn.Linear(4, 4), Requant(16))(torch.ones(1, 4)).shape
        torch.Size([1, 4])
    """

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        if bits not in (8, 16, 32):
            raise ValueError(f"Requant: bits must be 8, 16 or 32, got {bits}")
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """See :func:`requant`."""
        return requant(x, self.bits)

    def extra_repr(self) -> str:
        """The width."""
        return f"bits={self.bits}"


__all__ = ["Requant", "RequantInt", "requant"]
