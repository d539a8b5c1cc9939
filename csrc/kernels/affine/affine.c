/* affine.c - sums block by block, through the epilogue's fast twin. */
#include "kernels/affine/affine_one.h"

enum { BLOCK = 1024 }; /* a multiple of 16; its sums stay in L1 */

int32_t lgr_affine_bias(float b, int32_t exp2) { return lgr_affine_bias_one(b, exp2); }

lgr_status lgr_affine(const int8_t *x, int64_t n, int64_t at, int64_t total, int32_t w, int32_t b,
                      const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2])
{
    if (n < 0 || at < 0 || at % 16 != 0 || at + n > total || w < -128 || w > 127 ||
        b < -LGR_AFFINE_BIAS || b > LGR_AFFINE_BIAS)
        return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || ep == NULL || out == NULL || amax == NULL) return LGR_E_NULL;
    const int narrow = lgr_epilogue_narrow(ep, (b < 0 ? -(int64_t)b : b) + (1 << 14));
    int32_t sums[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t count = n - i < BLOCK ? n - i : BLOCK;
        for (int64_t j = 0; j < count; ++j) sums[j] = x[i + j] * w + b;
        lgr_epilogue_rows(ep, narrow, sums, count, NULL, 1, count, at + i, total, 0, out, amax);
    }
    return LGR_OK;
}
