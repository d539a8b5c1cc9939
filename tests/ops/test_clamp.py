"""Clamps of the constrained stage and BatchNorm folding, against float64 autograd of the written formulas."""

import math
from itertools import product

import pytest
import torch
from ops_oracle import SIZES, floats
from torch import Tensor

from linger import ops

native = torch.ops.linger


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("limit", [0.5, 1.5, 8.0, 1e30])
def test_clamp(n: int, limit: float, isa: str) -> None:
    x = floats(n).requires_grad_()
    y = ops.clamp(x, limit)
    assert torch.equal(y, x.clamp(-limit, limit))
    g = torch.randn(n)
    (got,) = torch.autograd.grad(y, x, g)
    assert torch.equal(got, torch.where(x.abs() <= limit, g, 0.0))


def test_clamp_keeps_nan_and_stops_its_gradient(isa: str) -> None:
    x = torch.full((40,), math.nan, requires_grad=True)
    y = ops.clamp(x, 1.0)
    assert y.isnan().all()
    assert not torch.autograd.grad(y.sum(), x)[0].any()
    assert ops.clamp_weight(torch.tensor([1.0, math.nan]), factor=1.0)[0] == 1.0


@pytest.mark.parametrize("n", [1, 8, 33, 1000, 100_000])
def test_clamp_weight_dynamic_limit_is_a_constant(n: int, isa: str) -> None:
    w = torch.randn(n, generator=torch.Generator().manual_seed(n), requires_grad=True)
    y = ops.clamp_weight(w, factor=1.1)
    limit = (1.1 * w.detach().double().abs().mean()).float()
    torch.testing.assert_close(y.abs().max(), torch.minimum(limit, w.abs().max()), rtol=1e-6, atol=0)
    held = y.detach().abs().max()
    assert torch.equal(y, w.clamp(-held, held))
    assert torch.equal(torch.autograd.grad(y.sum(), w)[0], (w.abs() <= held).float())


def test_static_limit_wins() -> None:
    w = torch.tensor([0.1, -3.0])
    assert torch.equal(ops.clamp_weight(w, 2.0, 0.001), torch.tensor([0.1, -2.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_clamp_of_other_types_and_strides(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = ops.clamp(x, 0.5)
    assert (y.dtype, y.stride()) == (dtype, x.stride())
    assert torch.equal(y, x.clamp(-0.5, 0.5))
    g = torch.randn(2, 3, 4, 5).to(dtype)
    assert torch.equal(torch.autograd.grad(y, x, g)[0], torch.where(x.abs() <= 0.5, g.float(), 0.0).to(dtype))


def test_clamp_double_backward() -> None:
    x, v = torch.randn(20, requires_grad=True), torch.randn(20, requires_grad=True)
    (g,) = torch.autograd.grad(ops.clamp(x, 0.7), x, v, create_graph=True)
    assert torch.equal(torch.autograd.grad(g.sum(), v)[0], (x.abs() <= 0.7).float())


def folded(
    w: Tensor, b: Tensor | None, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float, groups: int,
    transposed: bool, limits: tuple[float, float, float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The written formula in the type of its arguments."""
    f = (1.0 if gamma is None else gamma) / (var + eps).sqrt()
    if transposed:
        per = w.shape[1]
        wf = torch.cat(
            [
                part * f[g * per : (g + 1) * per].view(1, -1, *[1] * (w.dim() - 2))
                for g, part in enumerate(w.chunk(groups))
            ]
        )
    else:
        wf = w * f.view(-1, *[1] * (w.dim() - 1))
    bf = ((0.0 if b is None else b) - mean) * f + (0.0 if beta is None else beta)
    static, factor, bias = limits
    if static or factor:
        limit = static or (factor * wf.detach().abs().mean()).item()
        wf = wf.clamp(-limit, limit)
    return wf, bf.clamp(-bias, bias) if bias else bf


CASES = list(product([(6, 2, 3, 3), (6, 5), (6, 4, 3)], [False, True], [1, 2], [True, False]))


@pytest.mark.parametrize(("shape", "transposed", "groups", "affine"), CASES)
@pytest.mark.parametrize("limits", [(0.0, 0.0, 0.0), (0.4, 9.0, 0.0), (0.0, 1.3, 0.6)])
def test_fold_bn_and_its_gradients(
    shape: tuple[int, ...], transposed: bool, groups: int, affine: bool, limits: tuple[float, float, float]
) -> None:
    torch.manual_seed(0)
    c = shape[1] * groups if transposed else shape[0]
    w, mean, var = torch.randn(shape), torch.randn(c), torch.rand(c) + 0.1
    b, gamma, beta = (torch.randn(c) for _ in range(3)) if affine else (None, None, None)
    args = [None if t is None else t.requires_grad_() for t in (w, b, gamma, beta, mean, var)]
    real = [None if t is None else t.detach().double().requires_grad_() for t in args]
    got = ops.fold_bn(*args, 1e-3, groups, transposed, *limits)
    want = folded(*real, 1e-3, groups, transposed, limits)
    for a, e in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=2e-7, atol=1e-7)
    seeds = [torch.randn(t.shape) for t in got]
    leaves = [t for t in args if t is not None]
    grads = torch.autograd.grad(got, leaves, seeds)
    wanted = torch.autograd.grad(want, [t for t in real if t is not None], [s.double() for s in seeds])
    for a, e in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-6, atol=1e-6)


def test_fold_bn_gives_gradients_only_where_they_are_wanted() -> None:
    w, mean, var = torch.randn(4, 3), torch.zeros(4), torch.ones(4)
    gamma = torch.ones(4, requires_grad=True)
    wf, _unused = ops.fold_bn(w, None, gamma, None, mean, var, 0.0)
    wf.sum().backward()
    torch.testing.assert_close(gamma.grad, w.sum(1))
    with torch.no_grad():
        assert not ops.fold_bn(w, None, gamma, None, mean, var, 0.0)[0].requires_grad


def test_threads_change_nothing() -> None:
    args = (torch.randn(300, 300), None, torch.randn(300), None, torch.randn(300), torch.rand(300), 1e-5)
    threads, seen = torch.get_num_threads(), []
    try:
        for k in (1, 2, 3):
            torch.set_num_threads(k)
            seen.append(ops.fold_bn(*args, clamp_factor=1.5))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


def test_refusals_name_the_argument() -> None:
    w, v = torch.zeros(4, 2), torch.ones(4)
    for bad, kind, text in [
        (lambda: ops.clamp(w, 0.0), ValueError, "clamp: limit must be positive, got 0.0"),
        (lambda: ops.clamp(w, math.nan), ValueError, "clamp: limit must be positive, got nan"),
        (lambda: ops.clamp(w.int(), 1.0), TypeError, "clamp: x must be float32"),
        (lambda: ops.clamp_weight(w), ValueError, "clamp_weight: value or factor must be given"),
        (lambda: ops.clamp_weight(w, factor=-1.0), ValueError, "clamp_weight: factor must be positive, got -1.0"),
        (
            lambda: ops.fold_bn(w.double(), None, None, None, v, v, 0.0),
            TypeError,
            "fold_bn: w must be a float32 Tensor",
        ),
        (
            lambda: ops.fold_bn(v, None, None, None, v, v, 0.0),
            ValueError,
            "fold_bn: w must have at least 2 dimensions, got 1",
        ),
        (
            lambda: ops.fold_bn(w, None, v[:3], None, v, v, 0.0),
            ValueError,
            "fold_bn: gamma must have 4 elements, got 3",
        ),
        (lambda: ops.fold_bn(w, None, None, None, v, v, 0.0, 3), ValueError, "fold_bn: groups must divide 4, got 3"),
        (lambda: ops.fold_bn(w, None, None, None, v, v, -1.0), ValueError, "fold_bn: eps must be >= 0, got -1.0"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    w, v, none = torch.randn(4, 6, 3), torch.rand(4) + 0.1, torch.zeros(0, dtype=torch.uint8)
    mask = torch.zeros(9, dtype=torch.uint8)
    wt, vt = torch.randn(4, 6, 3).transpose(1, 2), torch.rand(6) + 0.1
    for op, args in [
        (native.clamp, (w, 0.5)),
        (native.clamp, (wt, 0.5)),
        (native.clamp_weight, (w, 0.0, 1.5)),
        (native.fold_bn, (w, v, v, v, v, v, 1e-5, 1, False, 0.0, 1.0, 0.5)),
        (native.fold_bn, (wt, None, None, None, vt, vt, 1e-5, 2, True, 0.0, 0.0, 0.0)),
        (native.fold_bn_backward, (w, v, w, None, v, v, v, mask, none, 1e-5, 1, False)),
    ]:
        torch.library.opcheck(op.default, args)
