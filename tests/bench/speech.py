"""Small nets in small batches, as speech has them: keyword spotters, a step of `examples/vowels.py`, the runner of a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import linger
from examples.vowels import COEFFICIENTS, LONGEST, SPEAKERS
from examples.vowels import Model as Vowels

from . import training
from .rows import Row, Settings
from .timing import compare
from .zoo import conv

CLASSES = 12


def _conv1d(i: int, o: int, k: int, s: int = 1, *, bn: bool) -> nn.Module:
    first = nn.Conv1d(i, o, k, s, k // 2, bias=not bn)
    return nn.Sequential(first, nn.BatchNorm1d(o)) if bn else first


class DsCnn(nn.Module):
    """Depthwise-separable keyword spotter on 48 frames of 40 bands."""

    def __init__(self, bn: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(1, 64, 5, 2, bn=bn), nn.ReLU()]
        for _ in range(4):
            layers += [conv(64, 64, 3, groups=64, bn=bn), nn.ReLU(), conv(64, 64, 1, bn=bn), nn.ReLU()]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        y: Tensor = self.fc(self.body(x).mean((2, 3)))
        return y


class TcResNet8(nn.Module):
    """Keyword spotter of 1-D convolutions on 98 frames of 40 bands."""

    def __init__(self, bn: bool = True) -> None:
        super().__init__()
        self.stem, self.relu = _conv1d(40, 16, 3, bn=bn), nn.ReLU()
        self.blocks = nn.ModuleList()
        for i, o in ((16, 24), (24, 32), (32, 48)):
            parts = _conv1d(i, o, 9, 2, bn=bn), _conv1d(o, o, 9, bn=bn), _conv1d(i, o, 1, 2, bn=bn)
            self.blocks.append(nn.ModuleList(parts))
        self.fc = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.relu(self.stem(x))
        for a, b, short in self.blocks:  # type: ignore[misc]
            x = self.relu(b(self.relu(a(x))) + self.relu(short(x)))
        y: Tensor = self.fc(x.mean(2))
        return y


class Crnn(nn.Module):
    """Two convolutions and a GRU on 100 frames of 40 bands."""

    def __init__(self, bn: bool = True) -> None:
        super().__init__()
        self.a, self.relu1 = conv(1, 32, 5, 2, bn=bn), nn.ReLU()
        self.b, self.relu2 = conv(32, 32, 3, 2, bn=bn), nn.ReLU()
        self.gru, self.fc = nn.GRU(320, 64, batch_first=True), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.relu2(self.b(self.relu1(self.a(x))))
        y: Tensor = self.fc(self.gru(x.permute(0, 3, 1, 2).flatten(2))[0][:, -1])
        return y


NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "ds-cnn B=4": (DsCnn, (4, 1, 48, 40)),
    "ds-cnn B=64": (DsCnn, (64, 1, 48, 40)),
    "tc-resnet8 B=4": (TcResNet8, (4, 40, 98)),
    "tc-resnet8 B=64": (TcResNet8, (64, 40, 98)),
    "crnn B=4": (Crnn, (4, 1, 40, 100)),
    "crnn B=32": (Crnn, (32, 1, 40, 100)),
    "crnn B=64": (Crnn, (64, 1, 40, 100)),
}


def rows(settings: Settings) -> Iterator[Row]:
    """Steps and evaluations of the nets, a step of the vowels, the runner against evaluation."""
    yield from training.rows(settings, NETS, peers=False)
    yield from _vowels(settings)
    yield from _runner(settings)


def _vowels(settings: Settings) -> Iterator[Row]:
    torch.manual_seed(0)
    frames, labels = torch.randn(30, LONGEST, COEFFICIENTS), torch.randint(0, SPEAKERS, (30,))
    lengths = torch.randint(7, LONGEST + 1, (30,)).tolist()
    plain = Vowels()
    models = {"float": plain, "linger": linger.init(Vowels(), example_inputs=(frames, lengths))}

    def step(model: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(frames, lengths), labels).backward()
            optimizer.step()

        return run

    calls: dict[str, Callable[[], object]] = {who: step(model) for who, model in models.items()}
    times = compare(calls, "float", rounds=settings.rounds, block_s=0.02, budget_s=settings.budget_s)
    for who, t in times.items():
        yield Row("vowels step", who, t)


def _runner(settings: Settings) -> Iterator[Row]:
    name = "ds-cnn B=4"
    make, shape = NETS[name]
    torch.manual_seed(0)
    x, file = torch.randn(shape), io.BytesIO()
    model = linger.init(make(), example_inputs=(x,))
    model.train()(x)
    model.eval()
    linger.onnx.export(model, (x,), file, input_names=["x"], output_names=["y"])
    runner = linger.onnx.OnnxRunner(file.getvalue())
    with torch.no_grad():
        assert torch.equal(torch.as_tensor(runner.run({"x": x})["y"]), model(x)), "file and model differ"
        calls: dict[str, Callable[[], object]] = {
            "linger eval": lambda: model(x),
            "OnnxRunner": lambda: runner.run({"x": x}),
        }
        times = compare(calls, "linger eval", rounds=settings.rounds, block_s=0.02, budget_s=settings.budget_s / 2)
    for who, t in times.items():
        yield Row(f"{name} file", who, t)
