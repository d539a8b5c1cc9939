// test_weights_cuda.cpp - what happens to weights and between layers: quantized weights and biases, folded norms, pooling, states.
#include "lgr/avg_pool_cuda.h"
#include "lgr/fold_bn_cuda.h"
#include "lgr/observe_cuda.h"
#include "lgr/quantize_cuda.h"
#include "quantized_test.h"

static void weight()
{
    const int64_t n = some_size(), nb = pick({1, 5, 300});
    host<float> w(n), b(nb);
    fill_floats(w.data(), n, 3.0f, chance(8));
    for (int64_t i = 0; i < n; ++i)
        if (fabsf(w[i]) > 1e20f) w[i] = 0.3f;
    for (int64_t i = 0; i < nb; ++i) b[i] = chance(4) ? 1e6f * random_unit() : random_unit();
    if (chance(8)) b[nb - 1] = not_a_number();
    const bool with_bias = !chance(4), with_x = !chance(4), tqt = chance(2), grad = chance(2),
               observe = chance(2);
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    device<float> dw(n), db(nb);
    dw.put(w.data());
    db.put(b.data());
    const int32_t bits = (int32_t)pick({4, 8, 16});
    results r(n, lgr_mask_bytes(n), bits);
    device<int64_t> scratch(LGR_QUANTIZE_CUDA_SCRATCH / 8);
    lgr_quantize_out out = {}, want = {};
    out.codes = r.codes.data();
    want.codes = r.codes2.data();
    if (grad) out.mask = r.mask.data(), want.mask = r.mask2.data();
    if (grad && tqt) out.slope = r.slope.data(), want.slope = r.slope2.data();
    const lgr_stats state = there.data()->pointers(tqt), mine = here.pointers(tqt);
    CHECK(lgr_quantize_weight_f32_cuda(dw.data(), n, with_bias ? db.data() : nullptr, nb,
                                       with_x ? &there.data()->scale_a : nullptr, &state, bits,
                                       observe, &out, r.scale.data(), scratch.data(),
                                       nullptr) == LGR_OK);
    lgr_range range = {0, 0}, of_bias = {0, 0};
    lgr_observe_f32(w.data(), n, &range);
    lgr_observe_f32(b.data(), nb, &of_bias);
    const float peak = lgr_range_peak(of_bias, 0, 0.0f);
    const int32_t cap =
        with_bias && with_x ? lgr_bias_cap(peak, lgr_scale_exp2(here.scale_a)) : LGR_EXP2_MAX;
    lgr_quantize_params p = {};
    p.bits = bits;
    p.rounding = LGR_HALF_EVEN;
    p.no_slope = tqt && !lgr_threshold_moves(here.threshold, bits, cap);
    p.exp2 = lgr_stats_step(&mine, bits, cap, observe && n > 0, lgr_range_peak(range, 0, 0.0f));
    CHECK(lgr_quantize_f32(w.data(), n, &p, &want, nullptr) == LGR_OK);
    CHECK(r.codes == r.codes2);
    if (grad) CHECK(r.mask == r.mask2);
    if (grad && tqt) CHECK(r.slope == r.slope2);
    CHECK(r.scale ==
          host<float>(1, lgr_exp2_scale(with_bias && peak != peak ? LGR_EXP2_NAN : p.exp2)));
    CHECK(there == host<held>(1, here));

    device<int32_t> codes(nb);
    host<int32_t> codes2(nb);
    CHECK(lgr_quantize_bias_f32_s32_cuda(db.data(), nb, &there.data()->scale_a,
                                         &there.data()->scale_b, codes.data(), nullptr) == LGR_OK);
    CHECK(lgr_quantize_bias_f32_s32(
              b.data(), nb,
              lgr_sum_exp2(lgr_scale_exp2(here.scale_a), lgr_scale_exp2(here.scale_b)),
              codes2.data()) == LGR_OK);
    CHECK(codes == codes2);
}

static void codes_and_values()
{
    const int64_t n = some_size();
    operand x(n, (int32_t)pick({1, 4}));
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    const int32_t e = lgr_scale_exp2(here.scale_a);
    const int saved = chance(2), f = saved && e == LGR_EXP2_NAN ? 0 : e;
    device<float> v(n);
    host<float> v2(n, not_a_number());
    CHECK(lgr_dequantize_f32_cuda(x.there(), x.bytes, n, &there.data()->scale_a, saved, v.data(),
                                  nullptr) == LGR_OK);
    if (f != LGR_EXP2_NAN)
        CHECK((x.bytes == 1 ? lgr_dequantize_s8_f32(x.s8.data(), n, f, v2.data())
                            : lgr_dequantize_s32_f32(x.s32.data(), n, f, v2.data())) == LGR_OK);
    CHECK(v == v2);
    lgr_quantize_params p = {};
    p.bits = (int32_t)pick({4, 8, 16, 32});
    p.rounding = (int32_t)(random_bits() % 4);
    p.exp2 = 3;
    const bool by_scale = chance(2);
    results r(n, 0, p.bits);
    host<float> y(n);
    fill_floats(y.data(), n, 9.0f, 1);
    device<float> dy(n);
    dy.put(y.data());
    CHECK(lgr_quantize_at_f32_cuda(dy.data(), n, by_scale ? &there.data()->scale_a : nullptr, &p,
                                   r.codes.data(), nullptr) == LGR_OK);
    if (by_scale) p.exp2 = e;
    lgr_quantize_out want = {};
    want.codes = r.codes2.data();
    CHECK(lgr_quantize_f32(y.data(), n, &p, &want, nullptr) == LGR_OK);
    CHECK(r.codes == r.codes2);
}

static void fold()
{
    const bool transposed = chance(3);
    lgr_fold_bn_params p = {transposed ? pick({1, 2}) : 1, transposed ? pick({1, 3}) : 1,
                            pick({1, 5, 17}), pick({1, 9, 33, 70}), 1e-5};
    const int64_t channels = p.groups * p.per_group, n = channels * p.n_in * p.inner;
    host<float> v[8];
    device<float> d[8];
    enum { W, BIAS, GAMMA, BETA, MEAN, VAR, GW, GB };
    for (int i = 0; i < 8; ++i) {
        const int64_t count = i == W || i == GW ? n : channels;
        v[i] = host<float>(count);
        d[i].resize(count);
        for (int64_t k = 0; k < count; ++k)
            v[i][k] = i == VAR ? fabsf(random_unit()) : random_unit();
        d[i].put(v[i].data());
    }
    const bool affine = !chance(4), bias = !chance(3);
    const lgr_fold_bn_in in = {v[W].data(),
                               bias ? v[BIAS].data() : nullptr,
                               affine ? v[GAMMA].data() : nullptr,
                               affine ? v[BETA].data() : nullptr,
                               v[MEAN].data(),
                               v[VAR].data()},
                         on = {d[W].data(),
                               bias ? d[BIAS].data() : nullptr,
                               affine ? d[GAMMA].data() : nullptr,
                               affine ? d[BETA].data() : nullptr,
                               d[MEAN].data(),
                               d[VAR].data()};
    device<float> w(n), b(channels);
    device<double> sums(channels);
    host<float> w2(n), b2(channels);
    host<double> sums2(channels);
    const bool with_sums = !chance(4);
    CHECK(lgr_fold_bn_f32_cuda(&p, &on, w.data(), b.data(), with_sums ? sums.data() : nullptr,
                               nullptr) == LGR_OK);
    CHECK(lgr_fold_bn_f32(&p, &in, 0, channels, w2.data(), b2.data(), sums2.data()) == LGR_OK);
    CHECK(w == w2 && b == b2);
    if (with_sums) CHECK(sums == sums2);

    host<uint8_t> wm(lgr_mask_bytes(n)), bm(lgr_mask_bytes(channels));
    fill_bytes((int8_t *)wm.data(), (int64_t)wm.size());
    fill_bytes((int8_t *)bm.data(), (int64_t)bm.size());
    device<uint8_t> dwm((int64_t)wm.size()), dbm((int64_t)bm.size());
    dwm.put(wm.data());
    dbm.put(bm.data());
    const bool masks = chance(2);
    device<float> got[6];
    host<float> want[6];
    for (int i = 0; i < 6; ++i) {
        got[i].resize(i ? channels : n);
        want[i] = host<float>(i ? channels : n);
    }
    const lgr_fold_bn_grad g = {v[GW].data(),
                                v[GB].data(),
                                masks ? wm.data() : nullptr,
                                masks ? bm.data() : nullptr,
                                want[0].data(),
                                want[1].data(),
                                want[2].data(),
                                want[3].data(),
                                want[4].data(),
                                want[5].data()},
                           dg = {d[GW].data(),
                                 d[GB].data(),
                                 masks ? dwm.data() : nullptr,
                                 masks ? dbm.data() : nullptr,
                                 got[0].data(),
                                 got[1].data(),
                                 got[2].data(),
                                 got[3].data(),
                                 got[4].data(),
                                 got[5].data()};
    CHECK(lgr_fold_bn_backward_f32_cuda(&p, &on, &dg, nullptr) == LGR_OK);
    CHECK(lgr_fold_bn_backward_f32(&p, &in, 0, channels, &g) == LGR_OK);
    for (int i : {0, 1, 3, 4}) CHECK(got[i] == want[i]);
    for (int i : {2, 5}) CHECK(nearly(got[i], want[i]));
}

static void pool()
{
    lgr_avg_pool_params p = {};
    p.n = pick({0, 1, 3});
    p.h = pick({1, 4, 7});
    p.w = pick({2, 5});
    p.c = pick({1, 3, 33});
    p.kh = (int32_t)pick({1, 2, 3});
    p.kw = (int32_t)pick({1, 2});
    p.sh = (int32_t)pick({1, 2});
    p.sw = (int32_t)pick({1, 3});
    p.pad_top = (int32_t)pick({0, 1, 2}) % (p.kh + 1);
    p.pad_left = (int32_t)pick({0, 1}) % (p.kw + 1);
    p.oh = (p.h + 2 * p.pad_top + 1) / p.sh; // some windows lie outside
    p.ow = (p.w + 2 * p.pad_left) / p.sw;
    p.bytes = (int32_t)pick({1, 4});
    operand x(p.n * p.h * p.w * p.c, p.bytes);
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    const int64_t n = p.n * p.oh * p.ow * p.c;
    results r(n, 0, p.bytes == 1 ? 8 : 32);
    CHECK(lgr_avg_pool_cuda(x.there(), &p, &there.data()->scale_a, r.codes.data(), r.value.data(),
                            nullptr) == LGR_OK);
    p.exp2 = lgr_scale_exp2(here.scale_a);
    CHECK(lgr_avg_pool(x.here(), &p, 0, p.n, r.codes2.data(), r.value2.data()) == LGR_OK);
    r.same(false, false);
}

static void hidden()
{
    held here = held::random();
    here.number = chance(5) ? not_a_number() : 4.0f * fabsf(random_unit());
    device<held> there(1);
    there.put(&here);
    const bool tqt = chance(2);
    const lgr_stats state = there.data()->pointers(tqt), mine = here.pointers(tqt);
    const int32_t bits = (int32_t)pick({8, 16}), cap = (int32_t)pick({7, 15, 126});
    device<float> now(1);
    CHECK(lgr_hidden_scale_cuda(&state, bits, cap, now.data(), nullptr) == LGR_OK);
    CHECK(now == host<float>(1, lgr_exp2_scale(lgr_stats_known(&mine, bits, cap))));
    CHECK(lgr_hidden_observe_cuda(&state, bits, cap, &there.data()->number, nullptr) == LGR_OK);
    lgr_stats_step(&mine, bits, cap, 1, here.number);
    CHECK(there == host<held>(1, here));
}

int main()
{
    const int cases = cases_of(60);
    for (int i = 0; i < cases; ++i) {
        weight();
        codes_and_values();
        fold();
        pool();
        hidden();
    }
    return 0;
}
