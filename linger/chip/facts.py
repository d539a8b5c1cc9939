"""What a rule knows about one node of a file: operator, attributes, and the shapes and widths around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .engines import SHIPPED, Engine, engine_of
from .platforms import Limits, limits_of
from .violation import Severity, Violation

FLOAT = 0

# other names that the packer reads -> ours
ALIASES = {
    "QConv2d": "Conv2dInt",
    "QConvBN2d": "Conv2dInt",
    "QConv1d": "Conv1dInt",
    "QConvTranspose2d": "ConvTranspose2dInt",
    "QLinear": "LinearInt",
    "QBatchNorm2d": "BatchNorm2dInt",
    "QAvgPool2d": "AvgPool2dInt",
    "QBmm": "BmmInt",
    "QAdd": "iqAdd",
    "QMul": "iqMul",
    "QCat": "iqCat",
    "QSigmoid": "iqSigmoid",
    "QTanh": "iqTanh",
    "QSoftmax": "SoftmaxInt",
    "QLSTM": "LSTMInt",
    "QGRU": "GRUInt",
    "QLayerNorm2d": "LayerNormInt",
}

_SYNONYMS = {
    "x_bits": "data_bits",
    "w_bits": "parameter_bits",
    "strides": "stride",
    "scale_x": "scale_i",
    "dim": "axis",
}
_SYNONYMS |= {b: a for a, b in _SYNONYMS.items()}


@dataclass(frozen=True)
class TensorFacts:
    """One input or output of a node.

    Args:
        shape: Sizes, None where they are not known.
        bits: Width of its codes; ``FLOAT`` for a float tensor, None where it is not known.
        constant: An initializer.
        producer: Operator that writes it; empty for inputs of the graph and initializers.
        output: The graph gives it out (behind its Dequant).
        scalar: The value of a constant of one element.
    """

    shape: tuple[int, ...] | None = None
    bits: int | None = None
    constant: bool = False
    producer: str = ""
    output: bool = False
    scalar: float | None = None

    @property
    def size(self) -> int | None:
        """Number of elements."""
        return None if self.shape is None else math.prod(self.shape)


@dataclass(frozen=True)
class NodeFacts:
    """One node of a file, as the rules of the chips see it.

    Args:
        op_type: Operator as the packer knows it (``Conv2dInt``, not ``QConv2d``).
        platform: ``arcs``, ``mars``, ``venusA`` or ``venus``.
        layer: Qualified name of the layer, for the messages.
        attributes: As written.
        inputs: One entry per input; None where an input is left out.
        outputs: One entry per output.
        engine: Release of the engine; None: the shipped one.
    """

    op_type: str
    platform: str
    layer: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[TensorFacts | None, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    engine: str | None = None

    @property
    def revision(self) -> Engine:
        """Row of the engine on this platform."""
        return engine_of(self.engine, self.platform)

    @property
    def chip(self) -> Limits:
        """Row of the platform."""
        return limits_of(self.platform)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute under any of its names."""
        for key in (name, _SYNONYMS.get(name)):
            if key is not None and key in self.attributes:
                return self.attributes[key]
        return default

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A list attribute."""
        value = self.get(name)
        if value is None:
            return default
        return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)

    def exp2(self, name: str) -> int | None:
        """Exponent of a scale; None where it is not written or not a power of two."""
        value = self.get(name)
        if isinstance(value, (list, tuple)):
            value = value[0] if value else None
        if not isinstance(value, (int, float)) or not (value > 0 and math.isfinite(value)):
            return None
        mantissa, exponent = math.frexp(value)
        return exponent - 1 if mantissa == 0.5 else None

    def has(self, i: int) -> bool:
        """Whether input ``i`` is wired."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def tensor(self, i: int) -> TensorFacts:
        """Input ``i``; nothing is known about one that is not wired."""
        found = self.inputs[i] if i < len(self.inputs) else None
        return TensorFacts() if found is None else found

    def shape(self, i: int, rank: int | None = None) -> tuple[int, ...] | None:
        """Shape of input ``i`` where it is known (and has ``rank`` axes)."""
        shape = self.tensor(i).shape
        return shape if shape is None or rank is None or len(shape) == rank else None

    def error(self, what: str, value: object, limit: object, remedy: str = "", *, refused: bool = True) -> Violation:
        """The chip cannot run this node, or computes something else; ``refused`` says whether export refuses to write it."""
        return Violation(self.layer, what, str(value), str(limit), remedy, "error", refused, self.op_type)

    def broken(self, reason: str, remedy: str) -> Violation:
        """The operator itself does not work on this chip."""
        return self.error("operator", self.op_type, reason, remedy)

    def warning(self, what: str, value: object, limit: object, remedy: str = "") -> Violation:
        """Right or wrong depending on the data or, on an engine whose faults are not known, on the memory plan."""
        return Violation(self.layer, what, str(value), str(limit), remedy, "warning", False, self.op_type)

    def note(self, what: str, value: object, limit: object, pack: str = "") -> Violation:
        """Right, but worth knowing; ``pack`` is the option of the packer with which it is."""
        remedy = f"pack with {pack}" if pack else ""
        return Violation(self.layer, what, str(value), str(limit), remedy, "note", False, self.op_type, pack)

    def hazard(self, what: str, value: object, limit: object, remedy: str = "") -> Violation:
        """Wrong on the shipped engine; on later ones, whose faults are not known, it depends on the memory plan."""
        known = self.engine in (None, SHIPPED)
        severity: Severity = "error" if known else "warning"
        return Violation(self.layer, what, str(value), str(limit), remedy, severity, False, self.op_type)


Rule = Callable[[NodeFacts], Iterator[Violation]]
RULES: dict[str, list[Rule]] = {}


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register the decorated generator as a rule for nodes of these operators."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES.setdefault(op_type, []).append(function)
        return function

    return register


def up(value: int, to: int) -> int:
    """The next multiple of ``to``."""
    return -(-value // to) * to
