"""Scales moved between neighbouring layers by powers of two: the float network stays bit for bit, its integers get finer.

Channel ``c`` of a layer grows by ``2**k``, what reads it shrinks by as much; ReLU, max pooling and moves between them follow
exactly. Whether they do is not guessed: the float outputs must have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from linger.convert.prepare import record_of
from linger.measure.measure import bench

from .trial import Keys, Trials

__all__ = ["Pair", "equalised", "pairs_of"]

_MOST = 6  # a channel moves by at most 2**6
_GAIN = 0.2  # dB that a change must bring


class Pair(NamedTuple):
    """A layer and the only one that reads it.

    Attributes:
        first: Parameters that make a channel: name -> whether its first axis is the channel (all of them are).
        second: Weight that reads the channels, and its axis.
        made, read: Largest absolute weight of each channel in the two.
        reach: Largest absolute value of each channel between them.
    """

    first: tuple[str, ...]
    second: tuple[str, int]
    made: Tensor
    read: Tensor
    reach: Tensor


def pairs_of(trials: Trials, built: nn.Module) -> Iterator[Pair]:
    """The pairs of the float model that a trial was built from."""
    with bench(built, trials.batches[:1]) as b:
        rows, outputs = b.found.rows, set(b.found.outputs)
    record, model = record_of(built), trials.model
    assert record is not None
    norms = {f.layer: f.bn for f in record.fusions}
    for name, row in rows.items():
        before = row.inputs[0] if len(row.inputs) == 1 else ""
        readers = [r for r in rows.values() if before in r.inputs]
        if not before or before in outputs or len(readers) != 1 or before not in rows:
            continue
        pair = _pair(model, built, before, norms.get(before, ""), name)
        if pair is not None:
            yield pair._replace(reach=_reach(trials, norms.get(before, before)))


def _pair(model: nn.Module, built: nn.Module, first: str, norm: str, second: str) -> Pair | None:
    modules = dict(model.named_modules())
    a, b = modules.get(first), modules.get(second)
    makes, reads = _channel_axis(a, True), _channel_axis(b, False)
    if makes is None or reads is None or makes != 0 or a is None or b is None:
        return None
    scaled, holder = (norm, modules.get(norm)) if norm else (first, a)
    if norm and getattr(holder, "weight", None) is None:
        return None
    names = [f"{scaled}.{p}" for p in ("weight", "bias") if isinstance(getattr(holder, p, None), nn.Parameter)]
    folded = built.get_submodule(first).get_parameter("weight")
    made = folded.detach().abs().flatten(1).amax(1)
    w = b.weight.detach().abs()
    channels, count = made.numel(), w.shape[reads]
    if count % channels:
        return None
    read = w.movedim(reads, 0).reshape(channels, -1).amax(1)
    return Pair(tuple(names), (f"{second}.weight", reads), made, read, torch.empty(0))


def _channel_axis(m: nn.Module | None, makes: bool) -> int | None:
    """The axis of a weight that its results (or what it reads) are channels of; None where it has none of its own."""
    if isinstance(m, nn.Linear):
        return 0 if makes else 1
    if isinstance(m, (nn.Conv1d, nn.Conv2d)):
        if makes or m.groups == m.in_channels == m.out_channels:
            return 0
        return 1 if m.groups == 1 else None
    return None


def _reach(trials: Trials, name: str) -> Tensor:
    """Largest absolute value of every channel of a module's result, over the batches."""
    found: list[Tensor] = []

    def see(module: nn.Module, _: object, y: Tensor) -> None:
        axis = y.dim() - 1 if isinstance(module, nn.Linear) else 1
        found.append(y.detach().abs().movedim(axis, 0).flatten(1).amax(1))

    handle = trials.model.get_submodule(name).register_forward_hook(see)
    try:
        trials.outputs()
    finally:
        handle.remove()
    return torch.stack(found).amax(0)


# ---- how much


def _by_weights(pair: Pair, limit: float | None) -> Tensor:
    """The two weights of a channel get the same size."""
    return _bounded(pair, 0.5 * torch.log2(pair.read / pair.made), limit)


def _by_values(pair: Pair, limit: float | None) -> Tensor:
    """Quiet channels become as loud as the loudest."""
    return _bounded(pair, torch.log2(pair.reach.amax() / pair.reach).clamp(max=3), limit)


def _bounded(pair: Pair, exponent: Tensor, limit: float | None) -> Tensor:
    k = torch.nan_to_num(exponent, nan=0.0, posinf=0.0, neginf=0.0).round().clamp(-_MOST, _MOST)
    if limit is not None:  # training cuts values there
        room = torch.floor(torch.log2(limit / pair.reach))
        k = torch.minimum(k, torch.nan_to_num(room, posinf=float(_MOST)).clamp_min(0))
    return k


def _moved(trials: Trials, known: Mapping[str, Tensor], pairs: list[tuple[Pair, Tensor]]) -> dict[str, Tensor]:
    """Weights of the float model with channels moved."""
    weights = dict(known)

    def now(name: str) -> Tensor:
        return weights.get(name, trials.model.get_parameter(name).detach())

    for pair, k in pairs:
        factor = torch.exp2(k)
        for name in pair.first:
            w = now(name)
            weights[name] = w * factor.reshape(-1, *[1] * (w.dim() - 1))
        name, axis = pair.second
        w = now(name)
        each = factor.repeat_interleave(w.shape[axis] // factor.numel())
        weights[name] = w / each.reshape([-1 if a == axis else 1 for a in range(w.dim())])
    return weights


def equalised(
    trials: Trials, keys: Keys, built: nn.Module, quality: float, tell: Callable[[str, float], None]
) -> tuple[dict[str, Tensor], nn.Module, float]:
    """Move scales where it helps.

    Args:
        trials: See there.
        keys: Settings of the trials.
        built: The model with these settings, and the float model's own weights.
        quality: Of ``built``.
        tell: Shown what is tried, and the best quality so far.

    Returns:
        Weights of the float model that differ, the best model, its quality.
    """
    limit = trials.settings.clamp_info.clamp_activation_value
    weights: dict[str, Tensor] = {}
    pairs = list(pairs_of(trials, built))

    def descend(group: list[tuple[Pair, Tensor]]) -> None:
        nonlocal weights, built, quality
        if not group:
            return
        tell(f"scales of {len(group)} pair(s) of layers", quality)
        changed = _moved(trials, weights, group)
        if trials.same_outputs(changed):
            model = trials.build(keys, changed)
            found = None if model is None else trials.quality(model)
            if model is not None and found is not None and found > quality + _GAIN:
                weights, built, quality = changed, model, found
                return
        if len(group) > 1:
            descend(group[: len(group) // 2])
            descend(group[len(group) // 2 :])

    for how in (_by_weights, _by_values):
        steps = [(pair, how(pair, limit)) for pair in pairs]
        descend([(pair, k) for pair, k in steps if bool(k.any())])
    return weights, built, quality
