"""Programs of many operators, run by one native call: for the runner of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from linger.errors import UnsupportedError
from linger.ops import checks

_index, _make, _free, _run = (checks.native(f"replay_{name}") for name in ("index", "make", "free", "run"))
_ANY = torch.zeros(1)


def operator_number(name: str) -> int:
    """The number of ``linger::name`` in programs; -1: there is none."""
    return int(_index(_ANY, torch.frombuffer(bytearray(name.encode()), dtype=torch.uint8)))


def make_program(constants: Sequence[Tensor], words: Sequence[int]) -> int:
    """Keep a program; returns its number.

    Args:
        constants: Tensors that it reads, the slots behind those of the inputs.
        words: As ``csrc/ops/replay.cpp`` reads them.
    """
    return int(_make(constants, torch.tensor(words, dtype=torch.int64)))


def free_program(number: int) -> None:
    """Forget a program."""
    _free(_ANY, number)


def run_program(inputs: Sequence[Tensor], number: int) -> list[Tensor]:
    """The results of a program.

    Raises:
        RuntimeError: There is no such program, or it is none for these inputs.
    """
    results: list[Tensor] = _run(inputs, number)
    return results


@checks.fake("linger::replay_index")
@checks.fake("linger::replay_make")
@checks.fake("linger::replay_free")
@checks.fake("linger::replay_run")
def _fake(*_: Any) -> NoReturn:
    raise UnsupportedError("a run of an exported file cannot be traced: trace the model")


__all__ = ["free_program", "make_program", "operator_number", "run_program"]
