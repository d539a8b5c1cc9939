/* layer_norm_one.h - the engine's statistics of a row, and one element, for C and CUDA. */
#ifndef LGR_LAYER_NORM_ONE_H
#define LGR_LAYER_NORM_ONE_H
#include "lgr/layer_norm.h"

enum { LGR_NORM_EPS_EXP2 = 62 };

LGR_INLINE int64_t lgr_norm_eps(int32_t x_exp2, int64_t n)
{
    const int32_t e = x_exp2 < -63 ? -63 : x_exp2 > 63 ? 63 : x_exp2;
    float eps =
        1e-5f * lgr_exp2_scale(2 * e); /* every product is rounded to float32, as the engine's */
    eps = eps * (float)n;
    eps = eps * (float)n;
    eps = eps + 0.5f;
    const int64_t most = (int64_t)1 << LGR_NORM_EPS_EXP2;
    return eps < (float)most ? (int64_t)floorf(eps) : most;
}

/* 1 / deviation = factor / 2^shift, for results in Q10: 2^14 <= factor < 2^15. */
struct lgr_norm_root {
    int32_t factor;
    int shift;
};
LGR_INLINE int64_t lgr_norm_wrap(int64_t v) { return (int32_t)(uint32_t)(uint64_t)v; }
LGR_INLINE int lgr_bit_length(uint64_t v)
{
    int n = 0;
    for (int s = 32; s > 0; s /= 2)
        if (v >> s) {
            v >>= s;
            n += s;
        }
    return n + (int)v;
}
/* The engine's table floor(2^15 / sqrt(1 + k / 256)) at k = i - 256 is floor(sqrt(2^38 / i)); square roots of integers
 * below 2^52 round to the right side in double. */
LGR_INLINE struct lgr_norm_root lgr_norm_root(int64_t n, int64_t sum, int64_t squares, int64_t eps)
{
    struct lgr_norm_root r = {32767, 4};
    const int64_t d = lgr_norm_wrap(n * squares) - lgr_norm_wrap(sum * sum) + eps;
    if (d <= 0) return r;
    const int half = (lgr_bit_length((uint64_t)d) + 1) / 2, up = 10 - 2 * half;
    const int64_t i = up >= 0 ? d << up : d >> -up; /* 256..1023 */
    const int32_t t = (int32_t)sqrt((double)(((int64_t)1 << 38) / i));
    r.factor = t < 32767 ? t : 32767;
    r.shift = half + 4;
    return r;
}
/* sat_32(sat(RSH((n x - sum) * factor, shift)) * gamma) */
LGR_INLINE int32_t lgr_norm_one(int8_t x, int64_t n, int64_t sum, int32_t factor, int shift,
                                int32_t bits, int32_t gamma)
{
    return lgr_sat_s32(lgr_sat(lgr_rsh_s64((n * x - sum) * factor, shift), bits) * gamma);
}
#endif
