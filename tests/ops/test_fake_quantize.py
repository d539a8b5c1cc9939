"""The operators of dopt: native == torch's operators, bit for bit, and the rules as a few lines of numpy."""

import math

import numpy as np
import pytest
import torch
from ops_oracle import LAYOUTS
from torch import Tensor

from linger import ops
from linger.ops import fake_quantize_any as other
from linger.ops.fake_quantize import CALIBRATE, N_STATE
from linger.ops.spec import GRAD, OBSERVE

EXPS = range(-16, 24)


def data(n: int, seed: int = 0, span: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator) * span
    x[: min(n, 8)] = torch.tensor([0.5, -0.5, 127.5, -128.5, -0.0, 1e-30, 0.49999997, 0.0])[: min(n, 8)] / 32
    return x


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, NaN apart from its sign."""
    if a.dtype != torch.float32:
        return torch.equal(a, b)
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(
        a.nan_to_num().view(torch.int32), b.nan_to_num().view(torch.int32)
    )


def error(x: Tensor, e: int, rounding: str = "floor") -> float:
    v = x.double().numpy() * 2.0**e
    code = np.rint(v) if rounding == "even" else np.floor((v.astype(np.float32) + np.float32(0.5)).astype(np.float64))
    return float(((x.double().numpy() - np.clip(code, -128, 127) / 2.0**e) ** 2).sum())


def both(x: Tensor, state: Tensor, **how: bool) -> tuple[Tensor, Tensor]:
    """Values and moved state, after checking that the two forms agree on them and on the gradients."""
    found = []
    for quantize in (
        ops.fake_quantize,
        lambda x, s, observe=False, calibrate=False: other.fake_quantize(x, s, observe, calibrate),
    ):
        leaf, s = x.clone().requires_grad_(), state.clone()
        value = quantize(leaf, s, **how)
        value.backward(torch.ones_like(value))
        found.append((value.detach(), s, leaf.grad))
    assert all(same(a, b) for a, b in zip(*found, strict=True))
    return found[0][:2]


@pytest.mark.parametrize("n", [1, 7, 33, 1000, 16384, 40001])
@pytest.mark.parametrize("span", [1e-5, 3.0, 300.0, 1e6])
def test_both_forms_agree_in_every_mode(n: int, span: float, isa: str) -> None:
    state = torch.zeros(N_STATE)
    for seed, how in enumerate(
        [{}, {"observe": True}, {"observe": True}, {}, {"calibrate": True}, {"calibrate": True}, {}, {"observe": True}]
    ):
        value, state = both(data(n, seed, span), state, **how)
        assert value.isfinite().all()


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_strides_are_kept_and_do_not_change_the_sums(layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(2, 3, 4, 5))
    value, state = both(x, torch.zeros(N_STATE), calibrate=True)
    dense, again = both(x.contiguous(), torch.zeros(N_STATE), calibrate=True)
    assert torch.equal(value, dense) and torch.allclose(state, again, rtol=1e-6)


def test_the_running_maximum_moves_as_written() -> None:
    state = torch.zeros(N_STATE)
    running = None
    for seed in range(4):
        x = data(100, seed, 3.0 + seed)
        m = np.float32(x.abs().max())
        running = m if running is None else np.float32(np.float32(0.9) * running + np.float32(0.1) * m)
        value, state = both(x, state, observe=True)
        assert state[0].item() == running and not state[1:].any()
        e = 7 - round(math.log2(running))
        assert torch.equal(value, (x * 2.0**e + 0.5).floor().clamp(-128, 127) / 2.0**e)
    before = state.clone()
    ops.fake_quantize(data(100, 9, 50.0), state)  # neither training nor calibration
    assert torch.equal(state, before)


def test_calibration_finds_the_exponent_of_least_error_over_all_batches() -> None:
    state, batches = torch.zeros(N_STATE), [data(5000, seed, 2.0**seed) for seed in range(3)]
    for k, x in enumerate(batches):
        value, state = both(x, state, calibrate=True)
        total = [sum(error(b, e) for b in batches[: k + 1]) for e in EXPS]
        assert np.allclose(state[2:].numpy(), total, rtol=1e-5)
        e = EXPS[int(np.argmin(total))]
        assert torch.equal(value, (x * 2.0**e + 0.5).floor().clamp(-128, 127) / 2.0**e)
        assert state[1] == k + 1 and state[0] == 2.0 ** (7 - e)
    _, state = both(batches[0], state, observe=True)
    assert not state[1:].any()  # training starts the sums anew


@pytest.mark.parametrize("how", [{}, {"observe": True}, {"calibrate": True}], ids=["eval", "observe", "calibrate"])
@pytest.mark.parametrize("known", [False, True])
def test_what_is_not_finite_moves_no_range_and_nan_stays(how: dict[str, bool], known: bool) -> None:
    state = torch.zeros(N_STATE)
    if known:
        _, state = both(data(50), state, calibrate=True)
    for bad in (math.nan, math.inf, -math.inf):
        x = data(70)
        x[40] = bad
        value, after = both(x, state, **how)
        assert torch.equal(after, state)
        assert value.isnan().all() if math.isnan(bad) else value.isfinite().all()


def test_zeros_are_no_range_to_average_with() -> None:
    _, state = both(torch.zeros(9), torch.zeros(N_STATE), observe=True)
    assert state[0] == np.float32(1e-6)
    _, state = both(torch.full((9,), 5.0), state, observe=True)
    assert state[0] == 5.0


def test_huge_numbers_choose_the_coarsest_exponent() -> None:
    value, state = both(torch.full((9,), 1e30), torch.zeros(N_STATE), calibrate=True)
    assert torch.equal(value, torch.full((9,), 127 * 2.0**16)) and state[0] == 2.0**23


def test_an_empty_batch_says_nothing() -> None:
    for how in ({}, {"observe": True}, {"calibrate": True}):
        value, state = both(torch.zeros(0, 3), torch.zeros(N_STATE), **how)
        assert value.shape == (0, 3) and not state.any()


@pytest.mark.parametrize("span", [1e-9, 1e-4, 0.3, 1.0, 7.0, 5e4, 1e9])
@pytest.mark.parametrize("n", [1, 64, 5000, 40001])
def test_weights_take_the_exponent_of_less_error(n: int, span: float, isa: str) -> None:
    for seed in range(6):
        w = torch.randn(n, generator=torch.Generator().manual_seed(seed)).pow(1 + 2 * (seed % 2)) * span
        leaves = [w.clone().requires_grad_() for _ in range(2)]
        (value, scale), (value_other, scale_other) = (
            ops.fake_quantize_weight(leaves[0]),
            other.fake_quantize_weight(leaves[1]),
        )
        assert same(value, value_other) and same(scale, scale_other)
        value.sum().backward()
        value_other.sum().backward()
        assert torch.equal(leaves[0].grad, leaves[1].grad)
        coarse = max(-16, min(23, 7 - math.frexp(max(w.abs().max().item(), 1e-6))[1]))
        e = min(coarse + 1, 23) if error(w, coarse + 1, "even") < error(w, coarse, "even") else coarse
        assert scale == 2.0**e
        assert torch.equal(value, (w * 2.0**e).round().clamp(-128, 127) / 2.0**e)


def test_weights_with_nan_and_without_elements() -> None:
    for form in (ops.fake_quantize_weight, other.fake_quantize_weight):
        value, scale = form(torch.tensor([1.0, math.nan]))
        assert value.isnan().all() and scale.isnan()
        value, scale = form(torch.zeros(0))
        assert value.numel() == 0 and scale == 2.0**23
        value, scale = form(torch.zeros(4))
        assert not value.any() and scale == 2.0**23


@pytest.mark.parametrize("flags", [0, OBSERVE, GRAD, CALIBRATE | GRAD])
def test_opcheck(flags: int) -> None:
    native = torch.ops.linger
    for layout in ("channels_last", "sliced"):
        x = LAYOUTS[layout](torch.randn(2, 3, 4, 5))
        torch.library.opcheck(native.fake_quantize.default, (x, torch.zeros(N_STATE), flags))
        torch.library.opcheck(native.fake_quantize_weight.default, (x, flags & GRAD))


def test_other_types_are_widened_and_given_back() -> None:
    x, state = torch.randn(40, dtype=torch.bfloat16), torch.zeros(N_STATE)
    value = ops.fake_quantize(x, state, observe=True)
    assert value.dtype == torch.bfloat16
    assert torch.equal(value, ops.fake_quantize(x.float(), state).bfloat16())
    assert ops.fake_quantize_weight(x)[0].dtype == torch.bfloat16


def test_gradients_of_gradients_pass_the_mask() -> None:
    x = data(40).requires_grad_()
    (g,) = torch.autograd.grad((ops.fake_quantize(x, torch.zeros(N_STATE)) ** 3).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    assert torch.allclose(h, 6 * ops.fake_quantize(x.detach(), torch.zeros(N_STATE)) * (g != 0))


def test_refusals_name_the_argument() -> None:
    x, state = torch.zeros(3), torch.zeros(N_STATE)
    with pytest.raises(TypeError, match="fake_quantize: x must be a Tensor, got list"):
        ops.fake_quantize([1.0], state)
    with pytest.raises(TypeError, match=r"fake_quantize: state must be a float32 Tensor, got torch\.float16"):
        ops.fake_quantize(x, state.half())
    with pytest.raises(ValueError, match=r"fake_quantize: state must have the shape \[42\], got \[41\]"):
        ops.fake_quantize(x, state[1:])
    with pytest.raises(TypeError, match=r"fake_quantize_weight: w must be float32, .* or float64, got"):
        ops.fake_quantize_weight(torch.zeros(3, dtype=torch.int64))
    native = torch.ops.linger
    with pytest.raises(RuntimeError, match="fake_quantize: state must have 42 elements on the CPU, got 3"):
        native.fake_quantize(x, x, 0)
    with pytest.raises(RuntimeError, match="fake_quantize_weight: w must be float32"):
        native.fake_quantize_weight(x.double(), 0)
