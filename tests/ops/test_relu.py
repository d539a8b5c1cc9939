"""ReLU and its bounded forms on codes against torch on the values, gradients, what is saved, refusals."""

import math

import pytest
import torch
from ops_oracle import LAYOUTS, SIZES, bits_of, coded, codes8

from linger import ops

native = torch.ops.linger.relu


TAILS = [(n, 4, high) for n in (*SIZES, 64, 65, 40000) for high in (math.inf, 6.0)]  # of vectors and mask bytes
LIMITS = [(33, exp2, high) for exp2 in (4, 0, -3, 23) for high in (math.inf, 6.0, 0.25, 127.0, 128.0)]


@pytest.mark.parametrize(("n", "exp2", "high"), [*TAILS, *LIMITS])
@pytest.mark.parametrize("wide", [False, True])
def test_relu_equals_the_float_one(n: int, exp2: int, high: float, wide: bool, isa: str) -> None:
    q = codes8(n, 1)
    if wide:
        q = q.int() * 1000
    x = coded(q, exp2)
    value, codes, mask = native(x.codes, x.scale, high, True)
    limit = math.floor(high * 2.0**exp2) if high < math.inf else 2**31
    want = q.long().clamp(0, limit)
    assert codes.dtype == q.dtype and torch.equal(codes.long(), want)
    assert torch.equal(value.double(), want.double() / 2.0**exp2)
    assert torch.equal(bits_of(mask, n), (q > 0) & (q.long() < limit))
    assert mask.numel() == 0 or bits_of(mask, mask.numel() * 8)[n:].sum() == 0
    if limit == high * 2.0**exp2 or high == math.inf:
        assert torch.equal(value, x.value.clamp(0.0, high))


def test_the_highest_code_passes_without_a_limit(isa: str) -> None:
    for q in (torch.full((40,), 127, dtype=torch.int8), torch.full((40,), 2**31 - 1, dtype=torch.int32)):
        _, codes, mask = native(q, torch.ones(()), math.inf, True)
        assert torch.equal(codes, q) and bits_of(mask, 40).all()


def test_behind_a_nan_all_is_nan(isa: str) -> None:
    value, codes, mask = native(torch.zeros(70, dtype=torch.int8), torch.tensor(math.nan), 6.0, True)
    assert value.isnan().all() and not codes.any() and not mask.any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("high", [math.inf, 2.0])
def test_gradients_are_those_of_the_float_one(layout: str, high: float) -> None:
    q = LAYOUTS[layout](codes8(2 * 6 * 4 * 5).view(2, 6, 4, 5))
    v = (q.float() / 16).requires_grad_()
    y = ops.relu(ops.Coded(v * 1, q, torch.tensor(16.0)), high)
    reference = (q.float() / 16).requires_grad_()
    z = torch.relu(reference) if high == math.inf else torch.nn.functional.hardtanh(reference, 0.0, high)
    assert torch.equal(y.value, z) and not y.codes.requires_grad
    grad = torch.randn(z.shape)
    y.value.backward(grad)
    z.backward(grad)
    assert torch.equal(v.grad, reference.grad)


def test_it_can_be_differentiated_twice() -> None:
    v = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    y = ops.relu(ops.Coded(v * 1, torch.tensor([-2, 4, 6], dtype=torch.int8), torch.tensor(2.0)))
    (g,) = torch.autograd.grad((y.value**2).sum(), v, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), v)
    assert torch.equal(h, torch.tensor([0.0, 2.0, 2.0]))


def test_other_float_types_keep_their_type() -> None:
    x = coded(codes8(64), 4)
    y = ops.relu(x._replace(value=x.value.bfloat16()))
    assert torch.equal(y.value, torch.relu(x.value).bfloat16())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(layout: str, grad: bool) -> None:
    q = LAYOUTS[layout](codes8(120).view(2, 3, 4, 5))
    torch.library.opcheck(native.default, (q, torch.ones(()), 3.0, grad))


def test_refusals(isa: str) -> None:
    x: ops.Coded = coded(codes8(8), 1)
    with pytest.raises(TypeError, match="relu: x must be Coded, got Tensor"):
        ops.relu(x.value)
    for high in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="relu: high must be positive, got"):
            ops.relu(x, high)
        with pytest.raises(RuntimeError, match="relu: high must be positive, got"):
            native(x.codes, x.scale, high, False)
    with pytest.raises(RuntimeError, match="relu: codes must be int8 or int32"):
        native(x.codes.short(), x.scale, 1.0, False)
