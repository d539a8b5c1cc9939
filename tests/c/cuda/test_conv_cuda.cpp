// test_conv_cuda.cpp - convolution with its output quantizer: results and state against the C reference, for random shapes.
#include "lgr/conv_cuda.h"
#include "quantized_test.h"

static lgr_conv_params some_shape()
{
    lgr_conv_params p = {};
    p.n = pick({1, 2});
    p.groups = pick({1, 1, 2, 3});
    p.kh = pick({1, 1, 3, 2});
    p.kw = pick({1, 1, 3, 5});
    if (random_bits() % 3 == 0) {
        p.groups = p.c = p.o = pick({2, 3, 16, 33, 48, 80});
        if (random_bits() % 4 == 0) p.o *= 2;
    } else {
        p.c = p.groups * pick({1, 3, 4, 16, 17, 32, 80});
        p.o = p.groups * pick({1, 2, 8, 15, 16, 17, 33, 48, 80});
    }
    p.stride_h = pick({1, 1, 2});
    p.stride_w = pick({1, 1, 3});
    p.dil_h = pick({1, 1, 2});
    p.dil_w = pick({1, 1, 3});
    p.pad_t = pick({0, 1});
    p.pad_b = pick({0, 2});
    p.pad_l = pick({0, 1, 2});
    p.pad_r = pick({0, 1});
    p.h = (p.kh - 1) * p.dil_h + pick({1, 2, 5});
    p.w = (p.kw - 1) * p.dil_w + pick({1, 3, 4, 11, 17});
    if (random_bits() % 3) { // NHWC
        p.xs_c = 1;
        p.xs_w = p.c;
        p.xs_h = p.w * p.c;
    } else {
        p.xs_w = 1;
        p.xs_h = p.w;
        p.xs_c = p.h * p.w;
    }
    p.xs_n = p.c * p.h * p.w;
    return p;
}

static void one(const lgr_conv_params &p)
{
    const int64_t pixels = p.n * lgr_conv_out_h(&p) * lgr_conv_out_w(&p), cg = p.c / p.groups,
                  taps = p.kh * p.kw;
    quantized_call call(pixels, p.o, true);
    call.scales(true, true);
    if (p.groups > 1) call.q.sat32 = 1;
    host<int8_t> x(p.n * p.c * p.h * p.w), w(p.o * cg * taps), wk(p.o * cg * taps);
    fill_bytes(x.data(), (int64_t)x.size());
    fill_bytes(w.data(), (int64_t)w.size());
    for (int64_t o = 0; o < p.o; ++o)
        for (int64_t c = 0; c < cg; ++c)
            for (int64_t t = 0; t < taps; ++t)
                wk[(o * taps + t) * cg + c] = w[(o * cg + c) * taps + t];
    device<int8_t> dx((int64_t)x.size()), dw((int64_t)w.size());
    device<int32_t> sums(lgr_conv_cuda_apart(&p) ? call.n : 0);
    dx.put(x.data());
    dw.put(wk.data());
    call.upload();
    const lgr_conv_cuda_job job = {p, dx.data(), dw.data(),
                                   lgr_conv_cuda_apart(&p) ? sums.data() : nullptr, call.q};
    CHECK(lgr_conv_cuda_has(&p));
    CHECK(lgr_conv_cuda(&job, nullptr) == LGR_OK);

    host<int8_t> packed(lgr_conv_packed_bytes(&p, LGR_CONV_REF));
    const int64_t count = lgr_conv_wsum_count(&p, LGR_CONV_REF);
    host<int32_t> wsum(count), init(count);
    lgr_conv_pack(&p, LGR_CONV_REF, w.data(), 0, lgr_conv_pack_blocks(&p, LGR_CONV_REF),
                  packed.data(), wsum.data());
    call.compare(
        [&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *bias, int64_t amax[2]) {
            lgr_conv_job on_cpu = {};
            on_cpu.p = p;
            on_cpu.engine = LGR_CONV_REF;
            on_cpu.x = x.data();
            on_cpu.packed = packed.data();
            on_cpu.wsum = wsum.data();
            on_cpu.init = init.data();
            on_cpu.bias = bias;
            on_cpu.ep = &ep;
            on_cpu.out = to;
            CHECK(lgr_conv_begin(&on_cpu) == LGR_OK);
            lgr_conv_run(&on_cpu, 0, on_cpu.units, nullptr, amax);
        });
}

int main()
{
    const int cases = cases_of(150);
    for (int i = 0; i < cases; ++i) one(some_shape());
    lgr_conv_params wide = {1, 140000, 1, 1, 3, 1, 1,      1, 1,      0,
                            0, 0,      0, 1, 1, 1, 140000, 1, 140000, 140000};
    one(wide); // sums beyond 32 bits
    lgr_conv_params empty = some_shape();
    empty.n = 0;
    one(empty);
    return 0;
}
