"""From a float model and a checkpoint to the ONNX file and the parameter file."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dopt import params
from linger import ops

from . import layers, shapes

__all__ = ["MODEL", "write"]

MODEL = "quant_model.onnx"
OPSET = 17


def write(
    model: nn.Module,
    config_file: str | os.PathLike[str],
    input_shape: str,
    pth_file: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    optimize: Callable[[nn.Module, Any], nn.Module],
) -> None:
    """See ``generate_final_model``."""
    call = "generate_final_model"
    try:
        import onnx  # noqa: F401  before anything is written
    except ImportError as e:
        raise ImportError(f"{call}: the package onnx is needed to write the model: pip install onnx") from e
    folder = Path(output_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{call}: output_dir '{folder}' does not exist")
    work = optimize(copy.deepcopy(model), config_file).eval()
    _load(call, work, pth_file)
    found = layers.quantized_layers(work)
    for name, layer in found.items():
        if layer.input_range.exp2() is None:
            raise ValueError(
                f"{call}: layer '{name}' has seen no data in checkpoint '{pth_file}'; train, or forward batches after "
                "set_calibrate_state(quant_model, True), and save again"
            )
    paths = {id(m): path for path, m in work.named_modules()}
    inputs = shapes.example(call, work, input_shape)
    scales = {paths[id(layer)]: _deploy(work, layer) for layer in found.values()}
    part = folder / (MODEL + ".part")
    _export(work, inputs, list(shapes.parse(input_shape)), part)
    entries = {}
    for name, layer in found.items():
        path = paths[id(layer)]
        exp2_in, exp2_w = scales[path]
        node, tensor, weight = _where(part, layer, path)
        entries[name] = params.layer(str(layers.base(layer)), node, [(tensor, exp2_in)], (weight, exp2_w, 2.0**-exp2_w))
    part.replace(folder / MODEL)
    params.write(folder, "pytorch", MODEL, entries)


def _load(call: str, work: nn.Module, pth_file: str | os.PathLike[str]) -> None:
    if not Path(pth_file).is_file():
        raise FileNotFoundError(f"{call}: no checkpoint '{pth_file}'")
    state = torch.load(pth_file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(
            f"{call}: checkpoint '{pth_file}' holds a {type(state).__name__}; save quant_model.state_dict()"
        )
    if state and all(key.startswith("module.") for key in state):  # saved from inside DDP or DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    missing: Any = sorted(set(work.state_dict()) - set(state))
    unexpected: Any = sorted(set(state) - set(work.state_dict()))
    if missing or unexpected:
        ranges = all(key.endswith("input_range.state") for key in missing) and not unexpected
        advice = "it was saved before optimize_model, or from another configuration" if ranges else "another model?"
        raise ValueError(
            f"{call}: checkpoint '{pth_file}' does not fit: missing {missing[:3]}, unexpected {unexpected[:3]}; {advice}"
        )
    try:
        work.load_state_dict(state)
    except RuntimeError as e:
        raise ValueError(f"{call}: checkpoint '{pth_file}' does not fit: {' '.join(str(e).split())}") from e


@torch.no_grad()
def _deploy(model: nn.Module, layer: Any) -> tuple[int, int]:
    """Back to torch's class with the weight on its grid and the BatchNorm folded; the exponents of input and weight."""
    exp2_in = layer.input_range.exp2()
    w, s = layer.folded()
    q, scale = ops.fake_quantize_weight(w)
    if s is not None:
        bn, factor = layer._bn[0], layer.factor().flatten()
        q = torch.where((factor == 0).reshape(s.shape), 0.0, q)
        bias = (0.0 if layer.bias is None else layer.bias) - bn.running_mean
        layer.bias = nn.Parameter(bias * factor + (0.0 if bn.bias is None else bn.bias))
        _remove(model, bn)
    del layer.input_range, layer._bn
    if torch.nn.utils.parametrize.is_parametrized(layer):
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")
    layer.weight = nn.Parameter(q)
    layer.__class__ = layers.base(layer)
    return exp2_in, math.frexp(float(scale))[1] - 1


def _remove(model: nn.Module, bn: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is bn:
                setattr(parent, name, nn.Identity())


def _export(model: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path) -> None:
    """Torch's exporter; the one that needs no other package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, str(path), input_names=names, opset_version=OPSET, dynamo=False)


def _where(path: Path, layer: Any, name: str) -> tuple[str, str, str]:
    """Node, input and weight of a layer in the file, found by the weight's name or, where it was transposed, by its values."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    wanted = layer.weight.detach().cpu().numpy()
    named = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = named.get(node.input[1])
        if weight is None:
            continue
        if weight.name == f"{name}.weight".lstrip("."):
            return node.name, node.input[0], weight.name
        values = numpy_helper.to_array(weight)
        if node.op_type == "MatMul" and values.shape == wanted.T.shape and (values == wanted.T).all():
            return node.name, node.input[0], weight.name
    raise ValueError(f"generate_final_model: layer '{name}' is not in the ONNX file: does the forward use it?")
