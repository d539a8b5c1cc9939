"""The CUDA twins give the CPU's bits: codes, values, masks, slopes, gradients and the quantizer's state."""

import math
import os
from itertools import product

import pytest
import torch
from ops_oracle import SIZES, coded, codes8, floats, output, stats
from torch import Tensor

from linger import ops
from linger.errors import UnsupportedError
from linger.ops.spec import OBSERVE, RELU, settings_of

native = torch.ops.linger


@pytest.fixture
def gpu() -> torch.device:
    """Skips without a GPU or without the kernels; LINGER_REQUIRE_CUDA=1 makes that a failure."""
    built = torch._C._dispatch_has_kernel_for_dispatch_key("linger::quantize", "CUDA")
    if not torch.cuda.is_available() or not built:
        why = "no GPU" if built else "built without CUDA kernels"
        (pytest.fail if os.environ.get("LINGER_REQUIRE_CUDA") == "1" else pytest.skip)(why)
    return torch.device("cuda")


def call(x: Tensor, state: ops.Stats, threshold: Tensor | None, settings: int, clamp: float) -> tuple[Tensor, ...]:
    if threshold is None:
        return native.quantize_mask(x, *state, settings, clamp)
    return native.quantize_slope(x, *state, settings, threshold, clamp)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal bits, NaN included."""
    b = b.cpu()
    return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a.nan_to_num(7.25), b.nan_to_num(7.25))


@pytest.mark.parametrize(("bits", "rounding", "flags"), list(product([4, 8, 16, 32], range(4), [0, OBSERVE | RELU])))
@pytest.mark.parametrize("t", [None, 2.3, 12.0])
def test_quantize_and_its_state(gpu: torch.device, bits: int, rounding: int, flags: int, t: float | None) -> None:
    here, there = stats(), ops.Stats(*(s.to(gpu) for s in stats()))
    threshold = None if t is None else torch.tensor([t])
    for n, clamp in [*((n, 0.0) for n in SIZES), (100_000, 1.7)]:
        x = floats(n, seed=n, exp2=3, infinite=n % 2 == 0)
        if n == 33:
            x[5] = math.nan
        rest = (settings_of(bits, rounding, flags), clamp)
        want = call(x, here, threshold, *rest)
        got = call(x.to(gpu), there, None if threshold is None else threshold.to(gpu), *rest)
        assert all(same(a, b) for a, b in zip(want, got, strict=True))
        assert all(same(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("n", [*SIZES, 100_001])
@pytest.mark.parametrize("row", [0, 1, 17])
def test_mask_grad(gpu: torch.device, n: int, row: int) -> None:
    g = torch.randn(n, row or 1)
    mask = torch.randint(0, 256, (n * ((row + 15) // 16 * 2) if row else (n + 7) // 8,), dtype=torch.uint8)
    assert same(native.mask_grad(g, mask, row), native.mask_grad(g.to(gpu), mask.to(gpu), row))


@pytest.mark.parametrize("n", [*SIZES, 100_001])
def test_threshold_grad(gpu: torch.device, n: int) -> None:
    g, slope, scale = torch.randn(n), torch.randn(n), torch.tensor(16.0)
    want = native.threshold_grad(g, slope, scale)
    assert same(want, native.threshold_grad(g.to(gpu), slope.to(gpu), scale.to(gpu)))


def test_a_training_step_reads_nothing_back(gpu: torch.device) -> None:
    x = torch.randn(4, 8, 5, 5, device=gpu).contiguous(memory_format=torch.channels_last).requires_grad_()
    t = torch.tensor([1.0], device=gpu, requires_grad=True)
    out = output(ops.Stats(*(s.to(gpu) for s in stats())), threshold=t, observe=True)
    g = torch.randn(4, 8, 5, 5, device=gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        c = ops.quantize(x, out)
        c.value.backward(g)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    leaf, t2 = x.detach().cpu().requires_grad_(), torch.tensor([1.0], requires_grad=True)
    want = ops.quantize(leaf, output(stats(), threshold=t2, observe=True))
    want.value.backward(g.cpu())
    assert same(want.value.detach(), c.value.detach())
    assert same(leaf.grad, x.grad)
    assert same(t2.grad, t.grad)


def test_an_operator_without_cuda_kernel_says_so(gpu: torch.device) -> None:
    x = ops.Coded(*(part.to(gpu) for part in coded(codes8(8), 2)))
    with pytest.raises(UnsupportedError, match="linger::add has no CUDA kernel yet"):
        ops.add(x, x, output(stats()))
