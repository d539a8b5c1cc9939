// test_rows_cuda.cpp - rows: softmax, log-softmax, their gradients, layer norm.
#include "lgr/layer_norm_cuda.h"
#include "lgr/softmax_cuda.h"
#include "quantized_test.h"

static void softmax()
{
    const int chip = (int)pick({LGR_ARCS, LGR_VENUSA}), log = chance(2);
    const int64_t rows = pick({0, 1, 2, 5, 9}), n = pick({1, 2, 31, 32, 33, 100});
    quantized_call call(rows, n, false);
    operand x(rows * n, (int32_t)pick({1, 4}));
    call.watched();
    if (!call.fixed) call.q.exp2 = 15;
    call.q.sat32 = 0;
    if (call.q.exp2 < 0) call.q.exp2 = 0;
    call.upload();
    const int32_t seen = lgr_scale_exp2(call.here.scale_a),
                  ex = call.fixed || seen == LGR_EXP2_NAN ? 5 : seen;
    CHECK(lgr_softmax_codes_cuda(chip, log, x.there(), x.bytes, call.q.watched, 5, rows, &call.q,
                                 nullptr) == LGR_OK);
    host<int32_t> scratch(lgr_softmax_scratch(n));
    call.compare(
        [&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *, int64_t amax[2]) {
            CHECK(lgr_softmax_codes(chip, log, x.here(), x.bytes, ex, 0, rows, n, scratch.data(),
                                    &ep, &to, amax) == LGR_OK);
        });
    device<int32_t> y(rows * n);
    host<int32_t> y2(rows * n);
    CHECK(lgr_softmax_cuda(chip, log, x.d32.data(), rows, n, y.data(), nullptr) == LGR_OK);
    CHECK((log ? lgr_log_softmax(x.s32.data(), rows, n, y2.data())
               : lgr_softmax(chip, x.s32.data(), rows, n, y2.data())) == LGR_OK);
    CHECK(y == y2);

    host<float> g(rows * n), dx2(rows * n);
    for (int64_t i = 0; i < rows * n; ++i) g[i] = random_unit();
    device<float> dg(rows * n), dx(rows * n);
    dg.put(g.data());
    CHECK(lgr_softmax_grad_cuda(log, dg.data(), x.there(), x.bytes, &call.there.data()->scale_a,
                                rows, n, dx.data(), nullptr) == LGR_OK);
    CHECK((log ? lgr_log_softmax_grad : lgr_softmax_grad)(g.data(), x.here(), x.bytes, seen, rows,
                                                          n, dx2.data()) == LGR_OK);
    CHECK(nearly(dx, dx2));
}

static void layer_norm()
{
    const int64_t rows = pick({0, 1, 2, 5, 9}), n = pick({1, 2, 31, 32, 33, 100, 400});
    quantized_call call(rows, n, true);
    operand x(rows * n, 1), gamma(n, (int32_t)pick({1, 4}));
    if (chance(4))
        for (int64_t i = 0; i < rows * n; ++i) x.s8[i] = 77; // no deviation
    for (int64_t i = 0; i < n; ++i) gamma.s32[i] = (int16_t)gamma.s32[i];
    x.d8.put(x.s8.data());
    gamma.d32.put(gamma.s32.data());
    call.scales(false, true);
    call.watched();
    call.q.sat32 = 0;
    if (call.fixed && call.q.exp2 < 0) call.q.exp2 = 0;
    if (!call.fixed) call.q.exp2 = LGR_NORM_EXP2;
    call.upload();
    lgr_layer_norm_cuda_job job = {};
    job.x = x.d8.data();
    job.rows = rows;
    job.gamma = gamma.there();
    job.gamma_bytes = gamma.bytes;
    job.bits = (int32_t)pick({16, 32});
    job.x_scale = call.fixed ? nullptr : &call.there.data()->scale_a;
    job.eps_exp2 = (int32_t)pick({0, 3, -4});
    job.q = call.q;
    CHECK(lgr_layer_norm_cuda(&job, nullptr) == LGR_OK);

    const int32_t ex = lgr_scale_exp2(call.here.scale_a);
    host<int32_t> wide(n), zeros(n), scratch(n);
    for (int64_t i = 0; i < n; ++i) wide[i] = gamma.bytes == 1 ? gamma.s8[i] : gamma.s32[i];
    lgr_layer_norm_params p = {n, 0, job.bits, wide.data(), zeros.data()};
    p.eps = lgr_layer_norm_eps((call.fixed || ex == LGR_EXP2_NAN ? 0 : ex) + job.eps_exp2, n);
    call.compare([&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *bias,
                     int64_t amax[2]) {
        p.beta = bias ? bias : zeros.data();
        CHECK(lgr_layer_norm(x.s8.data(), 0, rows, &p, &ep, &to, scratch.data(), amax) == LGR_OK);
    });
}

int main()
{
    const int cases = cases_of(60);
    for (int i = 0; i < cases; ++i) {
        softmax();
        layer_norm();
    }
    return 0;
}
