"""``linger.onnx.export``: one eval forward under a tape, written as the file the packer takes."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor, nn

from linger.chip import Violation, coarse_average, engine_of, file_platform
from linger.convert.findings import findings, sentences, unsaid
from linger.convert.prepare import GATHER, check_whole
from linger.errors import ExportError
from linger.files import replaced
from linger.quantizers import eagerly
from linger.runtime import Ahead, ChipOutput, Node, Tape, Value, info, state

from .arguments import arguments, copied, tensors_in
from .engine import rewrite
from .engine.pack import packing, write_beside
from .float_findings import float_inputs, float_nodes, float_operator
from .metadata import origin
from .pack_report import PackReport, pack_report
from .serialise import GraphPort, build_model, follow_inputs, live_nodes, open_axes_of
from .split import split
from .states import as_state, check_states, state_formats, warn_untouched
from .validate import validate

if TYPE_CHECKING:
    from onnx import ModelProto

    from .proof import Proof

_log = logging.getLogger("linger")
_OWN = "linger"

_OBSOLETE = frozenset(
    """export_params verbose training aten export_raw_ir operator_export_type operator_export_types _retain_param_name
    do_constant_folding example_outputs strip_doc_string keep_initializers_as_inputs custom_opsets enable_onnx_checker
    use_external_data_format is_update_dequant is_scoped_info debug_dump dynamo external_data fallback optimize verify
    export_modules_as_functions profile dump_exported_program artifacts_dir autograd_inlining""".split()
)


def export(
    model: nn.Module,
    args: Any,
    f: str | os.PathLike[str] | BinaryIO,
    *,
    kwargs: dict[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int = 12,
    dynamic_axes: Any = None,
    is_input_quant: bool = False,
    states: Mapping[str, str] | None = None,
    engine: str | None = None,
    strict: bool = False,
    report: bool = False,
    split_float: bool = False,
    target: str | None = None,
    prove: bool = False,
    **obsolete: Any,
) -> PackReport | Proof | None:
    """Write an initialised model as the ONNX file that the packer takes.

    Works in train or eval mode, with or without ``no_grad``, leaves the model untouched, writes the same bytes every time.
    The nodes have forms that the model's engine computes exactly. What it cannot compute is written, warned of and recorded
    in the metadata; ``<name>.pack.txt`` beside the file says so, too, and which options the packer needs.

    Args:
        model: Result of ``linger.init``.
        args: One tensor, a tuple of positional arguments, or a dict of keyword arguments. A dict at the end of a tuple is
            keywords when its keys are parameters of the forward, else a positional argument.
        kwargs: Keyword arguments, as ``torch.onnx.export`` takes them; all of ``args`` is then positional.
        f: Path or writable binary object. A path is written to a temporary name first and then renamed.
        input_names: Names of the tensors in ``args`` and then ``kwargs``, in order.
        output_names: Names of the outputs, in order.
        opset_version: 11 or 12.
        dynamic_axes: ``{name: {axis: symbol}}`` or ``{name: [axes]}``, as ``torch.onnx.export`` takes it. An output that is
            not named follows the inputs where axis and size are the same.
        is_input_quant: Graph inputs are int8, without Quant nodes.
        states: ``{input name: output name}`` of inputs that are earlier outputs (caches of streaming models): such an input
            has the scale of its output, so that the file in a loop computes what the model does in a loop.
        engine: Release of the engine to write for; None: the model's.
        strict: Refuse what the engine does not compute, instead of writing it with a warning.
        report: Return what packing the file will take, as :func:`linger.onnx.pack_report` says it.
        split_float: Write what computes in float before the first Quant to ``<name>.before.onnx`` and what does so behind the
            last Dequant to ``<name>.after.onnx``; the application runs them, and the outputs of one are inputs of the next.
        target: ``"linger"``, the packer's operators; ``"linger3"``, the same with the names of 3.x; ``"standard"``, standard
            operators that give the chip's integers in onnxruntime; ``"qdq"``, QuantizeLinear and DequantizeLinear for other
            vendors' compilers, which are close to the chip. None: ``"qdq"`` with ``quant_method: ONNX``, else ``"linger"``.
        prove: Run evaluation, ``OnnxRunner`` and onnxruntime on ``args`` and return the :class:`Proof` that all integers agree.
        **obsolete: Arguments of older exporters; accepted and ignored.

    Raises:
        ExportError: Something has no form in the file, a layer has seen no data, a parameter is not finite, the chip
            cannot run a layer, the model's arithmetic is not that of ``engine``, or ``prove`` finds integers that differ. The
            message names module, operator, file and line.
        UnsupportedError: An operator has no form in ``target``.
        TypeError: An unknown argument, or one of the wrong kind; tensors in something else than tuples, lists, dicts and
            dataclasses.
        OSError: The file cannot be written.

    Source: docs/numerics.md, "Files".
    """
    unknown = sorted(set(obsolete) - _OBSOLETE)
    if unknown:
        raise TypeError(f"export: unknown argument {unknown[0]!r}")
    if opset_version not in (11, 12):
        raise ExportError(f"export: opset_version must be 11 or 12 (axes are attributes there), got {opset_version!r}")
    _check_arguments(model, f, {"input_names": input_names, "output_names": output_names})
    if split_float and not isinstance(f, (str, os.PathLike)):
        raise TypeError(f"export: split_float writes files beside f, which must be a path then, got {type(f).__name__}")
    settings = model.__dict__.get("_linger_settings")
    if settings is None:
        raise ExportError(
            "export: the model is not initialised; call linger.init(model, ...) first, then train or calibrate"
        )
    check_whole(model, "export", GATHER)
    _check_finite(model)
    target = _target(target, settings.quant_method, split_float, report and prove)
    from .write_float import write_float  # its tables are only needed here

    wanted = settings.engine if engine is None else engine
    engine_of(wanted, settings.platform)
    tape = Tape(file_platform(settings.platform), write_float)
    tape.parameters = {id(t): n for n, t in [*model.named_parameters(), *model.named_buffers()]}
    loop = check_states(states, input_names or (), output_names or ())
    ports = record_forward(model, args, tape, list(input_names or []), list(output_names or []), kwargs, loop)
    if tape.without_data:
        raise ExportError(
            f"export: these quantizers have seen no data (running_x > 0 fails): {', '.join(tape.without_data)}. Train the "
            "model, calibrate it (with linger.calibration(): model(x)), or load a checkpoint with their statistics"
        )
    check_engine(tape, settings.engine, wanted)
    names = {p.name for p in ports[1]}
    layers = {name for name, _ in model.named_modules()}
    open_axes = open_axes_of(*ports, dynamic_axes or {})
    symbols = {s: axis for p in ports[0] for axis, s in open_axes[p.name].items()}
    tape.nodes = live_nodes(tape, names)
    if all(axis == 0 for axis in symbols.values()):
        rewrite(tape, names, wanted, open_batch=bool(symbols))
    floats = float_nodes(tape.nodes, float_inputs(ports[0], tape))
    before, chip, after = split(tape, *ports, floats if split_float else ())
    borders = [part for part in (before, after) if part is not None]
    moved = {id(node) for part in borders for node in part.nodes}
    floats = [node for node in floats if id(node) not in moved]
    found = findings(tape, chip.nodes, {p.name for p in chip.outputs}, layers, settings.platform, wanted)
    islands = dict.fromkeys(float_operator(node, settings.platform) for node in floats)
    refused = [str(v) for v in (*found, *islands) if v.refused or strict and v.severity == "error"]
    if refused:
        raise ExportError(f"export: {settings.platform} cannot run {len(refused)} layer(s):\n  " + "\n  ".join(refused))
    ranges = {s: range_of(s, axis, ports[0], open_axes) for s, axis in symbols.items()}
    packed = packing(tape.platform, wanted, (*found, *islands), ranges)
    follow_inputs(open_axes, ports[0], [p for part in borders for p in (*part.inputs, *part.outputs)])
    codes = {p.name for p in ports[0]} if is_input_quant else ()
    known = origin(model, settings, tape.platform)
    proto = build_model(tape, *chip.content, opset_version, open_axes, codes, known | packed.metadata)
    validate(proto)
    sides = [build_model(tape, *part.content, opset_version, open_axes, (), known) for part in borders]
    _warn(settings, found)
    warn_untouched(tape.nodes, (p.name for p in ports[0]))
    _report_conditions(model, settings.platform, found)
    _report_floats(floats)
    written = proto if target == _OWN else _targets()[target](proto)
    proof = _proof(model, args, kwargs, proto) if prove else None
    _write(written, f)
    if isinstance(f, (str, os.PathLike)) and target in (_OWN, "linger3"):
        for part, side in zip(borders, sides, strict=True):
            _write(side, part.path(f))
        write_beside(f, packed, *(part.path(f).name if part else "" for part in (before, after)))
    return proof if prove else pack_report(proto.SerializeToString(deterministic=True)) if report else None


def _targets() -> Mapping[str, Callable[[ModelProto], ModelProto]]:
    from .standard import TARGETS  # only needed here

    return TARGETS


def _target(given: str | None, method: str, split_float: bool, two_results: bool) -> str:
    """The form that a file is written in."""
    target = ("qdq" if method == "ONNX" else _OWN) if given is None else given
    if target != _OWN and target not in _targets():
        raise ValueError(f"export: target must be one of {', '.join((_OWN, *_targets()))}, got {given!r}")
    if split_float and target != _OWN:
        raise ValueError(
            f"export: split_float writes files for the chip and the application, not for target {target!r}"
        )
    if two_results:
        raise ValueError("export: report and prove both return something: ask for one of them")
    return target


def _proof(model: nn.Module, args: Any, kwargs: dict[str, Any] | None, proto: ModelProto) -> Proof:
    from .proof import prove_written  # only needed here

    proof = prove_written(model, args, proto.SerializeToString(), kwargs=kwargs)
    if not proof.ok:
        raise ExportError(f"export: evaluation, OnnxRunner and onnxruntime do not agree:\n{proof}")
    return proof


def range_of(
    symbol: str, axis: int, inputs: Iterable[GraphPort], open_axes: Mapping[str, Mapping[int, str]]
) -> tuple[int, int, int]:
    """Smallest and largest size of an open axis, and its step, as the packer takes them: one sample, else the example's."""
    size = next(p.tensor.shape[axis] for p in inputs if open_axes[p.name].get(axis) == symbol)
    return (1, 1, 1) if axis == 0 else (1, int(size), 1)


def check_engine(tape: Tape, trained: str | None, wanted: str | None) -> None:
    """Refuse an engine for which the model would have been trained with another arithmetic.

    Raises:
        ExportError: Names the first such operator.
    """
    for node in tape.nodes:
        kernel = tape.windows.get(node.outputs[0]) if node.outputs else None
        if kernel is None:
            continue
        mine, theirs = (coarse_average(engine, tape.platform, kernel) for engine in (trained, wanted))
        if mine != theirs:
            raise ExportError(
                f"export: the averages of {kernel[0]}x{kernel[1]} elements at {node.where} are rounded otherwise for engine "
                f"{wanted} than for {trained or 'none'}, which the model was trained for: initialise a model with "
                f"linger.init(..., engine={wanted!r}), load the weights and train it"
            )


def _check_arguments(model: Any, f: Any, names: dict[str, Any]) -> None:
    """Refuse at once what would fail at the end."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"export: model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(f, (str, os.PathLike)) and (
        isinstance(f, io.TextIOBase) or not callable(getattr(f, "write", None))
    ):
        text = " that takes text" if isinstance(f, io.TextIOBase) else ""
        raise TypeError(
            f"export: f must be a path or an object that bytes can be written to, got {type(f).__name__}{text}"
        )
    for key, given in names.items():
        if given is not None and (isinstance(given, str) or not all(isinstance(name, str) for name in given)):
            raise TypeError(f"export: {key} must be a list of names, got {given!r}")


def _check_finite(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise ExportError(f"export: parameter '{name}' holds NaN or infinity")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients and compiled code; every module's own flag comes back afterwards."""
    flags = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with torch.inference_mode(False), torch.no_grad(), eagerly():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def record_forward(
    model: nn.Module,
    args: Any,
    tape: Tape,
    input_names: list[str],
    output_names: list[str],
    kwargs: dict[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
) -> tuple[list[GraphPort], list[GraphPort]]:
    """Run the model once under the tape; returns the inputs and outputs of the graph."""
    inputs: list[GraphPort] = []

    def bind(t: Tensor) -> Tensor:
        i = len(inputs)
        name = input_names[i] if i < len(input_names) else tape.fresh(f"input{i or ''}")
        tape.bind(t, name)
        inputs.append(GraphPort(name, t))
        if name not in formats:
            return t
        quantized = as_state(t, formats[name])
        tape.quant(t, quantized, formats[name].bits, float(formats[name].scale))
        return quantized

    positional, keywords = arguments(model, args, kwargs)
    if state.frames or state.tape is not None:
        raise ExportError("export: called from inside a running model")
    for name in (*input_names, *output_names):
        tape.reserve(name)
    with _evaluating(model):
        formats = state_formats(model, (positional, keywords), states or {}, input_names, output_names)
        positional, keywords = copied(positional, bind), copied(keywords, bind)
        if not inputs:
            raise ExportError("export: no argument of the model is a tensor, so that the file would have no input")
        if len(inputs) < len(input_names):
            raise ExportError(f"export: {len(input_names)} input names for {len(inputs)} tensors")
        state.tape = tape
        try:
            result = model(*positional, **keywords)
        except (TypeError, ValueError, RuntimeError) as error:
            state.tape = None
            if not isinstance(error, ExportError) and _runs_with_batch(model, positional, keywords):
                shapes = ", ".join(str(tuple(p.tensor.shape)) for p in inputs)
                raise ExportError(
                    f"export: the model does not run on an input of shape {shapes} ({error}); it does with a batch axis in "
                    "front: write linger.onnx.export(model, x[None], ...)"
                ) from error
            raise
        finally:
            state.tape = None
    results = list(tensors_in(result))
    if not results:
        raise ExportError(f"export: the model returned no tensor, but {type(result).__name__}")
    if len(output_names) > len(results):
        raise ExportError(f"export: {len(output_names)} output names for {len(results)} tensors")
    outputs = []
    for i, t in enumerate(results):
        if isinstance(t, Ahead):
            raise t.refuse(f"output {i} of the graph")
        if not tape.has(t):
            raise ExportError(f"export: output {i} does not depend on the inputs through recorded operators")
        name = output_names[i] if i < len(output_names) else tape.fresh(f"output{i or ''}")
        form = tape.noted(t)
        if isinstance(form, ChipOutput):
            outputs.append(GraphPort(name, form.like))
            form.write(Value(name))
            continue
        outputs.append(GraphPort(name, t))
        source = tape.name_of(t)
        fmt = info(t)
        if source in tape.wide:
            tape.integer_output(source, name)
        elif fmt is not None:
            tape.dequantized_output(source, name, fmt)
        else:
            tape.identity_output(source, name)
    return inputs, outputs


def _runs_with_batch(model: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Whether the model takes these arguments with an axis in front of every tensor."""
    try:
        model(*copied(positional, lambda t: t[None]), **copied(keywords, lambda t: t[None]))
    except Exception:  # user code: anything
        return False
    return True


def _warn(settings: Any, found: Iterable[Violation]) -> None:
    if settings.quant_info.round_mode != "floor_add":
        warnings.warn(
            f"linger: the model was trained with round_mode {settings.quant_info.round_mode}; the chip always rounds half up",
            stacklevel=3,
        )
    batch = [v for v in found if v.what == "batch" and not v.refused]
    if batch:
        said = "; ".join(sentences(batch))
        warnings.warn(f"linger: exported with a batch of {batch[0].value}: {said}", stacklevel=3)


def _report_conditions(model: nn.Module, platform: str, found: Iterable[Violation]) -> None:
    """Say once what not every engine revision or memory plan computes as the model does."""
    errors = [v for v in found if v.severity == "error" and not v.refused and v.what != "batch"]
    errors = unsaid(model, errors)
    if errors:
        text = "\n  ".join(sentences(errors))
        _log.warning("linger.onnx.export: not every engine and memory plan of %s runs this file:\n  %s", platform, text)


def _report_floats(nodes: list[Node]) -> None:
    """Say once which operators of the file compute in float, and where they are called."""
    found = dict.fromkeys(f"{node.call.operator if node.call else node.op_type}: {node.where}" for node in nodes)
    if found:
        _log.warning(
            "linger.onnx.export: these operators compute in float, no chip runs them:\n  %s", "\n  ".join(found)
        )


def _write(proto: ModelProto, f: str | os.PathLike[str] | BinaryIO) -> None:
    data = proto.SerializeToString(deterministic=True)
    if not isinstance(f, (str, os.PathLike)):
        f.write(data)
        return
    with replaced(f) as file:
        file.write(data)
