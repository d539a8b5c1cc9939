// test_quantize_cuda.cpp - the .cu file on the CPU against the C reference: every byte of results and state.
#include "lgr/quantize_cuda.h"
#include "lgr/mask.h"
#include "quantized_test.h"

static void quantize(int64_t n, int bits, int rounding, bool relu, float clamp, bool tqt,
                     bool with_nan)
{
    host<float> x(n);
    fill_floats(x.data(), n, 9.0f, with_nan);
    for (int64_t i = 0; i < n; ++i)
        if (!with_nan && !(fabsf(x[i]) < 1e20f)) x[i] = 0.25f;
    held here = held::random();
    device<held> there(1);
    there.put(&here);
    device<float> dx(n), value(n), slope(n), scale(1);
    device<uint8_t> codes(n * (bits <= 8 ? 1 : 4)), mask(lgr_mask_bytes(n)),
        scratch(LGR_QUANTIZE_CUDA_SCRATCH);
    dx.put(x.data());
    lgr_quantize_params p = {};
    p.bits = bits;
    p.rounding = rounding;
    p.relu = relu;
    p.clamp = clamp;
    const lgr_stats st = there.data()->pointers(tqt);
    const lgr_quantize_out out = {value.data(), codes.data(), mask.data(), slope.data()};
    CHECK(lgr_quantize_state_f32_cuda(dx.data(), n, &st, &p, 1, &out, scale.data(), scratch.data(),
                                      nullptr) == LGR_OK);

    lgr_range range = {0, 0};
    lgr_observe_f32(x.data(), n, &range);
    const lgr_stats mine = here.pointers(tqt);
    p.exp2 = lgr_stats_step(&mine, bits, LGR_EXP2_MAX, n > 0, lgr_range_peak(range, relu, clamp));
    p.no_slope = tqt && !lgr_threshold_moves(here.threshold, bits, LGR_EXP2_MAX);
    host<float> value2(n), slope2(n), scale2(1, lgr_exp2_scale(p.exp2));
    host<uint8_t> codes2(n * (bits <= 8 ? 1 : 4)), mask2(lgr_mask_bytes(n));
    const lgr_quantize_out want = {value2.data(), codes2.data(), mask2.data(), slope2.data()};
    CHECK(lgr_quantize_f32(x.data(), n, &p, &want, nullptr) == LGR_OK);
    CHECK(value == value2 && codes == codes2 && mask == mask2 && slope == slope2 &&
          scale == scale2);
    CHECK(there == host<held>(1, here));
}

static void gradients(int64_t n, int64_t row)
{
    const int64_t all = row ? n * row : n,
                  bytes = row ? n * lgr_mask_row_bytes(row) : lgr_mask_bytes(n);
    host<float> g(all), want(all);
    host<uint8_t> m(bytes);
    fill_floats(g.data(), all, 2.0f, 1);
    fill_bytes((int8_t *)m.data(), bytes);
    device<float> dg(all), out(all);
    device<uint8_t> dm(bytes);
    dg.put(g.data());
    dm.put(m.data());
    CHECK(lgr_mask_grad_f32_cuda(dg.data(), dm.data(), all, row, out.data(), nullptr) == LGR_OK);
    CHECK((row ? lgr_mask_grad_rows_f32(g.data(), m.data(), n, row, want.data())
               : lgr_mask_grad_f32(g.data(), m.data(), n, want.data())) == LGR_OK);
    CHECK(out == want);
}

static void threshold(int64_t n)
{
    host<float> g(n), s(n);
    for (int64_t i = 0; i < n; ++i) g[i] = random_unit(), s[i] = random_unit();
    const int64_t blocks = (n + LGR_SUM_BLOCK - 1) / LGR_SUM_BLOCK;
    device<float> dg(n), ds(n), scale(1), out(1);
    device<double> parts(blocks);
    dg.put(g.data());
    ds.put(s.data());
    const float sixteen = 16.0f;
    scale.put(&sixteen);
    CHECK(lgr_threshold_grad_f32_cuda(dg.data(), ds.data(), n, scale.data(), parts.data(),
                                      out.data(), nullptr) == LGR_OK);
    host<double> part(blocks);
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t at = b * LGR_SUM_BLOCK, k = n - at < LGR_SUM_BLOCK ? n - at : LGR_SUM_BLOCK;
        lgr_slope_sum_f32(g.data() + at, s.data() + at, k, &part[b]);
    }
    CHECK(out == host<float>(1, lgr_threshold_grad(part.data(), blocks, 4)));
}

int main()
{
    const int every =
        getenv("LGR_CASES") && *getenv("LGR_CASES") ? 40 : 1; // race detection: a sample
    for (int64_t n : {0, 1, 7, 8, 31, 32, 33, 255, 257, 1000})
        for (int bits : {4, 8, 16, 32})
            for (int rounding = 0; rounding < 4; ++rounding)
                for (int way = 0; way < 8; ++way)
                    if (random_bits() % (unsigned)every == 0)
                        quantize(n, bits, rounding, way & 1, way & 2 ? 1.7f : 0.0f, way & 4,
                                 random_bits() % 4 == 0);
    for (int64_t n : {1, 33, 1000})
        for (int64_t row : {0, 1, 17, 48}) gradients(n, row);
    for (int64_t n : {0, 1, 9, 1000, 40000}) threshold(n);
    puts("quantize_cuda: equal");
    return 0;
}
