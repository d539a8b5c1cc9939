/* mul.c - int8 products go through the epilogue's fast twin block by block; wide ones element by element. */
#include "lgr/mul.h"

enum { BLOCK = 1024 }; /* a multiple of 16; its sums stay in L1 */

static void mul_s8(const int8_t *restrict x, const int8_t *restrict y, int64_t n, int64_t at,
                   int64_t total, const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2])
{
    const int narrow = lgr_epilogue_narrow(ep, 1 << 14);
    int32_t sums[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t count = n - i < BLOCK ? n - i : BLOCK;
        for (int64_t j = 0; j < count; ++j) sums[j] = x[i + j] * y[i + j];
        lgr_epilogue_rows(ep, narrow, sums, count, NULL, 1, count, at + i, total, 0, out, amax);
    }
}

static void mul_s32(const int32_t *restrict x, const int32_t *restrict y, int64_t n, int64_t at,
                    const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2])
{
    for (int64_t i = 0; i < n; ++i) {
        const int64_t a = (int64_t)x[i] * y[i], k = at + i; /* at most 2^62 */
        const unsigned pass = (unsigned)lgr_epilogue_one(ep, a, k, out);
        if (out->mask) {
            if ((k & 7) == 0) out->mask[k >> 3] = 0;
            out->mask[k >> 3] = (uint8_t)(out->mask[k >> 3] | pass << (k & 7));
        }
        amax[0] = a > amax[0] ? a : amax[0];
        amax[1] = -a > amax[1] ? -a : amax[1];
    }
}

lgr_status lgr_mul(const void *x, const void *y, int32_t bytes, int64_t n, int64_t at,
                   int64_t total, const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2])
{
    if (n < 0 || at < 0 || at % 16 != 0 || at + n > total || (bytes != 1 && bytes != 4))
        return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || y == NULL || ep == NULL || out == NULL || amax == NULL) return LGR_E_NULL;
    if (bytes == 1) mul_s8(x, y, n, at, total, ep, out, amax);
    else mul_s32(x, y, n, at, ep, out, amax);
    return LGR_OK;
}
