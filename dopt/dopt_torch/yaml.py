"""Configurations of dopt as configurations of linger, and back, as far as both can say it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import nn

from dopt import config
from linger import settings
from linger.settings import ClampInfo, QuantInfo, Section, covers

from . import layers
from .opt_main import generate_config_file, op_types

__all__ = ["ToLinger", "from_linger", "to_linger"]

_GIVEN = ("quant_info.activate_bits", "quant_info.input_bits", "quant_info.weight_bits")


class ToLinger(NamedTuple):
    """What :func:`to_linger` found.

    Attributes:
        disable_submodel: The layers that stay in float: an argument of ``linger.init``, since no section can say that.
        notes: What the file cannot say, one sentence each.
    """

    disable_submodel: tuple[str, ...]
    notes: list[str]


def to_linger(config_file: str | os.PathLike[str], yaml_file: str | os.PathLike[str]) -> ToLinger:
    """Writes a YAML file of linger with one section for the layers that a configuration of dopt quantizes.

    Then ``linger.init(model, yaml_file, disable_submodel=found.disable_submodel)`` quantizes the same layers.

    Args:
        config_file: Configuration of dopt for PyTorch.
        yaml_file: The file to write; it is replaced.

    Raises:
        ConfigError: No such file, no JSON, or layers of TensorFlow.
    """
    content = config.read(config_file, None)
    ends = {str(cls): f"/{end}" for cls, (end, _) in layers.CLASSES.items()}
    quantized: list[str] = []
    floats: list[str] = []
    notes = [
        "linger quantizes the results of layers and the operators between them too, and adds biases in integers",
        "linger's exponents are 0 to 23: inputs beyond +-128 are divided first, or saturate",
    ]
    for name, entry in content["layer_strategy"].items():
        end = ends.get(entry.get("op_type"))
        if end is None:
            raise config.ConfigError(
                f"{config_file}: layer '{name}': op_type {entry.get('op_type')!r} is no class of PyTorch"
            )
        path = name.removesuffix(end[1:]).rstrip("/").replace("/", ".")
        if not path:
            notes.append(f"layer '{name}' is the model itself, which a section cannot name: put it into a module")
            continue
        (quantized if entry["quant_strategy"] == config.INT8 else floats).append(path)
    if "input_shape" in content:
        notes.append(f"input_shape {content['input_shape']!r}: give linger.init example_inputs")
    base = settings.defaults()
    section = Section("dopt_int8", tuple(quantized), ClampInfo(), _eight_bits(), base.platform, _GIVEN)
    settings.save(base.with_sections((section,) if quantized else ()), Path(yaml_file))
    return ToLinger(tuple(floats), notes)


def from_linger(
    yaml_file: str | os.PathLike[str],
    model: nn.Module,
    input_shape: str,
    dst_path: str | os.PathLike[str] = "./config_gen.json",
    disable_submodel: str | Iterable[str] = (),
) -> list[str]:
    """Writes the configuration of dopt that quantizes what a YAML file of linger quantizes in 8 bits.

    Args:
        yaml_file: Configuration of linger.
        model: Float model.
        input_shape, dst_path: As ``generate_config_file``.
        disable_submodel: As ``linger.init``: names or patterns of what stays in float.

    Returns:
        What dopt cannot say, one sentence each; a layer with other widths stays in float.

    Raises:
        ConfigError: The YAML file cannot be read.
        ValueError: As ``generate_config_file``.
    """
    found = settings.load(os.fspath(yaml_file))
    patterns = (disable_submodel,) if isinstance(disable_submodel, str) else tuple(disable_submodel)
    generate_config_file(model, input_shape, dst_path)
    content = config.read(dst_path, op_types(model))
    paths = {id(m): path for path, m in model.named_modules()}
    notes = []
    for name, m in layers.names(model).items():
        path = paths[id(m)]
        of = found.layer(path)
        if not found.open_quant or any(covers(p, path) for p in patterns):
            continue
        if (of.input_bits, of.weight_bits) != (8, 8):
            notes.append(
                f"{path}: {of.input_bits}-bit activations and {of.weight_bits}-bit weights: the layer stays in float"
            )
            continue
        content["layer_strategy"][name]["quant_strategy"] = config.INT8
        if of.method != "MOM":
            notes.append(f"{path}: qat_method {of.method}: dopt's ranges follow a moving maximum")
        if of.output_bits != 8:
            notes.append(f"{path}: output_bits {of.output_bits}: dopt leaves results in float")
    config.write_content(dst_path, content)
    listed = {id(m) for m in layers.names(model).values()}
    others = sorted({type(m).__name__ for m in model.modules() if id(m) not in listed and _has_parameters(m)})
    if others:
        notes.append(f"{', '.join(others)}: dopt quantizes Conv2d and Linear only")
    return [*notes, "results of layers, operators between them, clamp_info and the platform's limits"]


def _eight_bits() -> QuantInfo:
    return QuantInfo(activate_bits=8, weight_bits=8, input_bits=8)


def _has_parameters(m: nn.Module) -> bool:
    return any(True for _ in m.parameters(recurse=False))
