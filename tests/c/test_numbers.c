/* test_numbers.c - codes times and plus a number, quotients: every instruction set, guard bytes, limits. */
#include "harness.h"
#include "lgr/affine.h"
#include "lgr/div.h"

static void affine_equals_reference(void)
{
    static const int32_t addends[] = {0, 1, -77, 4096, LGR_AFFINE_BIAS, -LGR_AFFINE_BIAS};
    for (int k = 0; k < N_SIZES; ++k)
        for (int round = 0; round < 96; ++round) {
            const int64_t n = sizes[k];
            const int32_t w = (int32_t)(random_bits() % 256) - 128, b = addends[round % 6];
            const lgr_epilogue_spec spec = {
                (int32_t)(random_bits() % 16), 0, 8, LGR_FLOOR_ADD, round % 3 == 0, 0,
                round % 5 == 0 ? 1.25 : 0.0};
            lgr_epilogue ep;
            CHECK(lgr_epilogue_make(&spec, &ep) == LGR_OK);
            struct block x = block_new(n, 1), want[3];
            int64_t most[2] = {0, 0};
            fill_bytes((int8_t *)x.data, n);
            for (int i = -1; i < N_ISA; ++i) { /* the reference first */
                if (!isa_use(i < 0 ? 0 : isa_masks[i])) continue;
                struct block got[3] = {block_new(4 * n, 4), block_new(n, 0),
                                       block_new(lgr_mask_row_bytes(n), 0)};
                lgr_outputs out = {.value = (float *)(void *)got[0].data,
                                   .code8 = (int8_t *)got[1].data,
                                   .mask = (uint8_t *)got[2].data};
                if (n > 0) out.mask[lgr_mask_row_bytes(n) - 1] = 0;
                int64_t amax[2] = {0, 0};
                CHECK(lgr_affine((int8_t *)x.data, n, 0, n, w, b, &ep, &out, amax) == LGR_OK);
                for (int64_t j = 0; j < n; ++j) { /* the formula, in 64 bits */
                    const int64_t a = (int64_t)((int8_t *)x.data)[j] * w + b;
                    CHECK(amax[0] >= a && amax[1] >= -a);
                    if (spec.clamp == 0.0) {
                        const int8_t q = lgr_sat_s8((int32_t)lgr_rsh_s64(a, ep.shift));
                        CHECK(out.code8[j] == (spec.relu && q < 0 ? 0 : q));
                    }
                }
                for (int j = 0; j < 3; ++j) {
                    if (i < 0) {
                        want[j] = got[j];
                        continue;
                    }
                    CHECK(memcmp(got[j].data, want[j].data, want[j].bytes) == 0);
                    block_end(got[j]);
                }
                if (i < 0) memcpy(most, amax, sizeof most);
                CHECK(memcmp(most, amax, sizeof most) == 0);
            }
            for (int j = 0; j < 3; ++j) block_end(want[j]);
            block_end(x);
        }
    CHECK(lgr_affine_bias(0.5f, 1) == 1 && lgr_affine_bias(1.5f, 0) == 2); /* half to even */
    CHECK(lgr_affine_bias(2.5f, 0) == 2 && lgr_affine_bias(-1e30f, 20) == -LGR_AFFINE_BIAS);
    CHECK(lgr_affine_bias(INFINITY, -3) == LGR_AFFINE_BIAS && lgr_affine_bias(NAN, 3) == 0);
}

static void quotients_are_near(void)
{
    static const int32_t edges[] = {INT32_MIN, INT32_MAX, -1, 1, 0, 3, -7, 65536};
    for (int k = 0; k < N_SIZES; ++k)
        for (int shift = 0; shift <= 62; shift += 1 + shift / 3) {
            const int64_t n = sizes[k];
            struct block x = block_new(4 * n, 4), y = block_new(4 * n, 0), q = block_new(4 * n, 8);
            int32_t *a = (int32_t *)(void *)x.data, *d = (int32_t *)(void *)y.data,
                    *got = (int32_t *)(void *)q.data;
            for (int64_t i = 0; i < n; ++i) {
                a[i] = random_bits() % 3 ? (int32_t)random_bits() : edges[random_bits() % 8];
                d[i] = random_bits() % 3 ? (int32_t)random_bits() >> random_bits() % 31
                                         : edges[random_bits() % 8];
            }
            CHECK(lgr_div_s32(a, d, n, shift, got) == LGR_OK);
            for (int64_t i = 0; i < n; ++i) {
                if (d[i] == 0) {
                    CHECK(got[i] == (a[i] > 0 ? INT32_MAX : a[i] < 0 ? INT32_MIN : 0));
                    continue;
                }
                const double real = ldexp((double)a[i] / d[i], shift);
                const double most = fmin(fmax(real, INT32_MIN), INT32_MAX);
                CHECK(fabs(got[i] - most) <=
                      1.0 + fabs(most) / (1 << 26)); /* a 29-bit reciprocal */
            }
            CHECK(lgr_div_s32(a, d, n, shift, a) == LGR_OK); /* in place */
            CHECK(memcmp(a, got, (size_t)n * 4) == 0);
            block_end(x);
            block_end(y);
            block_end(q);
        }
    CHECK(lgr_div_s32(NULL, NULL, 0, 3, NULL) == LGR_OK);
    CHECK(lgr_div_s32(NULL, NULL, 1, 3, NULL) == LGR_E_NULL);
    CHECK(lgr_div_s32(NULL, NULL, 0, 63, NULL) == LGR_E_RANGE);
}

int main(void)
{
    affine_equals_reference();
    quotients_are_near();
    puts("test_numbers: ok");
    return 0;
}
