// test_flat_cuda.cpp - element-wise operators behind an output quantizer: product, affine, chip functions, GLU.
#include "lgr/affine_cuda.h"
#include "lgr/chip_functions_cuda.h"
#include "lgr/glu.h"
#include "lgr/mul.h"
#include "lgr/mul_cuda.h"
#include "quantized_test.h"

static void spare(const lgr_outputs &to, int64_t n) // as the adapters: spare bits of the row
{
    if (to.mask && n > 0) to.mask[lgr_mask_row_bytes(n) - 1] = 0;
}

static void mul()
{
    quantized_call call(1, some_size(), false);
    const int64_t n = call.n;
    operand x(n, (int32_t)pick({1, 4})), y(n, x.bytes);
    call.scales(true, true);
    call.q.sat32 = 0;
    if (call.q.exp2 < 0) call.q.exp2 = 0;
    call.upload();
    CHECK(lgr_mul_cuda(x.there(), y.there(), x.bytes, &call.q, nullptr) == LGR_OK);
    call.compare(
        [&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *, int64_t amax[2]) {
            spare(to, n);
            CHECK(lgr_mul(x.here(), y.here(), x.bytes, n, 0, n, &ep, &to, amax) == LGR_OK);
        });
}

static void affine()
{
    quantized_call call(1, some_size(), false, false);
    const int64_t n = call.n;
    operand x(n, 1);
    const int32_t w = (int32_t)(random_bits() % 256) - 128, w_exp2 = (int32_t)pick({0, 3, 7});
    call.here.number = chance(8) ? not_a_number() : chance(6) ? 1e30f : 3.0f * random_unit();
    call.scales(true, false);
    call.q.exp2 = w_exp2;
    call.q.number = &call.there.data()->number;
    call.q.sat32 = 0;
    call.upload();
    const float b = call.here.number;
    const int32_t ex = lgr_scale_exp2(call.here.scale_a),
                  bias = ex == LGR_EXP2_NAN ? 0 : lgr_affine_bias(b, ex + w_exp2);
    device<int32_t> code(1);
    CHECK(lgr_affine_bias_cuda(call.q.number, 1, call.q.scale_a, w_exp2, code.data(), nullptr) ==
          LGR_OK);
    CHECK(code == host<int32_t>(1, bias));
    CHECK(lgr_affine_cuda((const int8_t *)x.there(), w, &call.q, nullptr) == LGR_OK);
    call.compare(
        [&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *, int64_t amax[2]) {
            spare(to, n);
            CHECK(lgr_affine(x.s8.data(), n, 0, n, w, bias, &ep, &to, amax) == LGR_OK);
        });
}

static void activation()
{
    int table, width;
    do {
        table = (int)(random_bits() % LGR_N_TABLES);
        width = (int)pick({8, 16, 32});
    } while (!lgr_chip_function_has(table, width));
    quantized_call call(1, some_size(), false);
    const int64_t n = call.n;
    operand x(n, (int32_t)pick({1, 4}));
    call.watched();
    if (!call.fixed) call.q.exp2 = 27;
    call.q.sat32 = 0;
    if (call.q.exp2 < 0) call.q.exp2 = 0;
    call.upload();
    const int32_t seen = lgr_scale_exp2(call.here.scale_a),
                  ex = call.fixed || seen == LGR_EXP2_NAN ? 5 : seen;
    CHECK(lgr_activation_cuda(table, width, x.there(), x.bytes, call.q.watched, 5, &call.q,
                              nullptr) == LGR_OK);
    call.compare(
        [&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *, int64_t amax[2]) {
            spare(to, n);
            CHECK(lgr_activation(table, width, x.here(), x.bytes, ex, n, 0, n, &ep, &to, amax) ==
                  LGR_OK);
        });
    // the derivative
    host<float> g(n), dx2(n);
    for (int64_t i = 0; i < n; ++i) g[i] = random_unit();
    device<float> dg(n), dx(n);
    dg.put(g.data());
    CHECK(lgr_activation_grad_cuda(table, dg.data(), x.there(), x.bytes,
                                   &call.there.data()->scale_a, n, dx.data(), nullptr) == LGR_OK);
    CHECK(lgr_activation_grad(table, g.data(), x.here(), x.bytes, seen, n, dx2.data()) == LGR_OK);
    CHECK(nearly(dx, dx2));
    // the function alone
    device<int32_t> y(n);
    host<int32_t> y2(n);
    CHECK(lgr_chip_function_cuda(table, width, x.d32.data(), n, y.data(), nullptr) == LGR_OK);
    CHECK(lgr_chip_function(table, width, x.s32.data(), n, y2.data()) == LGR_OK);
    CHECK(y == y2);
}

static void glu()
{
    const int chip = (int)(random_bits() % 3);
    const int64_t half = pick({1, 3, 16, 33}), rows = pick({0, 1, 2, 9});
    quantized_call call(1, rows * half, false);
    operand x(2 * call.n, 1);
    call.scales(true, false);
    if (!call.fixed) call.q.exp2 = lgr_glu_gate_exp2(chip);
    call.q.sat32 = 0;
    if (call.q.exp2 < 0) call.q.exp2 = 0;
    const int left = call.fixed ? (int)pick({0, 3, 24}) : 0;
    call.upload();
    const int32_t seen = lgr_scale_exp2(call.here.scale_a),
                  ex = call.fixed || seen == LGR_EXP2_NAN ? 5 : seen;
    CHECK(lgr_glu_cuda(chip, x.d8.data(), call.fixed ? nullptr : call.q.scale_a, 5, half, left,
                       &call.q, nullptr) == LGR_OK);
    call.compare(
        [&](const lgr_epilogue &ep, const lgr_outputs &to, const int32_t *, int64_t amax[2]) {
            spare(to, call.n);
            CHECK(lgr_glu(chip, x.s8.data(), ex, rows, half, left, 0, call.n, &ep, &to, amax) ==
                  LGR_OK);
        });
    host<float> g(call.n), dx2(2 * call.n);
    for (int64_t i = 0; i < call.n; ++i) g[i] = random_unit();
    device<float> dg(call.n), dx(2 * call.n);
    dg.put(g.data());
    CHECK(lgr_glu_grad_cuda(dg.data(), x.d8.data(), &call.there.data()->scale_a, rows, half,
                            dx.data(), nullptr) == LGR_OK);
    CHECK(lgr_glu_grad(g.data(), x.s8.data(), seen, rows, half, dx2.data()) == LGR_OK);
    CHECK(nearly(dx, dx2));
}

int main()
{
    const int cases = cases_of(60);
    for (int i = 0; i < cases; ++i) {
        mul();
        affine();
        activation();
        glu();
    }
    return 0;
}
