"""Recurrent layers against torch's in a small classifier: training step, step with the input's gradient, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import linger
from linger import settings

from .memory import peak_bytes, saved_bytes
from .rows import Row, Settings
from .timing import compare

# steps, entries, inputs, units
SHAPES = {"T=50": (50, 16, 64, 128), "T=100": (100, 16, 64, 128), "T=50 B=1": (50, 1, 64, 128)}
MORE = {"T=200 B=32": (200, 32, 128, 256), "T=100 B=1": (100, 1, 40, 64)}
KINDS: dict[str, type[nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU}
CLASSES = 10


class Classifier(nn.Module):
    """The last step of a recurrent layer, classified."""

    def __init__(self, rnn: nn.Module, hidden: int) -> None:
        super().__init__()
        self.rnn, self.fc = rnn, nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, D)`` -> ``(B, classes)``."""
        y: Tensor = self.fc(self.rnn(x)[0][-1])
        return y


def _models(kind: str, shape: tuple[int, int, int, int]) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    _, _, inputs, hidden = shape
    plain = Classifier(KINDS[kind](inputs, hidden), hidden)
    models: dict[str, nn.Module] = {f"nn.{kind}": plain}
    before = settings.current()
    for platform in ("arcs", "venusA", "venus"):
        settings.use(replace(before, platform=platform))
        model = deepcopy(plain)
        model.rnn = linger.init(model.rnn)
        models[f"linger {platform}"] = model
    settings.use(before)
    return models


def rows(how: Settings) -> Iterator[Row]:
    """Every kind and shape."""
    for kind in KINDS:
        for title, shape in (SHAPES if how.quick else SHAPES | MORE).items():
            yield from _rows(kind, title, shape, how)


def _rows(kind: str, title: str, shape: tuple[int, int, int, int], how: Settings) -> Iterator[Row]:
    steps, batch, inputs, _ = shape
    x, labels = torch.randn(steps, batch, inputs), torch.randint(0, CLASSES, (batch,))
    models = _models(kind, shape)
    reference = f"nn.{kind}"
    for what, given in (("step", x), ("step with dx", x.clone().requires_grad_())):
        calls, memory = {}, {}
        for who, model in models.items():
            calls[who] = _step(model.train(), given, labels)
            calls[who]()
            memory[who] = saved_bytes(lambda m=model, x=given: F.cross_entropy(m(x), labels)), peak_bytes(calls[who])
        times = compare(calls, reference, rounds=how.rounds, block_s=0.05, budget_s=how.budget_s / 2)
        for who, t in times.items():
            yield Row(f"{kind} {title} {what}", who, t, *memory[who])
    calls = {who: _evaluation(model.eval(), x) for who, model in models.items()}
    times = compare(calls, reference, rounds=how.rounds, block_s=0.05, budget_s=how.budget_s / 2)
    for who, t in times.items():
        yield Row(f"{kind} {title} eval", who, t)


def _step(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], object]:
    def step() -> None:
        x.grad = None
        model.zero_grad()
        F.cross_entropy(model(x), labels).backward()

    return step


def _evaluation(model: nn.Module, x: Tensor) -> Callable[[], object]:
    def evaluate() -> None:
        with torch.no_grad():
            model(x)

    return evaluate
