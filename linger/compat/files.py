"""The classic generation's tools for ONNX files, and its way to export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from linger.errors import ModelError
from linger.files import replaced
from linger.onnx import OnnxRunner, export
from linger.onnx.loader import import_onnx
from linger.onnx.validate import PASS
from linger.runtime import is_owner


@contextmanager
def redirect_torch_onnx_export() -> Iterator[None]:
    """Inside, ``torch.onnx.export(model, args, f, ...)`` of an initialised model calls ``linger.onnx.export``.

    Other models export as always, and torch is as it was when the block ends.

    Example:
        >>> with linger.compat.redirect_torch_onnx_export():       # doctest: +SKIP
        ...     torch.onnx.export(net, x, "net.onnx", opset_version=12)
    """
    original = torch.onnx.export

    def redirected(model: Any, args: Any = (), f: Any = None, *more: Any, **kwargs: Any) -> Any:
        if isinstance(model, nn.Module) and any(is_owner(m) for m in model.modules()):
            return export(model, args, f, **kwargs)
        return original(model, args, f, *more, **kwargs)

    torch.onnx.export = redirected
    try:
        yield
    finally:
        torch.onnx.export = original


def _scales(model: Any) -> dict[str, float]:
    """Scale of every quantized tensor of a graph."""
    found: dict[str, float] = {}
    for node in model.graph.node:
        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "Quant":
            found[node.output[0]] = attributes["scale_x"].f
        elif node.op_type == "Dequant":
            continue
        elif "scale_o" in attributes:
            found.update(dict.fromkeys(node.output, attributes["scale_o"].f))
        elif node.op_type in PASS and node.input and node.input[0] in found:
            found.update(dict.fromkeys(node.output, found[node.input[0]]))
    return found


def parser_dequant(onnx_model: Any, is_change_in_out_type: bool = False) -> Any:
    """A copy of a model with a Dequant wherever a quantized tensor meets a float operator or a graph output.

    Args:
        onnx_model: ``onnx.ModelProto``, or the path of one.
        is_change_in_out_type: Declare graph inputs that go into a quantized operator, and outputs without a Dequant, as int8
            instead of inserting nodes for the outputs.

    Returns:
        ``onnx.ModelProto``.

    Raises:
        ImportError: The ``onnx`` package is missing.
    """
    onnx = import_onnx()
    model = onnx.load(os.fspath(onnx_model)) if isinstance(onnx_model, (str, os.PathLike)) else onnx_model
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    scales = _scales(fixed)
    made: dict[str, str] = {}
    nodes = []

    def dequantized(name: str) -> str:
        if name not in made:
            made[name] = f"{name}_dequant"
            nodes.append(
                onnx.helper.make_node(
                    "Dequant", [name], [made[name]], made[name], domain="linger", scale_o=scales[name]
                )
            )
        return made[name]

    for node in fixed.graph.node:
        if node.domain in ("", "ai.onnx") and node.op_type not in PASS:
            for i, name in enumerate(node.input):
                if name in scales:
                    node.input[i] = dequantized(name)
        nodes.append(node)
    for output in fixed.graph.output:
        if output.name not in scales:
            continue
        if is_change_in_out_type:
            output.type.tensor_type.elem_type = onnx.TensorProto.INT8
            continue
        inner = f"{output.name}_codes"
        for node in nodes:
            node.output[:] = [inner if name == output.name else name for name in node.output]
            node.input[:] = [inner if name == output.name else name for name in node.input]
        nodes.append(
            onnx.helper.make_node(
                "Dequant", [inner], [output.name], inner, domain="linger", scale_o=scales[output.name]
            )
        )
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del fixed.graph.node[:]
    fixed.graph.node.extend(copies)
    return fixed


def fix_dequant(model_name: str | os.PathLike[str], is_check: bool = False) -> str:
    """Write ``<name>_fix.onnx``: the file with a Dequant wherever one is missing (see :func:`parser_dequant`).

    Args:
        model_name: Path of the file.
        is_check: Load the result with ``linger.onnx.OnnxRunner``.

    Returns:
        The path of the new file.

    Raises:
        ModelError: ``is_check``, and the result is refused.
    """
    stem, ending = os.path.splitext(os.fspath(model_name))
    target = f"{stem}_fix{ending or '.onnx'}"
    data = parser_dequant(model_name).SerializeToString(deterministic=True)
    with replaced(target) as file:
        file.write(data)
    if is_check:
        OnnxRunner(target)
    return target


_LAYERS = {"Conv": "Conv2dInt", "ConvTranspose": "ConvTranspose2dInt", "Gemm": "LinearInt"}


def onnx_quant(
    model_path: str | os.PathLike[str],
    quant_ops_type: Any,
    remove_ops_type: Any = (),
    scale_x: float = 16.0,
    scale_y: float = 16.0,
    scale_w: float = 64.0,
    scale_o: float = 16.0,
    platform_quant: str = "luna_quant",
) -> str:
    """Write ``<name>_quant.onnx``: a float file whose layers of some types are integer nodes with fixed scales.

    For trying a network's speed and memory on a chip; the scales are the same everywhere, so its results mean nothing.

    Args:
        model_path: A float ONNX file.
        quant_ops_type: ONNX types to replace: ``Conv``, ``ConvTranspose`` (2-D), ``Gemm`` (``transB=1``), ``Add``, ``Mul``.
        remove_ops_type: Types of nodes that are left out; what reads their output reads their first input.
        scale_x, scale_y, scale_w, scale_o: Powers of two for inputs, second operands, weights, outputs.
        platform_quant: ``luna_quant``, the only one.

    Returns:
        The path of the new file.

    Raises:
        ValueError: A type that has no integer form, or another ``platform_quant``.
        ModelError: A layer that the integer form cannot express.
    """
    if platform_quant != "luna_quant":
        raise ValueError(f"onnx_quant: platform_quant must be luna_quant, got {platform_quant!r}")
    wanted = [quant_ops_type] if isinstance(quant_ops_type, str) else list(quant_ops_type)
    binary = {"Add": "iqAdd", "Mul": "iqMul"}
    for kind in wanted:
        if kind not in _LAYERS and kind not in binary:
            raise ValueError(f"onnx_quant: {kind!r} has no integer form; there are {', '.join([*_LAYERS, *binary])}")
    onnx = import_onnx()
    model = onnx.load(os.fspath(model_path))
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    helper, nodes = onnx.helper, []
    renamed: dict[str, str] = {}
    scales = {"scale_x": scale_x, "scale_o": scale_o, "platform_quant": platform_quant}
    removed = {remove_ops_type} if isinstance(remove_ops_type, str) else set(remove_ops_type)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type in removed:
            renamed[node.output[0]] = node.input[0]
            continue
        if node.op_type not in wanted:
            nodes.append(node)
            continue
        name, codes = node.name or node.output[0], f"{node.output[0]}_codes"
        kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        operands = 2 if node.op_type in binary else 1
        inputs = []
        for i in range(operands):
            inputs.append(f"{name}_quant{i}")
            scale = scale_x if i == 0 else scale_y
            nodes.append(
                helper.make_node("Quant", [node.input[i]], inputs[-1:], inputs[-1], domain="linger", data_bits=8, scale_x=scale,
                                 platform_quant=platform_quant)
            )  # fmt: skip
        if node.op_type in binary:
            attributes = scales | {"scale_y": scale_y}
        else:
            attributes = scales | {"scale_w": scale_w, "data_bits": 8, "parameter_bits": 8, "o_bits": 8}
            weight = constants.get(node.input[1])
            if weight is None or node.op_type == "Gemm" and not kept.pop("transB", 0) or weight.ndim not in (2, 4):
                raise ModelError(
                    f"onnx_quant: {node.op_type} {name!r}: its weight must be a constant of the usual layout"
                )
            attributes |= {
                k: v
                for k, v in kept.items()
                if k in ("dilations", "group", "kernel_shape", "pads", "strides", "output_padding")
            }
            for i, factor, kind, low in ((1, scale_w, np.int8, -128), (2, scale_x * scale_w, np.int32, -(2**31))):
                if len(node.input) > i:
                    whole = np.clip(np.floor(constants[node.input[i]].astype(np.float64) * factor + 0.5), low, -low - 1)
                    inputs.append(f"{name}_{'weight' if i == 1 else 'bias'}")
                    model.graph.initializer.append(onnx.numpy_helper.from_array(whole.astype(kind), inputs[-1]))
        op = _LAYERS.get(node.op_type) or binary[node.op_type]
        nodes.append(helper.make_node(op, inputs, [codes], name, domain="linger", **attributes))
        nodes.append(
            helper.make_node("Dequant", [codes], [node.output[0]], f"{name}_dequant", domain="linger", scale_o=scale_o)
        )
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    used = {name for n in copies for name in n.input}
    for initializer in [i for i in model.graph.initializer if i.name not in used]:
        model.graph.initializer.remove(initializer)
    if not any(o.domain == "linger" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("linger", 1))
    stem, ending = os.path.splitext(os.fspath(model_path))
    target = f"{stem}_quant{ending or '.onnx'}"
    with replaced(target) as file:
        file.write(model.SerializeToString(deterministic=True))
    return target
