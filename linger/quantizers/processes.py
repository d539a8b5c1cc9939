"""Several processes train one model: what each of them has seen becomes what all have seen."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from .quantizer import Quantizer, State

__all__ = ["sync_statistics"]


@torch.no_grad()
def sync_statistics(model: nn.Module) -> None:
    """Give every process the largest of all processes' ranges.

    ``DistributedDataParallel`` hands the statistics of the first process to the others, which have seen other batches. After
    this every activation's range is the largest of them: after each step the moving maxima are those of the whole batch,
    after a calibration the ranges those of all batches. Every process has to call it; with one process nothing happens.
    Weights and trained thresholds, which are the same everywhere in training, come along after a calibration only.

    Args:
        model: The model, wrapped or not.

    Raises:
        TypeError: ``model`` is no module.
        RuntimeError: The processes have models with different quantizers.

    Example:
        >>> loss.backward()                      # doctest: +SKIP
        >>> optimizer.step()                     # doctest: +SKIP
        >>> linger.sync_statistics(model)        # doctest: +SKIP

    Source: docs/numerics.md, "Training".
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"sync_statistics: model must be a torch.nn.Module, got {type(model).__name__}")
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    found = [m for m in model.modules() if isinstance(m, Quantizer) and m.role == "activation" and not m.frozen]
    _check_count(len(found))
    if found:
        _take_largest(found)


def _check_count(count: int) -> None:
    """Before a collective on rows that may not fit."""
    counts = torch.tensor([count, -count], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    most, least = int(counts[0]), -int(counts[1])
    if most != least:
        raise RuntimeError(
            f"sync_statistics: the processes have models with {least} to {most} quantizers of activations; convert them alike, "
            "with example_inputs"
        )


def _take_largest(found: list[Quantizer]) -> None:
    """The largest range, and the smallest scale: it follows from the largest range, or from what an operator allows at most."""
    states = [q.state() for q in found]
    own = torch.stack([torch.stack([s.limit.reshape(()), -s.scale, s.initialised.float()]) for s in states])
    seen = own[:, 2:] > 0
    rows = torch.where(seen, own, -torch.inf)
    dist.all_reduce(rows, dist.ReduceOp.MAX)
    rows = torch.where(rows[:, 2:] > 0, rows, own)  # what no process has seen stays
    for quantizer, state, row, before in zip(found, states, rows, own, strict=True):
        if quantizer.method == "MOM" or not torch.equal(row, before):
            flag = torch.maximum(state.initialised, row[2].to(state.initialised.dtype))
            ready = quantizer._ready
            quantizer.restore(State(row[0].reshape(state.limit.shape), flag, -row[1], state.n_batches))
            quantizer._ready = ready  # a training step reads no device
