"""Configurations of dopt as linger's and back: what both can say survives, the rest is listed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import dopt
import linger
from dopt import config

Configured = Callable[..., str]
SHAPE = "x:2,3,12,12"


@pytest.mark.parametrize("words", [("conv1", "fc"), ("block", "plain"), ("head",), ("none of them",), ()])
def test_there_and_back_is_the_same_file(net: nn.Module, configured: Configured, words: tuple[str, ...]) -> None:
    path = configured(net, *words)
    found = dopt.to_linger(path, "linger.yaml")
    dopt.from_linger("linger.yaml", net, SHAPE, "back.json", found.disable_submodel)
    assert json.loads(Path("back.json").read_text()) == json.loads(Path(path).read_text())


def test_linger_quantizes_the_same_layers(net: nn.Module, configured: Configured) -> None:
    found = dopt.to_linger(configured(net, "conv1", "fc"), "linger.yaml")
    assert found.disable_submodel == ("block.0", "plain", "head")
    assert any("results of layers" in note for note in found.notes) and any(SHAPE in note for note in found.notes)
    settings = linger.settings.load("linger.yaml")
    assert settings.sections[0].name == ("conv1", "fc")
    model = linger.init(net, "linger.yaml", disable_submodel=found.disable_submodel)
    kinds = {name: type(m).__name__ for name, m in model.named_modules()}
    assert (kinds["conv1"], kinds["fc"], kinds["plain"], kinds["head"]) == (
        "Conv2dInt",
        "LinearInt",
        "Conv2d",
        "Linear",
    )
    model.train()(torch.randn(2, 3, 12, 12))


def test_what_dopt_cannot_say_is_listed(net: nn.Module, folder: Path) -> None:
    text = """
platform: venusA
quant_info: {qat_method: TQT}
wide: {name: [fc], quant_info: {activate_bits: 16}}
narrow: {name: [plain], quant_info: {weight_bits: 4}}
"""
    Path("linger.yaml").write_text(text)
    notes = "\n".join(dopt.from_linger("linger.yaml", net, SHAPE, "c.json", disable_submodel="head*"))
    layers = json.loads(Path("c.json").read_text())["layer_strategy"]
    assert [name for name, layer in layers.items() if layer["quant_strategy"] != "float"] == [
        "conv1/Conv2D",
        "block/0/Conv2D",
    ]
    assert "fc: 16-bit activations and 8-bit weights: the layer stays in float" in notes
    assert "plain: 8-bit activations and 4-bit weights: the layer stays in float" in notes
    assert "conv1: qat_method TQT: dopt's ranges follow a moving maximum" in notes
    assert "BatchNorm2d: dopt quantizes Conv2d and Linear only" in notes and "head" not in notes


def test_open_quant_false_quantizes_nothing(net: nn.Module, folder: Path) -> None:
    Path("linger.yaml").write_text("open_quant: false\n")
    dopt.from_linger("linger.yaml", net, SHAPE, "c.json")
    layers = json.loads(Path("c.json").read_text())["layer_strategy"]
    assert {layer["quant_strategy"] for layer in layers.values()} == {"float"}


def test_refusals(net: nn.Module, folder: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"c\.json: no such configuration file"):
        dopt.to_linger("c.json", "linger.yaml")
    Path("c.json").write_text(
        json.dumps({"layer_strategy": {"a/Conv2D": {"op_type": "Conv2D", "quant_strategy": "float"}}})
    )
    with pytest.raises(config.ConfigError, match=r"layer 'a/Conv2D': op_type 'Conv2D' is no class of PyTorch"):
        dopt.to_linger("c.json", "linger.yaml")
    Path("c.json").write_text(
        json.dumps({"layer_strategy": {"a/Conv2D": {"op_type": "Conv2D", "quant_strategy": "int4"}}})
    )
    with pytest.raises(config.ConfigError, match=r"layer 'a/Conv2D': quant_strategy 'int4' is not one of"):
        dopt.to_linger("c.json", "linger.yaml")
    with pytest.raises(AttributeError, match="module 'dopt' has no attribute 'to_tflite'"):
        dopt.to_tflite  # noqa: B018
    assert not Path("linger.yaml").exists()
