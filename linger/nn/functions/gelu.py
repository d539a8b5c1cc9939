"""GELU and SiLU (swish), which one chip has; elsewhere SiLU is a product (files are read back in ``function_nodes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.chip import curve_of, find_curve
from linger.nn.arithmetic.mul import write_product
from linger.nn.functional import FunctionalLayer, common_attributes, platform_here, store
from linger.runtime import Tape, factory, handles, info, operator_at_site

from .sigmoid import write_curve


class _Quantized(FunctionalLayer):
    """The chip's Q27 result, then an output quantizer."""

    real: Callable[[Tensor], Tensor]
    function, node = "", ""

    def __init__(self, n_inputs: int, quant: Any) -> None:
        super().__init__(n_inputs, quant)
        self.curve = curve_of(self.function, quant.platform)

    def forward(self, x: Tensor) -> Tensor:
        """The chip's function in forward; the derivative of the exact function at the quantized operand in backward."""

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            return ops.quantized_activation(operands[0], self.curve.table, out)

        return self.compute((x,), type(self).real, integers, self._write)

    def _write(self, tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, y: Tensor) -> None:
        (x,) = operands
        fmt = info(x.value)
        attributes = common_attributes(tape) | {
            "x_bits": 8 if fmt is None else fmt.bits,
            "o_bits": self.output_quantizer.bits,
            "scale_x": float(x.scale),
            "scale_o": float(out.scale),
        }
        tape.node(self.node, [x.value], [y], attributes, domain="linger", hint=self.name)


class GeluInt(_Quantized):
    """GELU (erf form) of a quantized tensor, on the chip that has it.

    Shape:
        any -> the same, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "GELU and swish".
    """

    operator, function, node = "gelu", "gelu", "QGelu"
    real = staticmethod(F.gelu)


class SiluInt(_Quantized):
    """SiLU, ``x * sigmoid(x)``, of a quantized tensor, on the chip that has it.

    Shape:
        any -> the same, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "GELU and swish".
    """

    operator, function, node = "silu", "swish", "QSwish"
    real = staticmethod(F.silu)


class SiluProductInt(FunctionalLayer):
    """SiLU on the chips without the function: ``x`` times the chip's sigmoid of ``x``.

    Shape:
        any -> the same, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "GELU and swish".
    """

    operator, row = "silu", "QSwish"

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward; the gradient of the product of the two factors."""
        gates: list[ops.Coded] = []

        def integers(operands: Sequence[ops.Coded], out: ops.Output) -> ops.Coded:
            gates[:] = [ops.activation(operands[0], curve_of("sigmoid", self.quant.platform).table, 8)]
            return ops.mul(operands[0], gates[0], out)

        def write(tape: Tape, operands: Sequence[ops.Coded], out: ops.Coded, y: Tensor) -> None:
            (a,) = operands
            write_curve(tape, "iqSigmoid", a.value, 8, float(a.scale), gates[0].value, self.name)
            write_product(tape, (a, gates[0]), out, y, self.name)

        return self.compute((x,), F.silu, integers, write, widest=8)


@factory("gelu")
def _make_gelu(n_inputs: int, quant: Any) -> GeluInt:
    return GeluInt(n_inputs, quant)


@factory("swish")
def _make_silu(n_inputs: int, quant: Any) -> SiluInt | SiluProductInt:
    return (SiluProductInt if find_curve("swish", quant.platform) is None else SiluInt)(n_inputs, quant)


def _gelu_at_site(function: str, x: Any) -> Tensor | None:
    fmt = info(x)
    if not isinstance(x, Tensor) or fmt is None:
        return None
    if find_curve(function, platform_here()) is None and (function == "gelu" or fmt.bits > 8):
        return None
    return cast(Tensor, operator_at_site(function, 1)(x))


@handles("gelu", "F.gelu")
def _gelu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The form with erf; the chip has no other."""
    given = {**dict(zip(("input", "approximate"), args, strict=False)), **kwargs}
    y = _gelu_at_site("gelu", given.get("input")) if given.get("approximate", "none") == "none" else None
    return NotImplemented if y is None else y


@handles("silu", "F.silu")
def _silu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {**dict(zip(("input", "inplace"), args, strict=False)), **kwargs}
    x = given.get("input")
    y = _gelu_at_site("swish", x)
    if y is None:
        return NotImplemented
    return store(cast(Tensor, x), y) if given.get("inplace") else y


__all__ = ["GeluInt", "SiluInt", "SiluProductInt"]
