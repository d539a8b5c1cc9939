"""The GRU operator: integers against an int64 oracle and recorded vectors, gradients against float64."""

import math

import numpy as np
import ops_oracle
import pytest
import recurrent_oracle as oracle
import torch
from golden.cases import ARRAYS
from recurrent_cases import Float, each_platform, random_codes

from linger import ops
from linger.ops.gru import gru, gru_codes
from linger.ops.recurrent import Walk, Weights, hidden_scale, whole

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 9), (9, 4, 20, 33), (16, 3, 33, 16), (2, 7, 64, 40)]


def case(platform, shape, seed, extreme=False):
    """Random operands: x, w_ih, w_hh, b_ih, b_hh, exponents, h0."""
    batch, steps, d, hidden = shape
    g = torch.Generator().manual_seed(seed)
    wide = 2**31 - 1 if extreme else 2**13
    bias = [torch.randint(-wide, wide, (3 * hidden,), generator=g, dtype=torch.int32) for _ in range(2)]
    w = [random_codes(g, 3 * hidden, k, extreme=extreme) for k in (d, hidden)]
    ranges = ((5, 8), (6, 9), (6, 9), (5, 9)) if not extreme else ((6, 15),) * 4
    exp2 = [int(torch.randint(lo, hi, (1,), generator=g)) for lo, hi in ranges]
    x = random_codes(g, steps, batch, d, extreme=extreme)
    return x, *w, *bias, exp2, random_codes(g, batch, hidden)


def expected(platform, operands, reverse, lengths=None):
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0 = operands
    layer = oracle.Layer(platform, x, w_ih, w_hh, b_ih, b_hh, exp2, reverse, lengths)
    leaves = [torch.zeros(t.shape, dtype=torch.float64) for t in (x, w_ih, w_hh, b_ih, b_hh)]
    y, h, _ = oracle.gru(layer, leaves, h0.double(), h0)
    return [(t * 2.0 ** exp2[3]).round().long() for t in (y, h)]


@each_platform
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_integers_match_the_oracle(platform, shape, extreme, reverse, isa):
    operands = case(platform, shape, len(isa) + shape[0], extreme)
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0 = operands
    y, h = gru_codes(x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), whole(x, oracle.formulas(platform, 3), reverse), h0)
    want = expected(platform, operands, reverse)
    assert torch.equal(y.long(), want[0])
    assert torch.equal(h[0].long(), want[1])


@each_platform
def test_saturated_sums_one_shift_from_their_format(platform, isa):
    operands = list(case(platform, (3, 4, 20, 33), 1, extreme=True))
    operands[5] = (7, 5, 5, 7) if platform == "venus" else (7, 21, 21, 7)  # Q12 to Q11, Q28 to Q27
    operands[3].fill_(2**31 - 1)
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0 = operands
    y, _ = gru_codes(x, w_ih, w_hh, b_ih, b_hh, exp2, whole(x, oracle.formulas(platform, 3)), h0)
    assert torch.equal(y.long(), expected(platform, operands, False)[0])


@each_platform
@pytest.mark.parametrize("reverse", [False, True])
def test_rows_of_packed_input(platform, reverse, isa):
    operands = case(platform, (9, 6, 10, 18), 5)
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0 = operands
    lengths = torch.tensor([6, 6, 5, 4, 4, 4, 3, 1, 1])
    walk, rows = oracle.packed_walk(lengths, platform, reverse, gates=3)
    packed = torch.stack([x[t, r] for t, r in rows])
    y, h = gru_codes(packed, w_ih, w_hh, b_ih, b_hh, tuple(exp2), walk, h0)
    want = expected(platform, operands, reverse, lengths)
    assert torch.equal(y.long(), torch.stack([want[0][t, r] for t, r in rows]))
    assert torch.equal(h[0].long(), want[1])


@each_platform
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (16, 9, 20, 32), (1, 12, 16, 16), (9, 7, 33, 40)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_follow_the_rule_in_float64(platform, shape, packed, reverse, isa):
    model = Float("gru", platform, shape, shape[0] + 10 * packed, reverse, packed, given=packed or reverse)
    y, h, _ = model.run()
    got = torch.autograd.grad(model.loss(y, h, None), model.leaves)
    (want_y, want_h, _, peak, _), want = model.reference()
    assert torch.equal(y.value.double(), want_y)
    assert torch.equal(h.value[0].double(), want_h)
    assert float(model.result.peak) == np.float32(peak)
    for ours, theirs in zip(got, want, strict=False):
        assert float((ours.double() - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_recorded_vectors(isa):
    """The chip's own integers of the later engine revision."""
    cases = [c for c in ARRAYS if c.op == "later_GRUInt"]
    assert len(cases) == 15
    for recorded in cases:
        q, a = recorded.about["params"], recorded.arrays
        x = torch.from_numpy(a["in_0"][0].copy())
        steps = len(x)
        walk = Walk(
            torch.arange(steps),
            torch.ones(steps, dtype=torch.int32),
            1,
            1,
            oracle.formulas(recorded.platform, 3),
            not q["go_forward"],
        )
        w = [torch.from_numpy(a[f"w_{i}"]) for i in range(4)]
        y, h = gru_codes(x, *w, (q["q_x"], q["q_iw"], q["q_hw"], q["q_h"]), walk)
        assert np.array_equal(y, a["out_0"][0]), recorded.id
        assert np.array_equal(h.flatten(), a["out_1"]), recorded.id


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_do_not_change_a_bit(threads):
    before = torch.get_num_threads()
    results = []
    try:
        for n in (1, threads):
            torch.set_num_threads(n)
            model = Float("gru", "arcs", (40, 6, 20, 24), seed=3)
            y, h, _ = model.run()
            results.append([y.value, h.value, *torch.autograd.grad(model.loss(y, h, None), model.leaves)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("poisoned", range(5))
def test_nan_shows_and_passes_no_gradient(poisoned):
    model = Float("gru", "venusA", (3, 4, 5, 6), 1)
    leaf = (*model.w, model.h0)[poisoned]
    leaf.detach().flatten()[0] = float("nan")
    y, h, _ = model.run()
    assert y.value.isnan().all()
    assert h.value.isnan().all()
    assert y.scale.isnan()
    assert not y.codes.any()
    grads = torch.autograd.grad(y.value.sum(), model.leaves, allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


@each_platform
def test_threshold_gradients(platform, isa):
    """The state's threshold follows what each rounding and saturation lost; the matrices' thresholds get a gradient too."""
    model = Float("gru", platform, (5, 6, 7, 20), 4, method="TQT")
    y, h, _ = model.run()
    *_, g_ih, g_hh, g_h = torch.autograd.grad(model.loss(y, h, None), model.leaves)
    assert float(g_ih.abs()) > 0
    assert float(g_hh.abs()) > 0
    want = model.reference()[1][-1]
    assert float((g_h - want).abs()) <= 1e-5 * float(want.abs()) + 1e-6  # terms of both signs
    with torch.no_grad():
        model.outs[2].threshold.fill_(-30.0)  # the exponent is clipped to 23, or lowered to 15
    y, h, _ = model.run()
    assert float(torch.autograd.grad(model.loss(y, h, None), [model.outs[2].threshold])[0]) == 0.0


def test_errors_name_argument_expected_and_got():
    model = Float("gru", "arcs", (3, 4, 5, 6), 0)
    model.run()
    ih, hh, out = model.outs
    x, w = ops.Coded(model.x, model.codes, model.x_scale), Weights(*model.w, ih, hh)
    with pytest.raises(ValueError, match=r"gru: w_ih must be \(3 \* H, D\)"):
        gru(x, w._replace(w_ih=model.w[0][:12]), model.h_scale, out, model.walk)
    with pytest.raises(TypeError, match=r"gru_codes: w_ih must be torch\.int8"):
        gru_codes(model.codes, *model.w, (5, 7, 7, 7), model.walk)
    with pytest.raises(ValueError, match="gru: h_scale must be a power of two, got 96"):
        gru(x, w, torch.tensor(96.0), out, model.walk)
    with pytest.raises(ValueError, match="gru: the scale of x must be a power of two, got -8"):
        gru(x._replace(scale=torch.tensor(-8.0)), w, model.h_scale, out, model.walk)


@pytest.mark.on_cpu
def test_walks_that_leave_the_input_are_refused():
    operands = case("arcs", (3, 4, 5, 6), 0)
    with pytest.raises(RuntimeError, match="offsets and counts must stay inside x"):
        gru_codes(*operands[:5], tuple(operands[5]), whole(operands[0], oracle.formulas("arcs", 3))._replace(stride=2))


def test_fake_kernels():
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0 = case("venusA", (3, 4, 5, 6), 0)
    ex, ei, eh, e = (torch.tensor(2.0**k) for k in exp2)
    walk = whole(x, oracle.formulas("venusA", 3)).arguments
    call = (x, ex, w_ih, ei, w_hh, eh, b_ih, b_hh, e, h0, *walk)
    torch.library.opcheck(torch.ops.linger.gru.default, (*call, True))
    results = torch.ops.linger.gru(*call, True)
    weights = (x, ex, w_ih, ei, w_hh, eh, e, h0, results[1], results[6])
    grads = torch.randn(4, 3, 6), torch.randn(1, 3, 6)
    torch.library.opcheck(torch.ops.linger.gru_backward.default, (*grads, *weights, *walk, True, False))


def test_backward_refuses_what_forward_did_not_save():
    x, w_ih, w_hh, _, _, _, h0 = case("arcs", (3, 4, 10, 20), 2)
    one, walk = torch.tensor(128.0), whole(x, oracle.formulas("arcs", 3)).arguments
    results = torch.ops.linger.gru(x, one, w_ih, one, w_hh, one, None, None, one, h0, *walk, True)
    y, codes, pre, h_codes = (results[i] for i in (0, 1, 6, 7))
    for i in range(3):
        saved = [h_codes, codes, pre]
        saved[i] = saved[i].flatten()[:1].clone()
        with pytest.raises(RuntimeError, match="gru_backward: what forward saved does not fit x"):
            torch.ops.linger.gru_backward(
                torch.ones_like(y), None, x, one, w_ih, one, w_hh, one, one, *saved, *walk, True, True
            )


@each_platform
def test_a_code_rounded_twice_is_not_saturated(platform, isa):
    """n is rounded before the state is: what both lose may be up to a step, and that is what the threshold gets."""
    hidden, batch = 24, 6
    g = torch.Generator().manual_seed(3)
    threshold = torch.tensor([0.0], requires_grad=True)
    w = [torch.randn(3 * hidden, k, generator=g) * 0.2 for k in (2, hidden)]
    finest = (ops_oracle.output(ops_oracle.fixed(6)) for _ in range(2))
    out, codes = ops_oracle.output(ops_oracle.stats(), threshold=threshold), random_codes(g, 1, batch, 2)
    scale = hidden_scale(out)
    x = ops.Coded(codes / 2.0**6, codes, torch.tensor(2.0**6))
    y = gru(x, Weights(*w, None, None, *finest), scale, out, whole(codes, oracle.formulas(platform, 3))).out
    assert 0 < int(y.codes.abs().max()) < 127
    lost = [
        abs(float(torch.autograd.grad(v, threshold, retain_graph=True)[0])) * scale.item() / math.log(2.0)
        for v in y.value.flatten().unbind()
    ]
    assert 0.5 < max(lost) <= 1.0
