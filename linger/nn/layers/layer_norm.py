"""LayerNorm, module and ``F.layer_norm`` (read back in ``layer_norm_nodes.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linger import ops
from linger.chip import LIMITS, NodeFacts, TensorFacts
from linger.errors import UnsupportedError
from linger.nn.base import (
    QuantLayer,
    accept,
    calibrate_input,
    emit,
    emit_calibrated,
    note_use,
    operand_zeros,
    weight_quantizer,
    write_node,
)
from linger.nn.functional import FunctionalLayer, common_attributes
from linger.nn.nodes.scalar_product import write_scalar_product
from linger.ops.layer_norm import NORM_EXP2, nearest_eps, quantize_gamma
from linger.quantizers import Quantizer, clamp_weight_once, in_float
from linger.runtime import Operand, Tape, ahead, current_tape, factory, handles, info, operator_at_site

if TYPE_CHECKING:
    from linger.settings import LayerSettings


class _Norm(NamedTuple):
    """One normalisation: its quantizer of gamma, the affine parameters, the axes, eps and the chip."""

    quantizer: Quantizer
    gamma: Tensor | None
    beta: Tensor | None
    shape: tuple[int, ...]
    eps: float
    platform: str

    def real(self, x: Tensor) -> Tensor:
        """The float operator, for ``calibration()``."""
        if self.gamma is not None:
            self.quantizer.observe_calibration(self.gamma)
        with torch.autocast(x.device.type, enabled=False):
            gamma, beta = (None if t is None else t.to(x.dtype) for t in (self.gamma, self.beta))
            return F.layer_norm(x, self.shape, gamma, beta, self.eps)

    def integers(self, x: ops.Coded, out: ops.Output) -> ops.Coded:
        """The chip's operator."""
        return ops.layer_norm(
            x,
            self.gamma,
            self.beta,
            self._gamma_output(),
            out,
            shape=self.shape,
            eps_shift=nearest_eps(self.eps),
            norm_bits=LIMITS[self.platform].norm_bits,
        )

    def _gamma_output(self, *, observe: bool = True) -> ops.Output:
        gamma = torch.ones(self.shape, device=self.quantizer.scale.device) if self.gamma is None else self.gamma
        return self.quantizer.weight_output(gamma, observe=observe)

    def write(self, tape: Tape, x: ops.Coded, out: ops.Coded, y: Tensor, bits: int, relu: bool, name: str) -> None:
        """Record the node, and what brings operand and scale into the form that the chip takes."""
        self._check(tape, name)
        gamma, beta, w_scale = self._parameters(x)
        scale = float(x.scale)
        source: Operand = x.value
        n, rank, shift = math.prod(self.shape), y.dim(), nearest_eps(self.eps)
        if shift:  # the chip's eps is 1e-5 in units of the declared scale: the same codes, declared 2**shift finer
            declared, finer = scale * 2.0**shift, tape.value(f"{name}.eps")
            write_scalar_product(tape, x.value, scale, 1, 2.0**shift, finer, declared, name)
            source, scale = finer, declared
        rows = rank >= 3 and len(self.shape) <= 2 and math.prod(y.shape[:-3]) == 1
        if not rows:  # the engine counts rows on the two axes in front of the normalised one
            three = tape.value(f"{name}.rows")
            tape.node("Reshape", [source, np.array([1, -1, n], np.int64)], [three], hint=name)
            source = three
        attributes = common_attributes(tape) | {
            "x_bits": 8,
            "w_bits": min(self.quantizer.bits, 8),  # the packer knows 4 and 8; venus' 16 follow from the initializer
            "o_bits": bits,
            "scale_x": scale,
            "scale_w": float(w_scale),
            "scale_o": float(out.scale),
        }
        then: list[tuple[str, list[Operand], dict[str, Any]]] = [("Relu", [], {})] if relu else []
        if not rows:
            then.append(("Reshape", [np.array([-1, *y.shape[1:]], np.int64)], {}))
        write_node(tape, "LayerNormInt", [source, gamma, beta], attributes, y, then, name)

    def _parameters(self, x: ops.Coded) -> tuple[Any, Any, Tensor]:
        spec = self._gamma_output(observe=False)
        gamma, beta = (None if t is None else t.detach().float() for t in (self.gamma, self.beta))
        w = quantize_gamma(x.scale, gamma, beta, spec, self.shape, False)
        wide = LIMITS[self.platform].gamma_bits > 8
        codes = w.codes.cpu().numpy().reshape(-1).astype(np.int16 if wide else np.int8)
        norm = torch.tensor(2.0**NORM_EXP2)
        offsets = torch.zeros(w.codes.shape) if beta is None else beta.cpu()
        return codes, ops.quantize_bias(offsets, norm, w.scale.cpu()).numpy().reshape(-1), w.scale

    def _check(self, tape: Tape, name: str) -> None:
        for what, t in (("weight", self.gamma), ("bias", self.beta)):
            if tape.has(t):
                tape.violations.append(f"{name}: {what} computed from the inputs, a constant")


def _gamma_quantizer(quant: LayerSettings) -> Quantizer:
    """Quantizer of gamma: venus stores 16 bits whatever the configured width."""
    stored = LIMITS[quant.platform].gamma_bits
    return weight_quantizer(quant if stored == 8 else replace(quant, weight_bits=stored))


class LayerNormInt(QuantLayer, nn.LayerNorm):
    """LayerNorm in the chip's integers; as ``torch.nn.LayerNorm`` otherwise.

    The chips add ``1e-5 * 4**k`` to the variance, k an integer: the one nearest to ``eps`` in ratio is used (k = 0 for
    torch's default).

    Args:
        *args: As ``torch.nn.LayerNorm``.
        **kwargs: Widths, limits and ``quant``, as :class:`linger.nn.base.Converted` has them.

    Shape:
        x ``(..., *normalized_shape)`` -> same, float32 on a power-of-two grid, tagged with its format.

    Source: docs/numerics.md, "LayerNormInt".
    """

    def __init__(self, *args: Any, momentum: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if momentum != 0.1:
            raise UnsupportedError(f"LayerNormInt: momentum={momentum}: running values move by 0.1 in every layer")

    def set_quantizers(self, quant: LayerSettings) -> None:
        """Create the quantizers on the layer's device."""
        super().set_quantizers(quant)
        self.weight_quantizer = _gamma_quantizer(quant)
        self.name_quantizers()

    def node_facts(self, platform: str) -> NodeFacts:
        """The node of this layer, as far as it does not depend on the input."""
        n = math.prod(self.normalized_shape)
        row = LIMITS[platform]
        gamma = TensorFacts((n,), row.gamma_bits, constant=True)
        attributes = {
            "x_bits": self.quant.input_bits,
            "w_bits": min(self.quant.weight_bits, 8),
            "o_bits": self.quant.output_bits,
        }
        inputs = (TensorFacts(), gamma, TensorFacts((n,), 32, constant=True))
        return NodeFacts("LayerNormInt", platform, self.__dict__.get("_linger_name", ""), attributes, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Chip integers in forward; the gradients are those of the float layer, identity through the integer steps."""
        with torch._C.DisableTorchFunction():
            if self.weight is not None and (self.training or in_float()):
                clamp_weight_once(self.weight, self.weight_quantizer, self.quant.clamp)
            shape = tuple(int(n) for n in self.normalized_shape)
            norm = _Norm(self.weight_quantizer, self.weight, self.bias, shape, self.eps, self.quant.platform)
            if in_float():
                calibrate_input(x, self.input_quantizer)
                zeros, spec = operand_zeros(x, self.input_quantizer), self.output_quantizer.output()
                highest = lambda: norm.integers(zeros(), spec._replace(observe=False)).scale  # noqa: E731
                return emit_calibrated(norm.real(x), self.output_quantizer, highest, relu=self.fused_relu)
            operand = accept(x, self.input_quantizer, 8)
            note_use(self.output_quantizer)
            out = norm.integers(operand, self.output_quantizer.output(clamp=self.output_clamp, relu=self.fused_relu))
            y = emit(out, self.output_quantizer, relu=self.fused_relu)
            tape = current_tape()
            if tape is not None:
                name = self.__dict__.get("_linger_name", "") or "layer_norm"
                norm.write(tape, operand, out, y, self.output_quantizer.bits, self.fused_relu, name)
            return ahead(y, self)


class LayerNormCall(FunctionalLayer):
    """``F.layer_norm`` at one call site, with parameters that the caller holds; as :class:`LayerNormInt` otherwise.

    Source: docs/numerics.md, "LayerNormInt".
    """

    operator = "layer_norm"

    def __init__(self, n_inputs: int, quant: LayerSettings) -> None:
        super().__init__(n_inputs, quant)
        self.weight_quantizer = _gamma_quantizer(quant)

    def forward(
        self, x: Tensor, shape: tuple[int, ...], gamma: Tensor | None, beta: Tensor | None, eps: float
    ) -> Tensor:
        """Chip integers in forward; the gradients of the float operator."""
        norm = _Norm(self.weight_quantizer, gamma, beta, shape, eps, self.quant.platform)
        bits = self.output_quantizer.bits
        return self.compute(
            [x],
            norm.real,
            lambda xs, out: norm.integers(xs[0], out),
            lambda tape, xs, out, y: norm.write(tape, xs[0], out, y, bits, False, self.name),
        )


@factory("layer_norm")
def _make(n_inputs: int, quant: Any) -> LayerNormCall:
    return LayerNormCall(n_inputs, quant)


_NAMES = ("input", "normalized_shape", "weight", "bias", "eps")


@handles("layer_norm", "F.layer_norm torch.layer_norm")
def _layer_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    x, fmt = named["input"], info(named["input"])
    if fmt is None or fmt.bits > 8:
        return NotImplemented
    shape = named["normalized_shape"]
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    gamma, beta = named.get("weight"), named.get("bias")
    return operator_at_site("layer_norm", 1)(x, sizes, gamma, beta, float(named.get("eps", 1e-5)))


__all__ = ["LayerNormCall", "LayerNormInt"]
