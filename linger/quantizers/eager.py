"""Compiled parts of a model, while a forward has to be seen in Python."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["eagerly"]


def eagerly() -> AbstractContextManager[object]:
    """Inside, what ``torch.compile`` made runs as it is written.

    Compiled code looks neither at thread-local state nor at hooks that come for one forward, so calibrations and recorded
    forwards run so. Dynamo is not imported for it.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
