"""What is known about each layer and operator after a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from linger.quantizers import WeightCut

from .sums import Energy, Values

__all__ = ["Measurement", "OperandRow", "Row", "WeightRow"]


@dataclass
class OperandRow:
    """One tensor that a sum or concatenation reads.

    Attributes:
        source: Layer or operator that made it, ``input``, or "" where it is not known.
        bits_lost: Bits that it loses where it is brought to the result's coarser scale.
        energy: Its values, and what is left of them at the result's scale.
    """

    source: str = ""
    bits_lost: float = 0.0
    energy: Energy = field(default_factory=Energy)


@dataclass
class WeightRow:
    """One weight of a layer.

    Attributes:
        name: Name of its parameter.
        low, high: Range of the float weight.
        bits, scale: Format of its codes; the scale is None where nothing has been seen yet.
        energy: The float weight, and its codes.
        saturated: Share of elements beyond the codes.
        cut: What the weight limit cuts, or has cut.
        factors: Largest absolute element of each output channel over the median channel's.
    """

    name: str
    low: float
    high: float
    bits: int
    scale: float | None
    energy: Energy
    saturated: float = 0.0
    cut: WeightCut = field(default_factory=WeightCut)
    factors: list[float] = field(default_factory=list)


@dataclass
class Row:
    """One layer or operator, over all batches.

    Attributes:
        name: Qualified name.
        kind: Class of a layer, or name of an operator.
        operator: Whether user code calls it.
        place: ``file:line`` of an operator, where it is known.
        inputs: Layers and operators whose results it reads; ``input`` is the network's.
        bits, scale: Format of the result's codes.
        input_bits: Width of its operands.
        own: Its float form on the operands that it got, and its result.
        model: The float model's result at this place, and its result.
        alone: The float model's outputs, and those with this layer alone in integers.
        values: Its float form's values, and what became of them.
        operands: Of a sum or concatenation.
        weights: Of a layer.
        relu: A ReLU behind it is part of it.
    """

    name: str
    kind: str
    operator: bool
    bits: int = 0
    scale: float = 1.0
    input_bits: int = 0
    place: str = ""
    inputs: list[str] = field(default_factory=list)
    own: Energy = field(default_factory=Energy)
    model: Energy = field(default_factory=Energy)
    alone: Energy = field(default_factory=Energy)
    values: Values = field(default_factory=Values)
    operands: list[OperandRow] = field(default_factory=list)
    weights: list[WeightRow] = field(default_factory=list)
    relu: bool = False

    @property
    def step(self) -> float:
        """Distance of two codes in real units."""
        return 1.0 / self.scale

    @property
    def reach(self) -> float:
        """The largest value that the codes hold."""
        return ((1 << (self.bits - 1)) - 1) / self.scale if self.bits else 0.0


@dataclass
class Measurement:
    """Everything that :func:`measure` found.

    Attributes:
        rows: By qualified name, in the order of the forward.
        output: The float model's outputs, and the model's.
        outputs: Layers and operators that the outputs come from.
        batches: How many were seen.
        losses: Loss of the first batch in integers and in float, where a loss was given.
        islands: Operators that compute in float behind quantized tensors.
        left_float: Layers that were not converted: name, class, why.
        unseen: Quantizers that ran without having seen data.
        settings: The model's.
        fusions: Layer -> BatchNorm that was folded into it.
        referred: Whether a reference model was given.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    output: Energy = field(default_factory=Energy)
    outputs: list[str] = field(default_factory=list)
    batches: int = 0
    losses: tuple[float, float] | None = None
    islands: list[Any] = field(default_factory=list)
    left_float: list[tuple[str, str, str]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    settings: Any = None
    fusions: dict[str, str] = field(default_factory=dict)
    referred: bool = False
