"""The LSTM operator: integers against an int64 oracle, gradients against float64, engines against each other."""

import numpy as np
import ops_oracle
import pytest
import recurrent_oracle as oracle
import torch
from golden.cases import CASES
from recurrent_cases import Float, each_platform, random_codes

from linger import ops
from linger.ops.lstm import lstm, lstm_codes
from linger.ops.recurrent import Walk, Weights, hidden_observe, hidden_scale, whole

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 9), (9, 4, 20, 33), (16, 3, 33, 16), (2, 7, 64, 40)]


def case(platform, shape, seed, extreme=False):
    """Random operands: x, w_ih, w_hh, b_ih, b_hh, exponents, h0, c0."""
    batch, steps, d, hidden = shape
    g = torch.Generator().manual_seed(seed)
    wide = 2**31 - 1 if extreme else 2**13
    bias = [torch.randint(-wide, wide, (4 * hidden,), generator=g, dtype=torch.int32) for _ in range(2)]
    w = [random_codes(g, 4 * hidden, k, extreme=extreme) for k in (d, hidden)]
    exp2 = [int(torch.randint(lo, hi, (1,), generator=g)) for lo, hi in ((3, 8), (4, 9), (4, 9), (5, 9))]
    if extreme:
        exp2 = [int(torch.randint(0, 15, (1,), generator=g)) for _ in range(4)]
    h0 = random_codes(g, batch, hidden)
    top = 2**15 if platform == "venus" else 2**18
    c0 = torch.randint(-top, top, (batch, hidden), generator=g, dtype=torch.int32)
    return random_codes(g, steps, batch, d, extreme=extreme), *w, *bias, exp2, h0, c0


def expected(platform, operands, reverse, lengths=None):
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0, c0 = operands
    layer = oracle.Layer(platform, x, w_ih, w_hh, b_ih, b_hh, exp2, reverse, lengths)
    leaves = [torch.zeros(t.shape, dtype=torch.float64) for t in (x, w_ih, w_hh, b_ih, b_hh)]
    y, h, c, peak, cut = oracle.lstm(layer, leaves, h0.double(), c0.double(), (h0, c0))
    q = 7 if platform == "venus" else 15
    return [(t * 2.0**e).round().long() for t, e in ((y, exp2[3]), (h, exp2[3]), (c, q))], peak, cut


@each_platform
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_integers_match_the_oracle(platform, shape, extreme, reverse, isa):
    operands = case(platform, shape, len(isa) + shape[0], extreme)
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0, c0 = operands
    got = lstm_codes(x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), whole(x, oracle.formulas(platform), reverse), h0, c0)
    want, _, _ = expected(platform, operands, reverse)
    assert torch.equal(got[0].long(), want[0])
    assert torch.equal(got[1][0].long(), want[1])
    assert torch.equal(got[2][0].long(), want[2])


@each_platform
def test_saturated_sums_one_shift_from_their_format(platform, isa):
    operands = list(case(platform, (3, 4, 20, 33), 1, extreme=True))
    operands[5] = (7, 5, 5, 7) if platform == "venus" else (7, 21, 21, 7)  # Q12 to Q11, Q28 to Q27
    operands[3].fill_(2**31 - 1)
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0, c0 = operands
    got = lstm_codes(x, w_ih, w_hh, b_ih, b_hh, exp2, whole(x, oracle.formulas(platform)), h0, c0)
    want, _, _ = expected(platform, operands, False)
    assert torch.equal(got[0].long(), want[0])
    assert torch.equal(got[2][0].long(), want[2])


@each_platform
@pytest.mark.parametrize("reverse", [False, True])
def test_rows_of_packed_and_batch_first_input(platform, reverse, isa):
    operands = case(platform, (9, 6, 10, 18), 5)
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0, c0 = operands
    lengths = torch.tensor([6, 6, 5, 4, 4, 4, 3, 1, 1])
    walk, rows = oracle.packed_walk(lengths, platform, reverse)
    packed = torch.stack([x[t, r] for t, r in rows])
    y, h, c = lstm_codes(packed, w_ih, w_hh, b_ih, b_hh, tuple(exp2), walk, h0, c0)
    want, _, _ = expected(platform, operands, reverse, lengths)
    assert torch.equal(y.long(), torch.stack([want[0][t, r] for t, r in rows]))
    assert torch.equal(h[0].long(), want[1])
    assert torch.equal(c[0].long(), want[2])
    first = x.transpose(0, 1).contiguous()
    by_batch = Walk(torch.arange(6), torch.full((6,), 9, dtype=torch.int32), 9, 6, oracle.formulas(platform), reverse)
    y_first, *_ = lstm_codes(first, w_ih, w_hh, b_ih, b_hh, tuple(exp2), by_batch, h0, c0)
    y_time, *_ = lstm_codes(
        x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), whole(x, oracle.formulas(platform), reverse), h0, c0
    )
    assert torch.equal(y_first.transpose(0, 1), y_time)


def test_entries_of_a_large_batch_are_independent(isa):
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0, c0 = case("arcs", (150, 4, 10, 20), 3)
    y, _, c = lstm_codes(x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), whole(x, oracle.formulas("arcs")), h0, c0)
    for i in (0, 63, 64, 128, 149):
        alone = x[:, i : i + 1].contiguous()
        states = h0[i : i + 1], c0[i : i + 1]
        one = lstm_codes(alone, w_ih, w_hh, b_ih, b_hh, tuple(exp2), whole(alone, oracle.formulas("arcs")), *states)
        assert torch.equal(one[0][:, 0], y[:, i])
        assert torch.equal(one[2][0, 0], c[0, i])


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_do_not_change_a_bit(threads):
    before = torch.get_num_threads()
    results = []
    try:
        for n in (1, threads):
            torch.set_num_threads(n)
            model = Float("lstm", "arcs", (40, 6, 20, 24), seed=3)
            y, h, c = model.run()
            results.append([y.value, h.value, c.value, *torch.autograd.grad(model.loss(y, h, c), model.leaves)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@each_platform
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (16, 9, 20, 32), (1, 12, 16, 16), (9, 7, 33, 40)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_follow_the_rule_in_float64(platform, shape, packed, reverse, isa):
    model = Float("lstm", platform, shape, shape[0] + 10 * packed, reverse, packed, given=packed or reverse)
    y, h, c = model.run()
    got = torch.autograd.grad(model.loss(y, h, c), model.leaves)
    (want_y, want_h, want_c, peak, cut), want = model.reference()
    assert torch.equal(y.value.double(), want_y)
    assert torch.equal(h.value[0].double(), want_h)
    assert torch.equal(c.value[0].double(), want_c)
    assert float(model.result.peak) == np.float32(peak)
    assert int(model.result.saturated) == cut
    for ours, theirs in zip(got, want, strict=False):
        assert float((ours.double() - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_recorded_vectors():
    """The chip's own integers, straight through the operator (the runner has them too)."""
    cases = [c for c in CASES if c.op == "LSTMInt" and "bidirectional" not in c.name]
    assert len(cases) >= 30
    for recorded in cases:
        q, a = recorded.about["params"], recorded.arrays
        x = torch.from_numpy(a["in_0"][0][: q["valid_steps"]].copy())
        steps = len(x)
        walk = Walk(
            torch.arange(steps),
            torch.ones(steps, dtype=torch.int32),
            1,
            1,
            oracle.formulas(recorded.platform),
            not q["go_forward"],
        )
        w = [torch.from_numpy(a[f"w_{i}"]) for i in range(4)]
        states = [torch.from_numpy(a[f"in_{i}"]) for i in (2, 3)] if "in_2" in a else [None, None]
        states[1] = None if states[1] is None else states[1].to(torch.int32)
        y, h, c = lstm_codes(x, *w, (q["q_x"], q["q_iw"], q["q_hw"], q["q_h"]), walk, *states)
        assert np.array_equal(y, a["out_0"][0]), recorded.id
        assert np.array_equal(h.flatten(), a["out_1"]), recorded.id
        assert np.array_equal(c.flatten(), a["out_2"]), recorded.id


def test_saturated_cells_are_counted(isa):
    x = torch.zeros(3, 2, 4, dtype=torch.int8)
    w = torch.zeros(64, 4, dtype=torch.int8), torch.zeros(64, 16, dtype=torch.int8)
    bias = torch.full((64,), 8 << 14, dtype=torch.int32)  # every gate is open
    c0 = torch.full((2, 16), int(2.5 * 2**15), dtype=torch.int32)
    one = torch.tensor(2.0**7)
    walk = whole(x, oracle.formulas("arcs"))
    results = torch.ops.linger.lstm(x, one, w[0], one, w[1], one, bias, bias, one, None, c0, *walk.arguments, False)
    assert int(results[8]) == 32 * 3


def test_the_scale_of_a_state_moves_after_the_pass():
    out = ops_oracle.output(ops_oracle.stats(), observe=True)
    assert float(hidden_scale(out)) == 2.0**7
    hidden_observe(torch.tensor(0.1), out)
    assert float(hidden_scale(out)) == 2.0**10  # 0.1 * 1024 = 102
    assert float(hidden_scale(out, cap=9)) == 2.0**9
    hidden_observe(torch.tensor(float("nan")), out)
    assert int(out.stats.n_skipped) == 1
    assert float(hidden_scale(out)) == 2.0**10
    threshold = ops_oracle.output(ops_oracle.stats(), threshold=torch.tensor([0.0]))
    assert float(hidden_scale(threshold)) == 2.0**7


@pytest.mark.parametrize("poisoned", range(6))
def test_nan_shows_and_passes_no_gradient(poisoned):
    model = Float("lstm", "arcs", (3, 4, 5, 6), 1)
    leaf = (*model.w, model.h0, model.c0)[poisoned]
    leaf.detach().flatten()[0] = float("nan")
    y, h, c = model.run()
    assert y.value.isnan().all()
    assert h.value.isnan().all()
    assert c.value.isnan().all()
    assert y.scale.isnan()
    assert not y.codes.any()
    assert model.result.peak.isnan()
    grads = torch.autograd.grad((y.value * 0 + 1).sum() + y.value.sum(), model.leaves, allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


@each_platform
def test_threshold_gradients(platform, isa):
    """The state's threshold follows what each rounding and saturation lost; the matrices' thresholds get a gradient too."""
    model = Float("lstm", platform, (5, 6, 7, 20), 4, method="TQT")
    y, h, c = model.run()
    *_, g_ih, g_hh, g_h = torch.autograd.grad(model.loss(y, h, c), model.leaves)
    assert float(g_ih.abs()) > 0
    assert float(g_hh.abs()) > 0
    want = model.reference()[1][-1]
    assert float((g_h - want).abs()) <= 1e-5 * float(want.abs())
    with torch.no_grad():
        model.outs[2].threshold.fill_(30.0)  # the exponent is clipped to 0
    y, h, c = model.run()
    assert float(torch.autograd.grad(model.loss(y, h, c), [model.outs[2].threshold])[0]) == 0.0


@pytest.mark.on_cpu
def test_walks_that_leave_the_input_are_refused():
    x, w_ih, w_hh, b_ih, b_hh, exp2, _, _ = case("arcs", (3, 4, 5, 6), 0)
    good = whole(x, oracle.formulas("arcs"))
    three = torch.tensor([3, 3, 3, 3], dtype=torch.int32)
    for walk in (
        good._replace(offsets=good.offsets + 1),
        good._replace(offsets=good.offsets - 1),
        good._replace(counts=three + 1),
        good._replace(counts=torch.tensor([3, 2, 3, 1], dtype=torch.int32)),
        good._replace(counts=three * 0),
        good._replace(stride=2),
        good._replace(batch=0),
        good._replace(batch=2**31 - 1),  # entries without a step
    ):
        with pytest.raises(RuntimeError, match="offsets and counts must stay inside x"):
            lstm_codes(x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), walk)
    for i, name in enumerate(("x_scale", "ih_scale", "hh_scale", "h_scale")):
        scales = [torch.tensor(2.0**e) for e in exp2]
        scales[i] = torch.tensor((3.0, 0.0, -2.0, float("inf"))[i])
        operands = (x, scales[0], w_ih, scales[1], w_hh, scales[2], b_ih, b_hh, scales[3], None, None)
        with pytest.raises(RuntimeError, match=f"lstm: {name} must be a power of two, got"):
            torch.ops.linger.lstm(*operands, *good.arguments, False)
    with pytest.raises(RuntimeError, match="the exponents"):
        lstm_codes(x, w_ih, w_hh, b_ih, b_hh, (-10, 2, 2, 7), good)


def test_walks_and_states_of_another_kind_are_refused():
    x, w_ih, w_hh, b_ih, b_hh, exp2, _, _ = case("arcs", (3, 4, 5, 6), 0)
    good = whole(x, oracle.formulas("arcs"))
    with pytest.raises(RuntimeError, match="offsets must be int64"):
        lstm_codes(x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), good._replace(counts=good.counts.long()))
    with pytest.raises(RuntimeError, match="a state must have 3 x 6 elements, got 2"):
        lstm_codes(x, w_ih, w_hh, b_ih, b_hh, tuple(exp2), good, torch.zeros(2, dtype=torch.int8))


def test_errors_name_argument_expected_and_got():
    model = Float("lstm", "arcs", (3, 4, 5, 6), 0)
    model.run()
    ih, hh, out = model.outs
    x = ops.Coded(model.x, model.codes, model.x_scale)
    w = Weights(*model.w, ih, hh)
    with pytest.raises(ValueError, match=r"lstm: x must be \(..., 5\), got \(12, 4\)"):
        lstm(ops.Coded(model.x[:, :4], model.codes[:, :4], model.x_scale), w, model.h_scale, out, model.walk)
    with pytest.raises(ValueError, match=r"b_hh must have shape \(24,\), got \(23,\)"):
        lstm(x, w._replace(b_hh=model.w[3][:23]), model.h_scale, out, model.walk)
    with pytest.raises(ValueError, match=r"w_ih must be \(4 \* H, D\)"):
        lstm(x, w._replace(w_ih=model.w[0][:20]), model.h_scale, out, model.walk)
    with pytest.raises(NotImplementedError, match="at most 8 bits"):
        lstm(x._replace(codes=model.codes.to(torch.int32)), w, model.h_scale, out, model.walk)
    with pytest.raises(NotImplementedError, match="weights must have at most 8 bits, got 16"):
        lstm(x, w._replace(ih_out=ih._replace(bits=16)), model.h_scale, out, model.walk)
    with pytest.raises(ValueError, match="lstm: h_scale must be a power of two, got 96"):
        lstm(x, w, torch.tensor(96.0), out, model.walk)
    with pytest.raises(ValueError, match="lstm: the scale of x must be a power of two, got -8"):
        lstm(x._replace(scale=torch.tensor(-8.0)), w, model.h_scale, out, model.walk)
    with pytest.raises(TypeError, match=r"b_ih must be torch\.int32"):
        codes = torch.zeros(24, 5, dtype=torch.int8), torch.zeros(24, 6, dtype=torch.int8)
        lstm_codes(model.codes, *codes, torch.zeros(24), torch.zeros(24, dtype=torch.int32), (5, 7, 7, 7), model.walk)


def test_fake_kernels():
    x, w_ih, w_hh, b_ih, b_hh, exp2, h0, c0 = case("arcs", (3, 4, 5, 6), 0)
    ex, ei, eh, e = (torch.tensor(2.0**k) for k in exp2)
    call = (x, ex, w_ih, ei, w_hh, eh, b_ih, b_hh, e, h0, c0, *whole(x, oracle.formulas("arcs")).arguments)
    torch.library.opcheck(torch.ops.linger.lstm.default, (*call, True))
    results = torch.ops.linger.lstm(*call, True)
    weights = (x, ex, w_ih, ei, w_hh, eh, e, h0, c0, results[1], results[9])
    grads = torch.randn(4, 3, 6), None, torch.randn(1, 3, 6)
    torch.library.opcheck(
        torch.ops.linger.lstm_backward.default,
        (*grads, *weights, *whole(x, oracle.formulas("arcs")).arguments, True, False),
    )
    out = ops_oracle.output(ops_oracle.stats(), observe=True)
    torch.library.opcheck(torch.ops.linger.hidden_scale.default, (*out.stats[:3], None, 8, 23))
    torch.library.opcheck(torch.ops.linger.hidden_observe.default, (torch.tensor(0.5), *out.stats, None, 8, 23))


def test_backward_refuses_what_forward_did_not_save():
    x, w_ih, w_hh, _, _, _, h0, c0 = case("arcs", (3, 4, 10, 20), 2)
    one, walk = torch.tensor(128.0), whole(x, oracle.formulas("arcs")).arguments
    call = (x, one, w_ih, one, w_hh, one, None, None, one, h0, c0)
    y, codes, _, _, _, _, _, _, _, kept, h_codes, c_codes = torch.ops.linger.lstm(*call, *walk, True)
    saved = {"h0": h_codes, "c0": c_codes, "codes": codes, "saved": kept}

    def backward(**other):
        given = (x, one, w_ih, one, w_hh, one, one, *{**saved, **other}.values(), *walk, True, True)
        return torch.ops.linger.lstm_backward(torch.ones_like(y), None, None, *given)

    for name, t in saved.items():
        with pytest.raises(RuntimeError, match="lstm_backward: what forward saved does not fit x"):
            backward(**{name: t.flatten()[:1].clone()})
    spread = c_codes.repeat_interleave(2).view(3, 40)[:, ::2]
    assert all(torch.equal(a, b) for a, b in zip(backward(), backward(c0=spread), strict=True))
