"""One training step and one evaluation of whole models: linger, float as the user writes it, float made comparable, peers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import linger
from linger.runtime import is_quantized

from .memory import peak_bytes, saved_bytes
from .peers import PEERS
from .rows import Row, Settings
from .timing import compare
from .zoo import MODELS


def _ours(make: Callable[..., nn.Module], x: Tensor) -> nn.Module:
    model = linger.init(make(), example_inputs=(x,))
    model.train()
    training = copy.deepcopy(model)
    y = training(x)
    assert is_quantized(y) and bool(torch.isfinite(y).all()), "the output carries no chip integers"
    training.eval()
    with torch.no_grad():
        first, second = training(x), training(x)
    assert torch.equal(first, second), "two evaluations differ"
    return model


def _step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def rows(
    settings: Settings, nets: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = MODELS, peers: bool = True
) -> Iterator[Row]:
    """Step with memory, then evaluation, of every model; other toolkits beside it where ``peers``."""
    for name, (make, shape) in nets.items():
        torch.manual_seed(0)
        x, y = torch.randn(shape), torch.randint(0, 10, shape[:1])
        last = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        models: dict[str, tuple[nn.Module, Tensor]] = {"float": (make(), x)}
        like = make(bn=False)
        models["float, no BN, channels-last"] = (
            like.to(memory_format=torch.channels_last) if x.dim() == 4 else like,
            last,
        )
        models["linger"] = (_ours(make, x), x)
        for peer, prepare in PEERS.items() if peers and not settings.quick else ():
            try:
                models[peer] = (prepare(make, x), x)
            except ImportError:
                continue
        steps: dict[str, Callable[[], object]] = {}
        bytes_of = {}
        for who, (model, data) in models.items():
            model.train()
            steps[who] = step = _step(model, data, y)
            for _ in range(3):
                step()
            forward: Callable[[], Tensor] = lambda m=model, d=data, y=y: F.cross_entropy(m(d), y)  # noqa: E731
            bytes_of[who] = saved_bytes(forward), peak_bytes(step)
        times = compare(steps, "float", rounds=settings.rounds, block_s=0.02, budget_s=settings.budget_s)
        for who, t in times.items():
            yield Row(f"{name} step", who, t, *bytes_of[who])
        yield from _evaluation(name, models, settings)


def _evaluation(name: str, models: dict[str, tuple[nn.Module, Tensor]], settings: Settings) -> Iterator[Row]:
    calls: dict[str, Callable[[], object]] = {}
    for who, (model, data) in models.items():
        if who not in PEERS:  # a peer's evaluation is a float simulation; its integers need a conversion of their own
            model.eval()
            calls[who] = lambda m=model, d=data: m(d)
    with torch.no_grad():
        times = compare(calls, "float", rounds=settings.rounds, block_s=0.02, budget_s=settings.budget_s / 2)
    for who, t in times.items():
        yield Row(f"{name} eval", who, t)
