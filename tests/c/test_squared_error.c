/* test_squared_error.c - each instruction set gives the reference's sums; a plain sum gives nearly the same. */
#include "harness.h"
#include "lgr/squared_error.h"

enum { N_EXPS = 5 };

/* As written in the contract: an array that is folded. Independent of the kernels. */
static double oracle(const float *x, int64_t n, int exp2, int bits, int rounding)
{
    static double d[LGR_ERROR_BLOCK];
    double total = 0.0;
    for (int64_t at = 0; at < n; at += LGR_ERROR_BLOCK) {
        for (int64_t i = 0; i < LGR_ERROR_BLOCK; ++i) {
            const float v = at + i < n ? x[at + i] : 0.0f;
            float r = lgr_round_f32(v * lgr_exp2_scale(exp2), rounding);
            if (r < (float)lgr_code_lo(bits)) r = (float)lgr_code_lo(bits);
            if (r > (float)lgr_code_hi(bits)) r = (float)lgr_code_hi(bits);
            const float e = v - r * lgr_exp2_scale(-exp2);
            d[i] = (double)e * (double)e;
        }
        for (int64_t rows = LGR_ERROR_BLOCK / 16; rows > 0; rows /= 2)
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t k = 0; k < 8; ++k) d[8 * r + k] = d[16 * r + k] + d[16 * r + 8 + k];
        total += ((d[0] + d[4]) + (d[2] + d[6])) + ((d[1] + d[5]) + (d[3] + d[7]));
    }
    return total;
}

static int same(double a, double b) { return (a != a && b != b) || memcmp(&a, &b, sizeof a) == 0; }

static void sums_equal_the_oracle(int64_t n, int with_nan, int edges)
{
    struct block x = block_new(4 * n, n % 3 ? 4 : 0);
    float *const v = (float *)(void *)x.data;
    if (edges) fill_floats(v, n, 40.0f, with_nan);
    else
        for (int64_t i = 0; i < n; ++i) v[i] = 3.0f * random_unit() * random_unit();
    for (int rounding = 0; rounding < 4; ++rounding)
        for (int bits = 2; bits <= 16; bits += 6) {
            const struct lgr_squared_error_params p = {-2, N_EXPS, bits, rounding};
            double want[N_EXPS];
            for (int k = 0; k < N_EXPS; ++k) want[k] = oracle(v, n, p.exp2 + k, bits, rounding);
            for (int i = -1; i < N_ISA; ++i) {
                if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
                double got[N_EXPS] = {0};
                CHECK(lgr_squared_error_f32(v, n, &p, got) == LGR_OK);
                for (int k = 0; k < N_EXPS; ++k) CHECK(same(got[k], want[k]));
            }
        }
    block_end(x);
}

static void bad_arguments_are_refused(void)
{
    const float x = 1.0f;
    double sum[LGR_ERROR_EXPS] = {0};
    const struct lgr_squared_error_params good = {-126, 40, 8, LGR_FLOOR_ADD};
    static const struct lgr_squared_error_params bad[] = {
        {-127, 1, 8, 1}, {126, 2, 8, 1}, {0, 0, 8, 1}, {0, 41, 8, 1},
        {0, 1, 1, 1},    {0, 1, 17, 1},  {0, 1, 8, 4}, {0, 1, 8, -1},
    };
    CHECK(lgr_squared_error_f32(&x, 1, &good, sum) == LGR_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i)
        CHECK(lgr_squared_error_f32(&x, 1, bad + i, sum) == LGR_E_RANGE);
    CHECK(lgr_squared_error_f32(&x, -1, &good, sum) == LGR_E_RANGE);
    CHECK(lgr_squared_error_f32(NULL, 1, &good, sum) == LGR_E_NULL);
    CHECK(lgr_squared_error_f32(&x, 1, NULL, sum) == LGR_E_NULL);
    CHECK(lgr_squared_error_f32(&x, 1, &good, NULL) == LGR_E_NULL);
    CHECK(lgr_squared_error_f32(NULL, 0, &good, sum) == LGR_OK);
}

static void exponents_hold_the_maximum(void)
{
    CHECK(lgr_holding_exp2(1.0f, 8) == 6 && lgr_holding_exp2(0.99f, 8) == 7);
    CHECK(lgr_holding_exp2(128.0f, 8) == -1 && lgr_holding_exp2(0.0f, 8) == 26);
    for (int i = 0; i < 1000; ++i) {
        const float m = ldexpf(fabsf(random_unit()) + 1e-3f, (int)(random_bits() % 30) - 8);
        const int32_t e = lgr_holding_exp2(m, 8);
        CHECK(m < ldexpf(128.0f, -e) && m >= ldexpf(64.0f, -e));
    }
    const double falls[2] = {2.0, 1.0}, rises[2] = {1.0, 2.0}, equal[2] = {1.0, 1.0},
                 nan[2] = {(double)NAN, (double)NAN};
    CHECK(lgr_less_error_exp2(3, falls) == 4 && lgr_less_error_exp2(3, rises) == 3);
    CHECK(lgr_less_error_exp2(3, equal) == 3 && lgr_less_error_exp2(3, nan) == 3);
}

int main(void)
{
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 4; ++round)
            sums_equal_the_oracle(sizes[k], round == 3, round % 2);
    sums_equal_the_oracle(16384, 0, 1);
    sums_equal_the_oracle(2 * 16384 + 77, 0, 0);
    bad_arguments_are_refused();
    exponents_hold_the_maximum();
    return 0;
}
