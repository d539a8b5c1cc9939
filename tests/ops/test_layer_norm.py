"""Layer normalisation of codes against Python integers, statistics, gradients, refusals."""

import math

import numpy as np
import pytest
import torch
from norm_oracle import layer_norm as oracle
from ops_oracle import coded, codes8, exp2_of_peak, fixed, output, stats
from torch import Tensor
from torch.nn import functional as F

from linger import ops
from linger.errors import UnsupportedError
from linger.ops.layer_norm import nearest_eps
from linger.ops.spec import GRAD, OBSERVE

native = torch.ops.linger
SIZES = [1, 2, 3, 8, 20, 31, 256, 257, 363, 1100]


def rows_of(n: int, kind: str, seed: int = 0) -> Tensor:
    x = torch.randint(-128, 128, (3, n), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    if kind == "limits":
        x = torch.where(x < 0, -128, 127).to(torch.int8)
    elif kind == "constant":
        x = x[:, :1].expand(3, n).contiguous()
    elif kind == "narrow":
        x = x // 60 + 90
    return x


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", ["random", "limits", "constant", "narrow"])
@pytest.mark.parametrize("norm_bits", [16, 32])
def test_codes_are_the_engines(n: int, kind: str, norm_bits: int, isa: str) -> None:
    x = rows_of(n, kind, n)
    wide = norm_bits == 16
    generator = torch.Generator().manual_seed(n)
    for gamma_bits, beta_bits, x_exp2, shift in [
        (8, 18, 4, 11),
        (16 if wide else 8, 31, -2, 20),
        (4, 8, 17, 0),
        (8, 31, 40, 9),
    ]:
        gamma = torch.randint(-(2 ** (gamma_bits - 1)), 2 ** (gamma_bits - 1), (n,), generator=generator)
        beta = torch.randint(-(2**beta_bits), 2**beta_bits, (n,), generator=generator).to(torch.int32)
        gamma = gamma.to(torch.int16 if wide else torch.int8)
        for bits in (8, 16, 32):
            got = ops.layer_norm_codes(x, gamma, beta, x_exp2, shift, bits, norm_bits=norm_bits)
            want = oracle(x.numpy(), gamma.numpy(), beta.numpy(), x_exp2, shift, norm_bits, bits)
            assert np.array_equal(got.numpy(), want)


def trained(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, e_gamma: int, e_out: int, **changes: object
) -> ops.Coded:
    out = output(fixed(e_out), **changes)
    shape = tuple(x.shape[1:])
    return ops.layer_norm(coded(x, 4), gamma, beta, output(fixed(e_gamma)), out, shape=shape)


@pytest.mark.parametrize("shape", [(40,), (4, 10), (300,)])
@pytest.mark.parametrize("relu", [False, True])
def test_the_operator_quantizes_parameters_and_result(shape: tuple[int, ...], relu: bool, isa: str) -> None:
    n = math.prod(shape)
    x = codes8(5 * n, 3).view(5, *shape)
    gamma, beta = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    c = trained(x, gamma, beta, 6, 5, relu=relu)
    g = (gamma * 64).round().clamp(-128, 127).long().flatten()
    b = (beta.double() * 65536).round().long().flatten()
    want = oracle(x.view(5, n).numpy(), g.numpy(), b.numpy(), 4, 11, 32)
    assert np.array_equal(c.codes.view(5, n).numpy(), want.clip(0) if relu else want)
    assert torch.equal(c.value, c.codes / 32.0)
    assert c.scale == 32.0
    plain = trained(x, None, None, 0, 5)  # gamma is exactly 1
    want = oracle(x.view(5, n).numpy(), np.full(n, 64), np.zeros(n, int), 4, 11, 32)
    assert np.array_equal(plain.codes.view(5, n).numpy(), want)
    float_result = F.layer_norm(x / 16.0, shape)
    assert (plain.value - float_result).abs().max() < 0.03


def test_the_scale_follows_the_exact_sum() -> None:
    x, s = codes8(4 * 30, 1).view(4, 30), stats()
    gamma, beta = torch.full((30,), 0.5), torch.full((30,), 0.25)
    c = ops.layer_norm(coded(x, 3), gamma, beta, output(fixed(5)), output(s, observe=True), shape=(30,))
    want = oracle(x.numpy(), np.full(30, 16), np.full(30, 8192), 3, 0, 32, 32)
    assert s.running == abs(want).max() / 2.0**15
    assert c.scale == 2.0 ** exp2_of_peak(s.running.item(), 8)
    small = ops.layer_norm(
        coded(x, 3), gamma / 1000, None, output(fixed(0)), output(stats(), observe=True), shape=(30,)
    )
    assert small.scale == 2.0**10  # the cap: 10 + e_gamma
    clamped = ops.layer_norm(coded(x, 3), gamma, beta, output(fixed(5)), output(fixed(5), clamp=0.5), shape=(30,))
    assert clamped.value.abs().max() == 0.5


def test_beta_lowers_the_scale_of_gamma() -> None:
    x, gamma, beta = codes8(16).view(1, 16), torch.full((16,), 0.01), torch.full((16,), 1000.0)
    c = ops.layer_norm(coded(x, 3), gamma, beta, output(stats(), observe=True), output(fixed(-3)), shape=(16,))
    assert torch.equal(c.value, torch.full((1, 16), 1000.0))


@pytest.mark.parametrize("which", ["x", "gamma", "beta"])
def test_nan(which: str) -> None:
    x, s = codes8(40).view(2, 20), fixed(4)
    gamma, beta = torch.ones(20), torch.zeros(20)
    if which != "x":
        (gamma if which == "gamma" else beta)[3] = math.nan
    operand = coded(x, math.nan if which == "x" else 4)
    c = ops.layer_norm(operand, gamma, beta, output(stats()), output(s, observe=True), shape=(20,))
    assert c.value.isnan().all()
    assert not c.codes.any()
    assert (s.n_skipped.item(), s.n_batches.item()) == (1, 0)


@pytest.mark.parametrize("eps_shift", [0, 3])
@pytest.mark.parametrize("affine", [False, True])
def test_gradients_are_the_float_ones(affine: bool, eps_shift: int, isa: str) -> None:
    q = (codes8(6 * 20, 2) // 30).view(6, 4, 5)
    x = coded(q, 5)._replace(value=(q.float() / 32).requires_grad_())
    gamma, beta = (t.requires_grad_() for t in torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(3)))
    t = torch.tensor([2.0], requires_grad=True)  # rint(7 - 2) = 5
    tg = torch.tensor([1.0], requires_grad=True)  # 6
    parameters = (gamma, beta) if affine else (None, None)
    c = ops.layer_norm(
        x, *parameters, output(stats(), threshold=tg), output(stats(), threshold=t), shape=(4, 5), eps_shift=eps_shift
    )
    grad = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(4))
    wanted = (x.value, t, *((gamma, beta, tg) if affine else ()))
    gx, gt, *rest = torch.autograd.grad(c.value, wanted, grad)

    xd = (q.double() / 32).requires_grad_()
    codes_g = (gamma.detach() * 64).round()
    gd = ((codes_g.clamp(-128, 127) / 64).double() if affine else torch.ones(4, 5).double()).requires_grad_()
    y = F.layer_norm(xd, (4, 5), gd, None, 1e-5 * 4.0**eps_shift)
    gammas = gd.detach().flatten().numpy() * 64
    betas = (beta.detach().double() * 65536).round().flatten().numpy() if affine else np.zeros(20)
    total = oracle(q.view(6, 20).numpy(), gammas.astype(int), betas.astype(int), 5 + eps_shift, 0, 32, 40)
    total = torch.from_numpy(total).view(6, 4, 5)
    rounded = (total + 1024) >> 11
    passes = (rounded >= -128) & (rounded <= 127)
    y.backward(torch.where(passes, grad, 0.0).double())
    torch.testing.assert_close(gx, xd.grad.float(), atol=1e-5, rtol=1e-5)
    slope = torch.where(passes, rounded - total / 2048.0, rounded.clamp(-128, 127).double())
    torch.testing.assert_close(
        gt, (math.log(2) / 32 * (grad.double() * slope).sum()).float().reshape(1), atol=1e-5, rtol=1e-4
    )
    if affine:
        g_gamma, g_beta, g_tg = rest
        inside = codes_g.abs() <= 127
        torch.testing.assert_close(g_gamma, gd.grad.float(), atol=1e-5, rtol=1e-5)  # also where its code saturates
        torch.testing.assert_close(g_beta, torch.where(passes, grad, 0.0).sum(0), atol=1e-5, rtol=1e-5)
        slope = torch.where(inside, codes_g - gamma.detach() * 64, codes_g.clamp(-128, 127)).double()
        torch.testing.assert_close(
            g_tg, (math.log(2) / 64 * (gd.grad * slope).sum()).float().reshape(1), atol=1e-5, rtol=1e-4
        )


def test_threads_and_layouts_change_nothing() -> None:
    x = codes8(700 * 64).view(700, 64)
    gamma, beta = torch.randn(2, 64)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 8):
        torch.set_num_threads(threads)
        results.append(ops.layer_norm(coded(x, 4), gamma, beta, output(fixed(6)), output(stats()), shape=(64,)))
    torch.set_num_threads(before)
    turned = x.t().contiguous().t()
    results.append(ops.layer_norm(coded(turned, 4), gamma, beta, output(fixed(6)), output(stats()), shape=(64,)))
    for r in results[1:]:
        assert torch.equal(r.codes, results[0].codes)
        assert r.scale == results[0].scale
    empty = ops.layer_norm(coded(x[:0], 4), gamma, beta, output(fixed(6)), output(fixed(3)), shape=(64,))
    assert empty.codes.shape == (0, 64)


@pytest.mark.parametrize(("eps", "k"), [(1e-5, 0), (1e-6, -2), (1e-12, -12), (1e-3, 3), (4e-5, 1), (0.0, -40)])
def test_the_nearest_eps(eps: float, k: int) -> None:
    assert nearest_eps(eps) == k


def test_refusals() -> None:
    x, one, out = coded(codes8(8).view(2, 4), 1), torch.ones(4), output(stats())
    q, g, b = x.codes, torch.ones(4, dtype=torch.int8), torch.zeros(4, dtype=torch.int32)
    wide = coded(torch.ones(2, 4, dtype=torch.int32), 1)
    for bad, kind, text in [
        (
            lambda: ops.layer_norm(q, one, one, out, out, shape=(4,)),
            TypeError,
            "layer_norm: x must be Coded, got Tensor",
        ),
        (
            lambda: ops.layer_norm(wide, one, one, out, out, shape=(4,)),
            UnsupportedError,
            "at most 8 bits, got codes of type",
        ),
        (
            lambda: ops.layer_norm(x, one, one, out, out, shape=(3,)),
            ValueError,
            r"x must have shape \(\.\.\., 3\), got \(2, 4\)",
        ),
        (
            lambda: ops.layer_norm(x, one, one[:2], out, out, shape=(4,)),
            ValueError,
            r"beta must have shape \(4,\), got \(2,\)",
        ),
        (
            lambda: ops.layer_norm(x, one, None, output(stats(), bits=17), out, shape=(4,)),
            UnsupportedError,
            "gamma must have at most 16 bits, got 17",
        ),
        (
            lambda: ops.layer_norm(x, one, None, out, out, shape=(4,), norm_bits=8),
            ValueError,
            "norm_bits must be 16 or 32, got 8",
        ),
        (
            lambda: ops.layer_norm_codes(q.float(), g, b, 4, 0),
            TypeError,
            "layer_norm_codes: x must be int8, got torch.float32",
        ),
        (lambda: ops.layer_norm_codes(q, g, b[:1], 4, 0), ValueError, r"beta must have shape \(4,\), got \(1,\)"),
        (lambda: ops.layer_norm_codes(q, g, b, 4, 64), ValueError, r"shift must be in \[0, 63\], got 64"),
    ]:
        with pytest.raises(kind, match=text):
            bad()


def test_opcheck() -> None:
    q, one = codes8(24).view(2, 3, 4), torch.ones(())
    g, b = torch.ones(4, dtype=torch.int8), torch.zeros(4)
    for flags in (0, OBSERVE | GRAD):
        for t in (None, torch.tensor([1.0])):
            torch.library.opcheck(native.layer_norm.default, (q, one, g, one, b, *fixed(0), t, 0, 32, 8, 0.0, 1, flags))
    torch.library.opcheck(native.layer_norm_codes.default, (q, g, b.int(), 3, 32, 5, 16))
