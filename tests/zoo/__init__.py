"""Nets that people train, re-written small from their papers: ``ZOO`` has each with its inputs, its loss and what refuses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import dense, detect, patterns, speech, vision

__all__ = ["CHIPS", "ZOO", "Net", "tensors"]

CHIPS = ("arcs", "mars", "venusA", "venus")


def tensors(result: Any) -> list[Tensor]:
    """The tensors of a model's result, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result for t in tensors(part)]


def regression(outputs: Any) -> Tensor:
    """Mean squared distance from fixed targets of the outputs' size, in 0..0.5."""
    parts = tensors(outputs)
    targets = [torch.rand(t.shape, generator=torch.Generator().manual_seed(i)) / 2 for i, t in enumerate(parts)]
    return torch.stack([F.mse_loss(t, y) for t, y in zip(parts, targets, strict=True)]).sum()


def classes(logits: Tensor) -> Tensor:
    """Cross entropy of [N, classes], a class for each sample of the batch."""
    return F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])


def steps(logits: Tensor) -> Tensor:
    """Cross entropy of [N, T, classes], a class for each step."""
    n, t, c = logits.shape
    return F.cross_entropy(logits.flatten(0, 1), torch.arange(n * t) % c)


def ctc(logits: Tensor) -> Tensor:
    """CTC of [N, T, symbols] with three symbols a sample; 0 is the blank."""
    n, t, c = logits.shape
    wanted = 1 + torch.arange(3 * n).view(n, 3) % (c - 1)
    lengths = torch.full((n,), t), torch.full((n,), 3)
    return F.ctc_loss(logits.log_softmax(2).transpose(0, 1), wanted, *lengths)


@dataclass(frozen=True)
class Net:
    """A net of the zoo.

    Args:
        make: Builds it, with weights from torch's generator.
        shapes: Shape of one sample of each input.
        loss: Scalar from the outputs of a batch.
        errors: Chip -> what ``linger.check`` calls an error there, see ``stages.key``; "": every chip.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    loss: Callable[[Any], Tensor]
    errors: dict[str, str] = field(default_factory=dict)

    def lacks(self, platform: str) -> set[str]:
        """What keeps the net from running on a chip; mars is arcs."""
        platform = "arcs" if platform == "mars" else platform
        return {*self.errors.get("", "").split(), *self.errors.get(platform, "").split()}

    def inputs(self, n: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        """A batch of normal numbers."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(n, *shape, generator=generator) for shape in self.shapes)


ZOO: dict[str, Net] = {
    "ECAPA-TDNN": Net(
        speech.EcapaTdnn,
        ((24, 40),),
        classes,
        {"": "clamp sqrt", "arcs": "iqTanh", "venusA": "iqSigmoid iqTanh sigmoid", "venus": "softmax"},
    ),
    "GTCRN": Net(
        dense.Gtcrn,
        ((3, 10, 17),),
        regression,
        {
            "": "GRUInt batch",
            "arcs": "iqTanh",
            "venusA": "iqSigmoid iqTanh sigmoid",
        },
    ),
    "Squeezeformer": Net(dense.Squeezeformer, ((1, 48, 16),), ctc, {"venusA": "QSwish", "venus": "softmax"}),
    "YOLO-nano v8": Net(
        detect.YoloV8, ((3, 32, 32),), regression, {"venusA": "QSwish iqSigmoid sigmoid", "venus": "softmax"}
    ),
    "YOLO-nano v5": Net(detect.YoloV5, ((3, 32, 32),), regression, {"venusA": "QSwish iqSigmoid sigmoid"}),
    "BC-ResNet": Net(speech.BcResNet, ((1, 40, 20),), classes, {"venusA": "QSwish"}),
    "MobileNetV3": Net(vision.MobileNetV3, ((3, 64, 64),), classes),
    "CRNN + CTC": Net(speech.Crnn, ((1, 12, 24),), ctc),
    "CRNN + CTC, 40 units": Net(lambda: speech.Crnn(hidden=40), ((1, 12, 24),), ctc, {"venusA": "hidden-size"}),
    "CRNN + CTC, both directions": Net(lambda: speech.Crnn(True), ((1, 12, 24),), ctc),
    "BlazeFace": Net(vision.BlazeFace, ((3, 64, 64),), regression),
    "RNNoise": Net(
        speech.RnNoise, ((10, 42),), regression, {"": "GRUInt", "arcs": "iqTanh", "venusA": "iqSigmoid iqTanh sigmoid"}
    ),
    "DTLN": Net(speech.Dtln, ((8, 17),) * 3, regression, {"": "add div mul sqrt", "venusA": "iqSigmoid sigmoid"}),
    "RepVGG, training form": Net(vision.RepVgg, ((3, 24, 24),), classes),
    "RepVGG, deployed form": Net(lambda: vision.RepVgg(deployed=True), ((3, 24, 24),), classes),
    "DS-CNN": Net(speech.DsCnn, ((1, 49, 40),), classes),
    "BiLSTM": Net(speech.BiLstm, ((10, 12),), steps),
    "SE, sigmoid": Net(lambda: vision.SeNet(nn.Sigmoid), ((3, 12, 12),), classes, {"venusA": "iqSigmoid sigmoid"}),
    "SE, hard sigmoid": Net(lambda: vision.SeNet(nn.Hardsigmoid), ((3, 12, 12),), classes),
    "U-Net": Net(vision.UNet, ((1, 16, 16),), regression),
    "channel shuffle": Net(vision.ShuffleNet, ((3, 12, 12),), classes),
    "siamese": Net(vision.Siamese, ((1, 8, 8),) * 2, regression),
    "FSMN": Net(speech.Fsmn, ((30, 10),), regression),
    "FSMN, 25 taps": Net(lambda: speech.Fsmn(25), ((30, 10),), regression),
    "Transformer encoder": Net(dense.Encoder, ((9, 10),), steps, {"venus": "softmax"}),
    "EfficientNet-Lite": Net(patterns.EfficientNetLite, ((3, 24, 24),), classes),
    "ConvNeXt": Net(patterns.ConvNeXt, ((3, 32, 32),), classes, {"arcs": "gelu", "venusA": "QGelu", "venus": "gelu"}),
    "LoRA": Net(patterns.Lora, ((12,),), classes),
    "NF-Net": Net(patterns.NfNet, ((3, 12, 12),), classes, {"": "add conv2d mean mul relu"}),
    "tied weights": Net(patterns.TiedHead, ((12,),), regression),
    "GhostNet": Net(patterns.GhostModule, ((3, 12, 12),), classes),
    "MobileOne": Net(patterns.MobileOne, ((3, 12, 12),), classes),
}
