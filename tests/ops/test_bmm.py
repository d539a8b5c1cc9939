"""Batched products of codes against int64, gradients, refusals."""

import math

import pytest
import torch
from ops_oracle import coded, codes8, exp2_of_peak, fixed, limits, output, rsh, stats

from linger import ops
from linger.errors import UnsupportedError

SHAPES = [(1, 1, 1, 1), (1, 7, 33, 5), (2, 5, 8, 7), (6, 4, 64, 17), (3, 20, 3, 40), (12, 1, 130, 1)]


def operands(b: int, m: int, k: int, n: int, ex: int = 4, ey: int = 5) -> tuple[ops.Coded, ops.Coded]:
    return coded(codes8(b * m * k, 1).view(b, m, k), ex), coded(codes8(b * k * n, 2).view(b, k, n), ey)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bits", "shift"), [(4, 9), (8, 0), (8, 9), (16, 3), (32, 0), (32, 40)])
def test_products(shape: tuple[int, ...], bits: int, shift: int, isa: str) -> None:
    x, y = operands(*shape)
    want = rsh(x.codes.long() @ y.codes.long(), shift).clamp(*limits(bits))
    got = ops.bmm_codes(x.codes, y.codes, shift, bits)
    assert torch.equal(got.long(), want)
    c = ops.bmm(x, y, output(fixed(9 - shift), bits=bits))
    assert torch.equal(c.codes.long(), want)
    assert torch.equal(c.value, want.float() / 2.0 ** (9 - shift))
    assert c.value.is_contiguous()
    late = ops.bmm(
        coded(x.codes.transpose(1, 2).contiguous().transpose(1, 2), 4), y, output(fixed(9 - shift), bits=bits)
    )
    assert torch.equal(late.codes, c.codes)


def test_all_at_the_limit(isa: str) -> None:
    x = torch.full((2, 3, 5000), -128, dtype=torch.int8)
    got = ops.bmm_codes(x, x.transpose(1, 2), 0, 32)
    assert (got == 5000 << 14).all()


def test_the_scale_follows_the_exact_product() -> None:
    (x, y), s = operands(2, 5, 8, 7), stats()
    c = ops.bmm(x, y, output(s, observe=True))
    peak = (x.value.double() @ y.value.double()).abs().max().item()
    assert s.running.item() == peak
    assert c.scale.item() == 2.0 ** min(exp2_of_peak(peak, 8), 9)
    bad = x._replace(scale=torch.tensor(math.nan))
    c = ops.bmm(bad, y, output(s, observe=True))
    assert c.value.isnan().all()
    assert s.n_skipped.item() == 1


@pytest.mark.parametrize("shape", SHAPES[1:4])
def test_gradients(shape: tuple[int, ...], isa: str) -> None:
    x, y = (c._replace(value=c.value.requires_grad_()) for c in operands(*shape, 5, 5))
    t = torch.tensor([2.0], requires_grad=True)  # rint(7 - 2) = 5
    c = ops.bmm(x, y, output(stats(), threshold=t))
    g = torch.randn(c.value.shape)
    gx, gy, gt = torch.autograd.grad(c.value, (x.value, y.value, t), g)
    total = x.codes.long() @ y.codes.long()
    code = rsh(total, 5)
    passes = (code >= -128) & (code <= 127)
    masked = torch.where(passes, g, 0.0)
    torch.testing.assert_close(gx, masked @ y.value.detach().transpose(1, 2))
    torch.testing.assert_close(gy, x.value.detach().transpose(1, 2) @ masked)
    slope = torch.where(passes, code - total / 32.0, code.clamp(-128, 127).double())
    torch.testing.assert_close(gt, (math.log(2) / 32 * (g.double() * slope).sum()).float().reshape(1))


def test_refusals() -> None:
    (x, y), out = operands(2, 3, 4, 5), output(stats())
    for bad, kind, text in [
        (lambda: ops.bmm(x.codes, y, out), TypeError, "bmm: x must be Coded, got Tensor"),
        (lambda: ops.bmm(x, x, out), ValueError, r"bmm: x must be \(B, M, K\) and y \(B, K, N\), got"),
        (lambda: ops.bmm(x._replace(codes=x.codes.int()), y, out), UnsupportedError, "bmm: .* at most 8 bits"),
        (lambda: ops.bmm_codes(x.codes.int(), y.codes, 0, 8), TypeError, "bmm_codes: x must be torch.int8"),
        (lambda: ops.bmm_codes(x.codes, y.codes, 64, 8), ValueError, r"bmm_codes: shift must be in \[0, 63\]"),
        (lambda: ops.bmm_codes(x.codes[:, :0], y.codes, 0, 8), ValueError, "bmm_codes: sizes must be >= 1"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


@pytest.mark.parametrize("stack", [1, 2])
def test_the_result_may_be_overwritten(stack: int) -> None:
    x = coded(codes8(stack * 6).view(stack, 2, 3), 3)
    x = x._replace(value=x.value.requires_grad_())
    c = ops.bmm(x, coded(codes8(stack * 12).view(stack, 3, 4), 3), output(stats()))
    c.value.mul_(2.0).sum().backward()
    assert x.value.grad is not None
