"""Squared errors of exponents, and the state of a weight that follows them: native == torch's operators, bit for bit."""

import math

import pytest
import torch
from ops_oracle import LAYOUTS
from torch import Tensor

from linger import ops
from linger.ops import least_error_any as other

native = torch.ops.linger


def fresh() -> ops.Stats:
    return ops.Stats(
        torch.zeros(()),
        torch.zeros((), dtype=torch.uint8),
        torch.ones(()),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
    )


def data(n: int, span: float = 1.0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(n)) * span


@pytest.mark.parametrize("n", [1, 7, 1000, 16384, 40001])
@pytest.mark.parametrize("rounding", range(4))
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_errors_agree_on_every_path(n: int, rounding: int, bits: int, isa: str) -> None:
    x = data(n)
    sums = ops.squared_errors(x, bits, rounding)
    assert sums.shape == (24,) and sums.dtype == torch.float64
    assert torch.equal(sums, other.squared_errors(x, 0, 24, bits, rounding))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_states_agree_on_every_path(layout: str, bits: int, isa: str) -> None:
    for span in (1e-7, 1e-3, 1.0, 1.002, 300.0, 1e5):
        mine, theirs = fresh(), fresh()
        for seed in range(3):
            w = LAYOUTS[layout](torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)))
            w = w / w.abs().max() * span
            ops.least_error_step(w, ops.Output(mine, None, bits, 2, 0.0, True, False))
            other.least_error_step(w, tuple(theirs), bits)
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)), span
        assert mine.n_batches.item() == 3 and mine.is_init.item() == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_moves_nothing_and_is_counted(bad: float) -> None:
    for step in (
        lambda w, s: ops.least_error_step(w, ops.Output(s, None, 8, 2, 0.0, True, False)),
        lambda w, s: other.least_error_step(w, tuple(s), 8),
    ):
        stats = fresh()
        step(torch.tensor([1.0, bad]), stats)
        assert [t.item() for t in stats] == [0.0, 0, 1.0, 0, 1]
        step(torch.empty(0), stats)
        assert [t.item() for t in stats] == [0.0, 0, 1.0, 0, 1]


def test_opcheck() -> None:
    torch.library.opcheck(native.squared_errors.default, (data(100), 0, 24, 8, 1))
    torch.library.opcheck(native.least_error_step.default, (data(100), *fresh(), 8))


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="squared_errors: x must be float32"):
        ops.squared_errors(torch.ones(3, dtype=torch.int32), 8, 1)
    with pytest.raises(ValueError, match="squared_errors: bits must be"):
        ops.squared_errors(data(3), 32, 1)
    with pytest.raises(ValueError, match="squared_errors: rounding"):
        ops.squared_errors(data(3), 8, 4)
    with pytest.raises(TypeError, match="least_error_step: w must be float32"):
        ops.least_error_step(torch.ones(3, dtype=torch.int32), ops.Output(fresh(), None, 8, 2, 0.0, True, False))
    with pytest.raises(RuntimeError, match="count must be in"):
        native.squared_errors(data(3), 0, 41, 8, 1)
