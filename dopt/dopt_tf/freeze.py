"""From a float graph and a checkpoint to a frozen graph with fake-quantized weights, and the parameter file."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from dopt import config, params

from . import checkpoints, folding, graph, native, plain

__all__ = ["MODEL", "write"]

MODEL = "quant_model.pb"


class _Operand(NamedTuple):
    """One operand of a layer: an activation's exponent, or a weight's values and exponent."""

    exp2: int
    weight: Any = None


def write(g: Any, names: list[str], outputs: list[str], ckpt: str, output_dir: str | os.PathLike[str]) -> None:
    """See ``generate_final_model``."""
    call = "generate_final_model"
    folder = Path(output_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{call}: output_dir '{folder}' does not exist")
    if not isinstance(outputs, (list, tuple)) or not outputs or not all(isinstance(o, str) for o in outputs):
        raise TypeError(f"{call}: output_name_list must be a list of node names, got {outputs!r}")
    nodes = [o.split(":")[0] for o in outputs]
    known = {op.name for op in g.get_operations()}
    for node in nodes:
        if node not in known:
            near = config.nearest(node, known)
            raise ValueError(f"{call}: output '{node}' is not in the graph{near}")
    reader = checkpoints.open_checkpoint(call, ckpt)
    sides = {n: [graph.is_weight(t) for t in g.get_operation_by_name(n).inputs[:2]] for n in names}
    peaks = {
        (n, side): checkpoints.peak(reader, n, side, ckpt)
        for n, found in sides.items()
        for side, is_weight in enumerate(found)
        if not is_weight
    }
    with _quiet():
        frozen, weights = _frozen(g, nodes, sides, reader, ckpt)
    operands = _operands(peaks, weights)
    entries = {}
    by_name = {n.name: n for n in frozen.node}
    for n in names:
        if n not in by_name:
            warnings.warn(f"{call}: outputs {nodes} do not need layer '{n}'; it is left out", stacklevel=3)
            continue
        entries[n] = _replace(frozen, by_name, n, [operands[n, side] for side in (0, 1)], nodes)
    with _quiet():
        final = tf.graph_util.extract_sub_graph(frozen, nodes)
    config.replace(folder / MODEL, final.SerializeToString(deterministic=True))
    params.write(folder, "tensorflow", MODEL, entries)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TensorFlow's notes that its graph_util is old: nothing newer does this for graphs."""
    before = tf.logging.get_verbosity()
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        yield
    finally:
        tf.logging.set_verbosity(before)


def _frozen(
    g: Any, nodes: list[str], sides: dict[str, list[bool]], reader: Any, ckpt: str
) -> tuple[Any, dict[Any, Any]]:
    """The sub-graph of the outputs with variables as constants, and the weights; the user's graph and session stay."""
    call = "generate_final_model"
    meta = tf.train.export_meta_graph(graph=g, clear_devices=True)
    with tf.Graph().as_default() as copy, tf.Session(graph=copy) as s:
        tf.train.import_meta_graph(meta)
        wanted = checkpoints.matching(call, tf.global_variables(), [], reader, ckpt)
        if wanted:
            tf.train.Saver(wanted).restore(s, ckpt)
        asked = {
            (n, side): copy.get_operation_by_name(n).inputs[side]
            for n, found in sides.items()
            for side, is_weight in enumerate(found)
            if is_weight
        }
        try:
            return tf.graph_util.convert_variables_to_constants(s, copy.as_graph_def(), nodes), s.run(asked)
        except tf.errors.FailedPreconditionError as e:
            raise ValueError(f"{call}: checkpoint '{ckpt}' lacks a variable of the model: {e.message}") from None


def _operands(peaks: dict[Any, float], weights: dict[Any, Any]) -> dict[Any, _Operand]:
    """Exponents and values by the operators that the optimized graph has."""
    with tf.Graph().as_default(), tf.Session() as s:
        exps = {key: plain.exponent(tf.constant(peak, tf.float32)) for key, peak in peaks.items()}
        found = {
            key: native.quantize_weight(tf.constant(w), tf.constant(1), f"weight_{i}")
            for i, (key, w) in enumerate(weights.items())
        }
        exp2, values = s.run((exps, found))
    operands = {key: _Operand(int(e)) for key, e in exp2.items()}
    return operands | {key: _Operand(int(e), w) for key, (w, e) in values.items()}


def _replace(
    gd: Any, by_name: dict[str, Any], name: str, operands: list[_Operand], outputs: list[str]
) -> dict[str, Any]:
    """Gives one layer its fake-quantized weight, with a BatchNorm behind it folded in; its entry of the parameter file."""
    node = by_name[name]
    inputs = [(node.input[side], o.exp2) for side, o in enumerate(operands) if o.weight is None]
    weight = None
    for side, o in enumerate(operands):
        if o.weight is None:
            continue
        values: Any = o.weight
        scale: Any = 2.0**-o.exp2
        found = folding.batch_norm(gd, by_name, node, outputs) if side == 1 else None
        if found is not None:
            values, scale = folding.fold(gd, by_name, node, found, values, scale)
        tensor = f"{name}/weights" if side == 1 else f"{name}/weights_{side}"
        folding.set_constant(gd, tensor, values)
        node.input[side] = tensor
        weight = (tensor, o.exp2, scale)
    return params.layer(node.op, name, inputs, weight)
