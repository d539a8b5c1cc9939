"""What runs around a forward: autograd's recomputation, or DistributedDataParallel."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["in_ddp_forward", "in_recomputation"]


def in_recomputation() -> bool:
    """True while autograd recomputes a forward inside backward (activation checkpointing).

    Statistics must not move then: the tensors have been observed already.
    """
    if torch.compiler.is_compiling():
        return False
    return bool(torch._C._current_graph_task_id() != -1)


def in_ddp_forward() -> bool:
    """True inside the forward of a ``DistributedDataParallel`` wrapper: what it synchronises was listed when it was built."""
    return getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None) is not None
