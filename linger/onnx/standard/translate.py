"""A file of ours, node by node, in standard operators of opset 13."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from linger.onnx.float_findings import float_nodes
from linger.onnx.loader import NodeDef, ValueDef, import_onnx
from linger.onnx.runner import code_types_of, follows_length
from linger.runtime.graph import reader_of

from . import elementwise, functions, norm, pool, recurrent, shape, sums  # noqa: F401  they register their writers
from .floats import OPSET, keep
from .graph import StandardGraph
from .node import EXACT_FORM, QDQ_FORM, Node, Value, Values, code_bits, writer_of
from .trial import TrialRunner

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

IR_VERSION = 7  # read by onnxruntime from 1.4 on
FORM = "linger.form"
# operators whose writers take a ReLU along
_FUSING = frozenset(
    """Conv2dInt QConv2d QConvBN2d Conv1dInt QConv1d ConvTranspose2dInt QConvTranspose2d LinearInt QLinear BmmInt QBmm
    BatchNorm2dInt QBatchNorm2d iqAdd QAdd iqSub iqMul QMul iqCat QCat Requant AvgPool2dInt QAvgPool2d LayerNormInt
    QLayerNorm2d""".split()
)
_CODES = {8: 3, 16: 5, 32: 6}  # width -> elem_type
_ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9}
_QUANT_MODE = "floor_add"


def to_standard(
    model: str | os.PathLike[str] | bytes | ModelProto, *, inputs: str = "floats", outputs: str = "floats"
) -> ModelProto:
    """The same network in standard ONNX operators: the chip's integers in any runtime with exact float32 sums.

    Codes travel as integers in float32 (8 and 16 bits) or float64 (32 bits); every sum stays where each order of addition
    is exact. Runs in onnxruntime from 1.16 on, on the CPU, with any optimisation level.

    Args:
        model: A file of ``linger.onnx.export`` or of the packer's contract, old or new names: path, bytes, or ModelProto.
        inputs: ``"floats"`` as in the file, or ``"codes"``: inputs behind which a Quant stands take its integers, int8,
            int16 or int32.
        outputs: ``"floats"`` as in the file, or ``"codes"``: the integers in front of each final Dequant.

    Returns:
        The model; opset 13, IR version 7. ``onnx.save`` writes it.

    Raises:
        ModelError: The file is refused, as ``OnnxRunner`` refuses it.
        UnsupportedError: A node has no exact form: iqDiv of two 32-bit tensors, average windows of 2**15 elements or more,
            another ``quant_mode`` than floor_add; the message names it.
        ValueError: ``inputs`` or ``outputs`` is something else.

    Warns:
        UserWarning: Float operators stay in the file: another library computes them, so codes behind them may move by one.

    Example:
        >>> import onnx                                                      # doctest: +SKIP
        >>> onnx.save(linger.onnx.to_standard("net.onnx"), "standard.onnx")  # doctest: +SKIP

    Source: docs/onnx.md.
    """
    for name, given in (("inputs", inputs), ("outputs", outputs)):
        if given not in ("floats", "codes"):
            raise ValueError(f"to_standard: {name} must be 'floats' or 'codes', got {given!r}")
    proto, runner = opened(model)
    return Translation(runner, EXACT_FORM, inputs == "codes").model(proto, outputs == "codes")


def opened(model: str | os.PathLike[str] | bytes | ModelProto) -> tuple[ModelProto, TrialRunner]:
    """A model, checked, and as it was given."""
    onnx = import_onnx()
    data = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    runner = TrialRunner(data)
    proto = model if isinstance(model, onnx.ModelProto) else onnx.ModelProto()
    if not isinstance(model, onnx.ModelProto):
        if not isinstance(data, bytes):
            with open(data, "rb") as file:
                data = file.read()
        proto.ParseFromString(data)
    return proto, runner


class Translation:
    """One file on its way into standard operators."""

    def __init__(self, runner: TrialRunner, form: str, codes_in: bool = False) -> None:
        self.source, self.form = runner.graph, form
        self.g = StandardGraph()
        self.g.reserve([port.name for port in (*self.source.inputs, *self.source.outputs)])
        self.values = Values(self.source, runner.known(), self.g)
        self.inputs = [self._input(port, codes_in) for port in self.source.inputs]
        self.rectified = self._rectified()
        self._warn_of_floats()

    def _input(self, port: ValueDef, codes_in: bool) -> ValueInfoProto:
        types = code_types_of(self.source)
        bits = code_bits(port.dtype) if port.dtype.itemsize < 4 else 0
        if codes_in and port.name in types:
            bits = code_bits(types[port.name])
        element = _CODES[bits] if bits else _ELEMENTS[str(port.dtype).removeprefix("torch.")]
        self.g.scope = port.name
        self.values.written[port.name] = Value(port.name, 0)
        if bits:
            self.values.written[port.name] = Value(self.g.decode(port.name, bits), bits)
        return _port(port, element)

    def _rectified(self) -> set[str]:
        """Tensors that only a ReLU reads, behind an operator that takes it along."""
        readers = Counter(name for node in self.source.nodes for name in node.inputs)
        kept = {port.name for port in self.source.outputs}
        fused = {node.outputs[0] for node in self.source.nodes if node.op_type in _FUSING}
        return {
            node.inputs[0]
            for node in self.source.nodes
            if node.op_type == "Relu"
            and node.inputs[0] in fused
            and readers[node.inputs[0]] == 1
            and node.inputs[0] not in kept
        }

    def _warn_of_floats(self) -> None:
        floats = {port.name for port in self.source.inputs if port.dtype.is_floating_point}
        found = float_nodes(self.source.nodes, floats)
        if found:
            names = ", ".join(f"{node.op_type} {node.name!r}" for node in found[:5])
            more = f" and {len(found) - 5} more" * (len(found) > 5)
            warnings.warn(
                f"linger: to_{self.form}: {names}{more} compute in float: another library rounds them otherwise, so codes "
                "behind them may move by one",
                stacklevel=4,
            )

    def model(
        self, source: ModelProto, codes_out: bool = False, metadata: Mapping[str, str] | None = None
    ) -> ModelProto:
        """All nodes by their writers; the metadata of the file that they come from."""
        from onnx import checker, helper

        for definition in self.source.nodes:
            self._write(definition)
        before = {node.outputs[0]: node.inputs[0] for node in self.source.nodes if node.op_type == "Dequant"}
        loose = follows_length(self.source)
        outputs = [self._output(port, before if codes_out else {}, loose) for port in self.source.outputs]
        graph = helper.make_graph(self.g.nodes, source.graph.name, self.inputs, outputs, self.g.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="linger")
        model.producer_version = source.producer_version
        known = {entry.key: entry.value for entry in source.metadata_props}
        helper.set_model_props(
            model, known | {"platform": self.source.platform, FORM: self.form} | dict(metadata or {})
        )
        checker.check_model(model)
        return model

    def _write(self, definition: NodeDef) -> None:
        self.g.scope = definition.name
        node = Node(self.values, definition, definition.outputs[0] in self.rectified, self.form)
        mode = definition.attributes.get("quant_mode", _QUANT_MODE)
        if mode != _QUANT_MODE:
            node.refuse(f"quant_mode {mode!r}; the chips round half up, {_QUANT_MODE}")
        writer = writer_of(self.form, definition.op_type)
        if writer is None and (reader_of(definition.op_type) is not None and node.is_quantized()):
            node.refuse("it has no form in QuantizeLinear and DequantizeLinear")
        (writer or keep)(node)

    def _output(self, port: ValueDef, before: dict[str, str], loose: set[str]) -> ValueInfoProto:
        """A port in the shape that the file declares: the engine keeps two dimensions where a file may say one."""
        g, value = self.g, self.values.value(before.get(port.name, port.name))
        g.scope = ""
        name, element = value.name, _ELEMENTS[str(self.values.known[port.name].dtype).removeprefix("torch.")]
        if self.form == QDQ_FORM and element in _CODES.values() and not value.bits:
            element = _ELEMENTS["float32"]  # the reals behind integers that the file gives without a Dequant
        if value.bits:
            name, element = g.encode(name, value.bits), _CODES[value.bits]
        declared, known = port.shape, self.values.known[port.name].shape
        if declared and None not in declared and port.name not in loose and declared != known:
            name = g.op("Reshape", name, g.ints(*(size or 0 for size in declared)))
        g.op("Identity", name, out=port.name)
        return _port(port, element, known)


def _port(port: ValueDef, element: int, known: Sequence[int | None] = ()) -> ValueInfoProto:
    """A port as the file declares it, else as it is ``known``."""
    from onnx import helper

    dims: Sequence[int | str | None] = known
    if port.shape is not None:
        dims = [symbol or size for size, symbol in zip(port.shape, port.symbols, strict=True)]
    return helper.make_tensor_value_info(port.name, element, dims)


__all__ = ["Translation", "opened", "to_standard"]
