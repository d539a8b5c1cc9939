"""A net's way through both stages into a file, for tests, the table and long runs."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import linger
from linger import settings
from linger.chip import Violation
from linger.onnx import CheckReport, OnnxRunner

from . import Net, tensors


@contextmanager
def chip(platform: str, method: str = "MOM") -> Iterator[None]:
    """The configuration of a chip and a training method; what linger says about single layers is left unsaid."""
    before, log = settings.current(), logging.getLogger("linger")
    level = log.level
    settings.use(settings.loads(f"platform: {platform}\nquant_info: {{qat_method: {method}}}\n"))
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.use(before)
        log.setLevel(level)


def fresh(net: Net) -> nn.Module:
    """The net with the same weights every time."""
    torch.manual_seed(0)
    return net.make()


def fit(model: nn.Module, net: Net, steps: int, rate: float = 3e-3) -> list[float]:
    """Train on one batch; the losses."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    model.train()
    inputs, losses = net.inputs(4), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net.loss(model(*inputs))
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def trained(net: Net, steps: int = 20) -> tuple[nn.Module, list[float]]:
    """The net after ten steps with limits and some in integers; the losses of the second stage."""
    limited = linger.constrain(fresh(net), example_inputs=net.inputs(2))
    fit(limited, net, 10)
    model = linger.init(fresh(net), example_inputs=net.inputs(2))
    model.load_state_dict(limited.state_dict())
    return model, fit(model, net, steps)


def outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Results in evaluation."""
    with torch.no_grad():
        return tensors(model.eval()(*inputs))


class Written(NamedTuple):
    """What became of an export: differing integers, the file's own check, what refused it."""

    differing: int = 0
    report: CheckReport | None = None
    refused: str = ""


def written(model: nn.Module, net: Net, path: Path) -> Written:
    """Export a model and compare its evaluation with the file's."""
    inputs = net.inputs(1, 7)
    want = outputs(model, inputs)
    try:
        linger.onnx.export(model, inputs, path)
    except linger.onnx.ExportError as error:
        return Written(refused=str(error))
    got = list(OnnxRunner(path).run([x.numpy() for x in inputs]).values())
    differing = sum(int((a != b.numpy()).sum()) for a, b in zip(got, want, strict=True))
    return Written(differing, linger.check(path))


def key(v: Violation) -> str:
    """One word for a finding: the operator, or the property."""
    named = v.what in ("float operator", "engine revision of", "packer revision for")
    return v.value.split()[0] if named else v.what.replace(" ", "-")


def sqnr(net: Net) -> float:
    """Signal to quantization noise in dB over all outputs: trained in float, then calibrated on four batches."""
    model = fresh(net)
    fit(model, net, 30)
    probe = net.inputs(8, 50)
    want = outputs(model, probe)
    model = linger.init(model, example_inputs=net.inputs(2))
    with linger.calibration(model):
        for seed in range(4):
            model(*net.inputs(8, 100 + seed))
    got = outputs(model, probe)
    signal = sum(float(t.double().square().sum()) for t in want)
    noise = sum(float((a - b).double().square().sum()) for a, b in zip(got, want, strict=True))
    return 10 * math.log10(signal / noise)
