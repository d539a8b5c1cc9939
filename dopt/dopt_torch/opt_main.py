"""The five calls of the PyTorch form."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from dopt import config

from . import final, layers, shapes

__all__ = ["generate_config_file", "generate_final_model", "get_quant_loss", "optimize_model", "set_calibrate_state"]


def generate_config_file(
    model: nn.Module, input_shape: str, dst_path: str | os.PathLike[str] = "./config_gen.json"
) -> None:
    """Writes the template: every layer that can be quantized, with the strategy ``float``.

    Args:
        model: Float model; it is evaluated once on zeros of the deployment shapes, and not changed.
        input_shape: Shapes of the deployed model, ``"x:1,3,224,224"``, several inputs separated by ``;``.
        dst_path: The file; it is replaced.

    Raises:
        TypeError: ``model`` is no module, or wrapped (DataParallel and the like).
        ValueError: The model does not run on these shapes, has no Conv2d or Linear, or is optimized already.
        FileNotFoundError: The folder of ``dst_path`` does not exist.
    """
    _check_model("generate_config_file", model)
    _check_float("generate_config_file", model)
    shapes.example("generate_config_file", model, input_shape)
    types = op_types(model)
    if not types:
        raise ValueError("generate_config_file: the model has no Conv2d or Linear that can be quantized")
    config.write(dst_path, types, map(str, layers.CLASSES), input_shape=input_shape)


def optimize_model(model: nn.Module, config_path: str | os.PathLike[str]) -> nn.Module:
    """Quantizes the layers that the file names, in place. Build the optimizer on the result, and wrap the result (DDP).

    Args:
        model: Float model, not wrapped.
        config_path: The edited configuration.

    Returns:
        ``model`` itself: same parameters, same ``state_dict`` keys, and a range ``<layer>.input_range.state`` per layer.

    Raises:
        TypeError: ``model`` is no module, or wrapped.
        ConfigError: The file cannot be read, or names a layer or strategy that the model does not have.
        ValueError: The model is optimized already, or does not run on the file's ``input_shape``.
    """
    _check_model("optimize_model", model)
    _check_float("optimize_model", model)
    content = config.read(config_path, op_types(model))
    wanted, known = config.quantized(content), layers.names(model)
    config.warn_if_float(config_path, wanted)
    example = None
    if "input_shape" in content:
        example = shapes.example(f"optimize_model: {config_path}", model, content["input_shape"])
    layers.convert(model, [known[name] for name in wanted], example)
    return model


def get_quant_loss(quant_model: nn.Module) -> Tensor:
    """Sum over the quantized layers of the squared distances between weights and their 8-bit values.

    Differentiable, needs no forward before, 0 when all weights are on their grid. Added to the task's loss with a factor that
    makes it about a twentieth of that.

    Raises:
        TypeError: No module.
        ValueError: No layer of the model is quantized.
    """
    found = _quantized("get_quant_loss", quant_model)
    return torch.stack([layer.quant_loss() for layer in found.values()]).sum()


def set_calibrate_state(
    quant_model: nn.Module, calibrate_mode: bool | None = None, *, calibration_mode: bool | None = None
) -> None:
    """Turns the training-free mode on or off.

    On: the model is in evaluation mode, so that BatchNorms stand still, and every forward improves the ranges, which
    count at once. Off: the modules return to the modes they had.

    Args:
        quant_model: What ``optimize_model`` returned.
        calibrate_mode: True or False; ``calibration_mode`` is another spelling.

    Raises:
        TypeError: No module, or the mode is no bool.
        ValueError: No layer of the model is quantized.
    """
    mode = calibration_mode if calibrate_mode is None else calibrate_mode
    if not isinstance(mode, (bool, int)):
        raise TypeError(f"set_calibrate_state: calibrate_mode must be True or False, got {type(mode).__name__}")
    for layer in _quantized("set_calibrate_state", quant_model).values():
        layer.input_range.calibrating = bool(mode)
    before = quant_model.__dict__.pop("_dopt_modes", None)
    if mode:
        quant_model.__dict__["_dopt_modes"] = before or {name: m.training for name, m in quant_model.named_modules()}
        quant_model.eval()
    elif before is not None:
        for name, m in quant_model.named_modules():
            m.training = before.get(name, m.training)


def generate_final_model(
    model: nn.Module,
    config_file: str | os.PathLike[str],
    pth_file: str | os.PathLike[str] = "quant.pth",
    output_dir: str | os.PathLike[str] = "./",
) -> None:
    """Writes ``quant_model.onnx`` (float operators, BatchNorms fused, weights on their 8-bit grid) and ``quant_params.json``.

    Args:
        model: A newly built float model; it is not changed.
        config_file: The configuration that ``optimize_model`` was given.
        pth_file: ``quant_model.state_dict()`` of the trained or calibrated model, saved.
        output_dir: An existing folder.

    Raises:
        TypeError: ``model`` is no module, or wrapped.
        ConfigError: As ``optimize_model``, or the file has no ``input_shape``.
        FileNotFoundError: No checkpoint, or no folder.
        ValueError: The checkpoint does not fit the model and the configuration, or a layer has seen no data.
        ImportError: The package onnx is missing.
    """
    _check_model("generate_final_model", model)
    _check_float("generate_final_model", model)
    content = config.read(config_file, op_types(model))
    if "input_shape" not in content:
        raise config.ConfigError(f"{config_file}: 'input_shape' is missing; the ONNX file needs it")
    final.write(model, config_file, content["input_shape"], pth_file, output_dir, optimize_model)


def op_types(model: nn.Module) -> dict[str, str]:
    """Name in the configuration -> type of each layer that can be quantized."""
    return {name: str(layers.base(m)) for name, m in layers.names(model).items()}


def _check_model(call: str, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{call}: model must be a torch.nn.Module, got {type(model).__name__}")
    kind = type(model).__name__
    wrapped = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    if wrapped or kind in ("FullyShardedDataParallel", "DeepSpeedEngine"):
        raise TypeError(
            f"{call}: the model is wrapped in {kind}; give the unwrapped model (model.module), wrap the result"
        )


def _check_float(call: str, model: nn.Module) -> None:
    if layers.quantized_layers(model):
        advice = "build the float model anew" if call == "generate_final_model" else "it cannot be done twice"
        raise ValueError(f"{call}: the model is optimized already; {advice}")


def _quantized(call: str, model: Any) -> dict[str, Any]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{call}: expected the model that optimize_model returned, got {type(model).__name__}")
    found = layers.quantized_layers(model)
    if not found:
        raise ValueError(f"{call}: no layer of the model is quantized; call optimize_model with a file that names some")
    return found
