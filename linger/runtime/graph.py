"""The node registry: what one node of an exported file does, written next to the module that exports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor


class CodeValue(NamedTuple):
    """An integer tensor of a running file and its format.

    Attributes:
        codes: int8, int16, int32 (or int64 indices), logical ONNX layout.
        exp2: log2 of the scale, so that real value = code / 2**exp2; None while no node has given a scale.
        bits: Width of one code: 8, 16, 32 (64 for indices).
    """

    codes: Tensor
    exp2: int | None
    bits: int


class NodeReader(Protocol):
    """One node while a file runs: checked access to attributes and inputs, and the place for outputs.

    Every accessor raises ``linger.onnx.ModelError``, naming the node, when the file does not hold what is asked for.
    An attribute is found under its synonyms too (``x_bits`` = ``data_bits``, ``w_bits`` = ``parameter_bits``,
    ``strides`` = ``stride``, ``scale_x`` = ``scale_i``). A default of None makes an attribute mandatory.
    """

    @property
    def op_type(self) -> str:
        """Operator name as written in the file."""

    @property
    def name(self) -> str:
        """Node name, or ``<op_type>_<first output>`` where the file gives none."""

    @property
    def platform(self) -> str:
        """Chip of the file: ``venus``, ``arcs`` or ``venusA`` (``mars`` reads as ``arcs``)."""

    @property
    def opset(self) -> int:
        """Version of the standard operator set that the file declares."""

    @property
    def n_inputs(self) -> int:
        """Number of inputs, omitted ones in the middle included."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""

    def has(self, name: str) -> bool:
        """Whether the attribute is written."""

    def integer(self, name: str, default: int | None = None) -> int:
        """Integer attribute."""

    def integers(self, name: str, length: int | None = None, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """List-of-integers attribute, of ``length`` elements where given; one integer counts as a list of one."""

    def real(self, name: str, default: float | None = None) -> float:
        """Float attribute (finite); a list of one counts as its element."""

    def text(self, name: str, default: str | None = None) -> str:
        """Text attribute."""

    def scale(self, name: str) -> int:
        """Exponent of a scale attribute, which must be a power of two."""

    def is_float(self, i: int) -> bool:
        """Whether input ``i`` is a float tensor."""

    def has_input(self, i: int) -> bool:
        """Whether input ``i`` is wired."""

    def data(self, i: int) -> Tensor:
        """Input ``i`` of any kind, as it is."""

    def codes(self, i: int) -> CodeValue:
        """Integer input ``i``."""

    def optional(self, i: int) -> CodeValue | None:
        """Integer input ``i``, or None where it is not wired."""

    def constant(self, i: int) -> Tensor:
        """Input ``i``, which must be an initializer or a Constant."""

    def floats(self, i: int) -> Tensor:
        """Float32 input ``i``: a graph input, the output of a Dequant or of a float operator."""

    def match(self, i: int, exp2: int) -> None:
        """Require that input ``i`` was produced with scale ``2**exp2``; a scale that is still open becomes this one."""

    def room(self, shape: tuple[int, ...], work: int = 1) -> None:
        """Ask for an output of ``shape``, ``work`` steps per element, before it is computed: untrusted sizes are bounded."""

    def put(self, i: int, codes: Tensor, exp2: int | None) -> None:
        """Store integer output ``i`` with scale ``2**exp2``."""

    def put_float(self, i: int, value: Tensor) -> None:
        """Store float32 output ``i``."""

    def put_dequantized(self, i: int, value: Tensor, codes: Tensor) -> None:
        """Store float32 output ``i`` together with the integers it was made from."""

    def put_like(self, i: int, value: Tensor, source: int) -> None:
        """Store output ``i`` in the format of input ``source``."""

    def error(self, message: str) -> Exception:
        """The ModelError to raise: ``message`` behind the node's type and name."""


Reader = Callable[[NodeReader], None]
_readers: dict[str, Reader] = {}


def reads(*op_types: str) -> Callable[[Reader], Reader]:
    """Register the decorated function as the reader of these operator names.

    Args:
        op_types: Names as written in files, both vocabularies (``"Conv2dInt", "QConv2d"``).

    Raises:
        ValueError: One of the names has a reader already.
    """

    def register(reader: Reader) -> Reader:
        for op_type in op_types:
            if _readers.get(op_type, reader) is not reader:
                raise ValueError(f"reads: {op_type} has a reader already")
            _readers[op_type] = reader
        return reader

    return register


def reader_of(op_type: str) -> Reader | None:
    """The function registered for an operator name, or None."""
    return _readers.get(op_type)
