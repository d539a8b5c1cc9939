// test_elementwise_cuda.cpp - sums, shifts, limits and quotients of codes and floats against the C reference.
#include "lgr/add_cuda.h"
#include "lgr/clamp_cuda.h"
#include "lgr/div_cuda.h"
#include "lgr/relu_cuda.h"
#include "lgr/rescale_cuda.h"
#include "lgr/scale_bias_cuda.h"
#include "quantized_test.h"

static lgr_quantize_out outputs_of(results &r, bool grad, bool slope, bool here)
{
    lgr_quantize_out out = {};
    out.value = here ? r.value2.data() : r.value.data();
    out.codes = here ? r.codes2.data() : r.codes.data();
    if (grad) out.mask = here ? r.mask2.data() : r.mask.data();
    if (grad && slope) out.slope = here ? r.slope2.data() : r.slope.data();
    return out;
}

static void add()
{
    const int64_t n = some_size();
    const bool tqt = chance(2), grad = chance(2);
    operand x(n, (int32_t)pick({1, 4})), y(n, x.bytes);
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    device<int64_t> scratch(LGR_ADD_CUDA_SCRATCH / 8);
    lgr_add_cuda_job j = {};
    j.x = x.there();
    j.y = y.there();
    j.x_scale = &there.data()->scale_a;
    j.y_scale = &there.data()->scale_b;
    j.n = n;
    j.p.bits = (int32_t)pick({4, 8, 8, 16, 32});
    j.p.bytes = x.bytes;
    j.p.rounding = (int32_t)(random_bits() % 4);
    j.p.relu = chance(2);
    j.p.minus = chance(2);
    j.p.clamp = chance(3) ? 0.7f : 0.0f;
    j.state = there.data()->pointers(tqt);
    j.observe = chance(2);
    results r(n, lgr_mask_bytes(n), j.p.bits);
    j.out = outputs_of(r, grad, tqt, false);
    j.scale_now = r.scale.data();
    j.scratch = scratch.data();
    CHECK(lgr_add_cuda(&j, nullptr) == LGR_OK);

    // as csrc/ops/add.cpp
    lgr_add_params p = j.p;
    p.exp2_x = lgr_scale_exp2(here.scale_a);
    p.exp2_y = lgr_scale_exp2(here.scale_b);
    const bool nan = p.exp2_x == LGR_EXP2_NAN || p.exp2_y == LGR_EXP2_NAN;
    const int32_t cap = p.exp2_x < p.exp2_y ? p.exp2_x : p.exp2_y;
    const lgr_stats mine = here.pointers(tqt);
    p.no_slope = tqt && !lgr_threshold_moves(here.threshold, p.bits, cap);
    lgr_range range = {0, 0};
    p.exp2 = cap;
    const lgr_quantize_out none = {}, want = outputs_of(r, grad, tqt, true);
    if (!nan) CHECK(lgr_add(x.here(), y.here(), n, &p, &none, &range) == LGR_OK);
    const float peak = nan ? not_a_number() : lgr_range_peak(range, p.relu, p.clamp);
    p.exp2 = lgr_stats_step(&mine, p.bits, nan ? LGR_EXP2_MAX : cap, j.observe && n > 0, peak);
    CHECK(lgr_add(x.here(), y.here(), n, &p, &want, nullptr) == LGR_OK);
    r.same(grad, tqt);
    CHECK(r.scale == host<float>(1, lgr_exp2_scale(p.exp2)));
    CHECK(there == host<held>(1, here));
}

static void shifts()
{
    const int64_t n = some_size();
    operand x(n, (int32_t)pick({1, 4})), y(n, x.bytes);
    const int32_t bits = (int32_t)pick({4, 8, 16, 32}), sx = (int32_t)(random_bits() % 20),
                  sy = (int32_t)(random_bits() % 20), minus = chance(2);
    results r(n, 0, bits);
    CHECK(lgr_add_codes_cuda(x.there(), y.there(), x.bytes, n, sx, sy, bits, minus, r.codes.data(),
                             nullptr) == LGR_OK);
    CHECK(lgr_add_codes(x.here(), y.here(), x.bytes, n, sx, sy, bits, minus, r.codes2.data()) ==
          LGR_OK);
    CHECK(r.codes == r.codes2);
    CHECK(lgr_requant_cuda(x.there(), x.bytes, n, sx - sy, bits, r.codes.data(), nullptr) ==
          LGR_OK);
    CHECK(lgr_requant(x.here(), x.bytes, n, sx - sy, bits, r.codes2.data()) == LGR_OK);
    CHECK(r.codes == r.codes2);
}

static void rescale()
{
    const int64_t n = some_size();
    operand x(n, (int32_t)pick({1, 4}));
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    const bool grad = chance(2), slope = chance(2);
    lgr_rescale_params p = {};
    p.bits = (int32_t)pick({4, 8, 16, 32});
    p.bytes = x.bytes;
    p.rounding = (int32_t)(random_bits() % 4);
    results r(n, lgr_mask_bytes(n), p.bits);
    const lgr_quantize_out got = outputs_of(r, grad, slope, false),
                           want = outputs_of(r, grad, slope, true);
    CHECK(lgr_rescale_cuda(x.there(), n, &p, &there.data()->scale_a, &there.data()->scale_b, &got,
                           nullptr) == LGR_OK);
    p.exp2_x = lgr_scale_exp2(here.scale_a);
    p.exp2 = p.exp2_x == LGR_EXP2_NAN ? p.exp2_x : lgr_scale_exp2(here.scale_b);
    CHECK(lgr_rescale(x.here(), n, &p, &want) == LGR_OK);
    r.same(grad, slope);
}

static void cat()
{
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    const bool tqt = chance(2);
    operand x(some_size(), (int32_t)pick({1, 4})), y(some_size(), (int32_t)pick({1, 4}));
    const int64_t nx = (int64_t)x.s8.size(), ny = (int64_t)y.s8.size();
    const lgr_cat_params p = {(int32_t)pick({4, 8, 16}), (int32_t)pick({0, 4, 31}), chance(3),
                              nx + ny > 0 && chance(2)};
    device<float> now(1), moves(1);
    device<int64_t> scratch(LGR_CAT_CUDA_SCRATCH / 8);
    const lgr_stats state = there.data()->pointers(tqt), mine = here.pointers(tqt);
    CHECK(lgr_cat_begin_cuda(scratch.data(), nullptr) == LGR_OK);
    CHECK(lgr_cat_operand_cuda(x.there(), x.bytes, nx, &there.data()->scale_a, scratch.data(),
                               nullptr) == LGR_OK);
    CHECK(lgr_cat_operand_cuda(y.there(), y.bytes, ny, &there.data()->scale_b, scratch.data(),
                               nullptr) == LGR_OK);
    CHECK(lgr_cat_end_cuda(&state, &p, now.data(), moves.data(), scratch.data(), nullptr) ==
          LGR_OK);

    const int32_t ex = lgr_scale_exp2(here.scale_a), ey = lgr_scale_exp2(here.scale_b);
    lgr_cat_operands in = {ex < ey ? ex : ey, ex < ey ? ey : ex,
                           ex == LGR_EXP2_NAN || ey == LGR_EXP2_NAN, 0.0f};
    if (!in.nan) {
        const double a = (double)lgr_peak_codes(x.here(), x.bytes, nx) * lgr_exp2_f64(-ex),
                     b = (double)lgr_peak_codes(y.here(), y.bytes, ny) * lgr_exp2_f64(-ey);
        in.peak = (float)(a > b ? a : b);
    }
    float moved;
    const int32_t e = lgr_cat_step(&mine, &p, &in, &moved);
    CHECK(now == host<float>(1, lgr_exp2_scale(e)));
    CHECK(moves == host<float>(1, moved));
    CHECK(there == host<held>(1, here));
}

static void relu()
{
    const int64_t n = some_size();
    operand x(n, (int32_t)pick({1, 4}));
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    lgr_relu_params p = {0, x.bytes, 0, chance(2) ? INFINITY : chance(2) ? 6.0 : 0.01};
    results r(n, lgr_mask_bytes(n), x.bytes == 1 ? 8 : 32);
    const bool grad = chance(2);
    CHECK(lgr_relu_cuda(x.there(), n, &p, &there.data()->scale_a, r.codes.data(), r.value.data(),
                        grad ? r.mask.data() : nullptr, nullptr) == LGR_OK);
    p.exp2 = lgr_scale_exp2(here.scale_a);
    CHECK(lgr_relu(x.here(), n, &p, r.codes2.data(), r.value2.data(),
                   grad ? r.mask2.data() : nullptr) == LGR_OK);
    r.same(grad, false);
}

static void clamp()
{
    const int64_t n = some_size() * (chance(5) ? 40 : 1), parts = (n + (1 << 14) - 1) >> 14;
    host<float> x(n), y2(n);
    host<uint8_t> m2(lgr_mask_bytes(n));
    fill_floats(x.data(), n, 3.0f, chance(4));
    device<float> dx(n), y(n), limit(1);
    device<uint8_t> m(lgr_mask_bytes(n));
    device<double> part(parts);
    dx.put(x.data());
    CHECK(lgr_clamp_f32_cuda(dx.data(), n, 1.25f, nullptr, y.data(), m.data(), nullptr) == LGR_OK);
    CHECK(lgr_clamp_f32(x.data(), n, 1.25f, y2.data(), m2.data()) == LGR_OK);
    CHECK(m == m2 && y == y2);

    for (int64_t i = 0; i < n; ++i)
        if (!(fabsf(x[i]) < 1e20f)) x[i] = 0.5f; // sums that are finite
    dx.put(x.data());
    CHECK(lgr_mean_limit_cuda(dx.data(), n, 3.0, part.data(), parts, limit.data(), nullptr) ==
          LGR_OK);
    host<double> part2(parts);
    for (int64_t b = 0; b < parts; ++b) {
        const int64_t at = b << 14, k = n - at < 1 << 14 ? n - at : 1 << 14;
        CHECK(lgr_abs_sum_f32(x.data() + at, k, &part2[b]) == LGR_OK);
    }
    const float mean = lgr_mean_limit(part2.data(), parts, n, 3.0);
    CHECK(limit == host<float>(1, mean));
    CHECK(lgr_clamp_f32_cuda(dx.data(), n, 0.0f, limit.data(), dx.data(), m.data(), nullptr) ==
          LGR_OK);
    CHECK(lgr_clamp_f32(x.data(), n, mean, y2.data(), m2.data()) == LGR_OK);
    CHECK(m == m2 && dx == y2);
    const float nan = not_a_number(); // cuts nothing
    limit.put(&nan);
    dx.put(x.data());
    CHECK(lgr_clamp_f32_cuda(dx.data(), n, 0.0f, limit.data(), y.data(), nullptr, nullptr) ==
          LGR_OK);
    CHECK(y == x);
}

static void div()
{
    const int64_t n = some_size();
    operand x(n, 4), y(n, 4);
    for (int64_t i = 0; i < n; ++i)
        if (chance(6)) y.s32[i] = 0;
    y.d32.put(y.s32.data());
    held here = held::random();
    here.number = lgr_exp2_scale((int32_t)(random_bits() % 24) + 8);
    device<held> there(1);
    there.put(&here);
    device<int32_t> q(n);
    device<float> v(n);
    host<int32_t> q2(n);
    host<float> v2(n, not_a_number());
    const int32_t shift = (int32_t)(random_bits() % 63);
    CHECK(lgr_div_s32_cuda(x.d32.data(), y.d32.data(), n, shift, q.data(), nullptr) == LGR_OK);
    CHECK(lgr_div_s32(x.s32.data(), y.s32.data(), n, shift, q2.data()) == LGR_OK);
    CHECK(q == q2);
    const int32_t ex = lgr_scale_exp2(here.scale_a), ey = lgr_scale_exp2(here.scale_b),
                  eo = lgr_scale_exp2(here.number);
    const bool none = ex == LGR_EXP2_NAN || ey == LGR_EXP2_NAN || eo - ex + ey < 0;
    CHECK(lgr_div_scales_cuda(x.d32.data(), y.d32.data(), n, &there.data()->scale_a,
                              &there.data()->scale_b, &there.data()->number, q.data(), v.data(),
                              nullptr) == LGR_OK);
    q2 = host<int32_t>(n);
    if (!none) {
        CHECK(lgr_div_s32(x.s32.data(), y.s32.data(), n, eo - ex + ey, q2.data()) == LGR_OK);
        CHECK(lgr_dequantize_s32_f32(q2.data(), n, eo, v2.data()) == LGR_OK);
    }
    CHECK(q == q2 && v == v2);
}

static void scale_bias()
{
    const int64_t outer = pick({0, 1, 3}), c = pick({1, 5, 33}), inner = pick({1, 7}),
                  n = outer * c * inner;
    operand x(n, 1), w(c, 1), b(c, 4);
    device<int8_t> y(n);
    host<int8_t> y2(n);
    const int32_t shift = (int32_t)pick({-3, 0, 7, 20});
    CHECK(lgr_scale_bias_s8_s8_cuda(x.d8.data(), w.d8.data(), b.d32.data(), outer, c, inner, shift,
                                    y.data(), nullptr) == LGR_OK);
    CHECK(lgr_scale_bias_s8_s8(x.s8.data(), w.s8.data(), b.s32.data(), outer, c, inner, shift,
                               y2.data()) == LGR_OK);
    CHECK(y == y2);
}

int main()
{
    const int cases = cases_of(60);
    for (int i = 0; i < cases; ++i) {
        add();
        shifts();
        rescale();
        cat();
        relu();
        clamp();
        div();
        scale_bias();
    }
    return 0;
}
