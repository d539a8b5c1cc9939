/* avg_pool.h - average pooling with the accelerator's divider. Source: docs/numerics.md, "AvgPool2dInt". */
#ifndef LGR_AVG_POOL_H
#define LGR_AVG_POOL_H
#include "lgr/qmath.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LGR_DIVISOR_MAX (1 << 20)

/* Division by a positive constant: floor(sum * recip / 2^shift + 1/2). */
typedef struct lgr_divider {
    int64_t recip;
    int32_t shift;
} lgr_divider;

/* The divider of 1 <= d <= 2^31: exact for a power of two, else the accelerator's Newton-Raphson reciprocal
 * (recip = R, shift = 29 + e), computed in integers. */
LGR_INLINE lgr_divider lgr_make_divider(int64_t d)
{
    lgr_divider v = {1, 0};
    int e = 0;
    while (((int64_t)1 << e) < d) ++e;
    v.shift = e;
    if (((int64_t)1 << e) == d) return v;
    const int64_t f0 = (d << 5) >> e; /* floor(32 f), f = d / 2^e */
    int64_t r = (((int64_t)1 << 35) + f0) / (2 * f0);
    for (int step = 0; step < 3; ++step) { /* r and t are scaled by 2^29 and 2^30 */
        const int64_t t = (((int64_t)1 << (31 + e)) - 2 * d * r + ((int64_t)1 << (e - 1))) >> e;
        r = (r * t + ((int64_t)1 << 29)) >> 30;
    }
    v.recip = r;
    v.shift = 29 + e;
    return v;
}

/* The divider of 1 <= d <= LGR_DIVISOR_MAX as an int8 product: recip in 64..127 with recip / 2^shift nearest to 1 / d;
 * exact for a power of two. What a linear layer with equal weights computes. */
LGR_INLINE lgr_divider lgr_make_coarse_divider(int64_t d)
{
    lgr_divider v = {1, 0};
    while (((int64_t)1 << v.shift) < d) ++v.shift;
    if (((int64_t)1 << v.shift) == d) return v;
    v.shift = 0;
    do {
        v.recip = (((int64_t)2 << v.shift) + d) / (2 * d);
    } while (v.recip < 64 && ++v.shift);
    return v;
}

/* sat_32(floor(sum * recip / 2^shift + 1/2)), |sum| < 2^51: the product is taken in two parts. */
LGR_INLINE int32_t lgr_divide(int64_t sum, lgr_divider v)
{
    if (v.shift == 0) return lgr_sat_s32(sum);
    if (v.recip < 128) return lgr_sat_s32(lgr_rsh_s64(sum * v.recip, v.shift));
    const int64_t high = sum >> 20, low = sum & 0xfffff; /* sum = high * 2^20 + low; shift >= 31 */
    const int64_t part = (low * v.recip + ((int64_t)1 << (v.shift - 1))) >> 20;
    return lgr_sat_s32((high * v.recip + part) >> (v.shift - 20));
}

/* n images of h x w pixels of c values. Planar (NCHW) data: n = images * channels, c = 1. */
struct lgr_avg_pool_params {
    int64_t n, h, w, c;
    int32_t kh, kw, sh, sw, pad_top, pad_left;
    int64_t oh, ow;
    int32_t coarse; /* 0: the accelerator's divider; 1: the product of lgr_make_coarse_divider */
    int32_t bytes; /* of a code, in and out: 1 (int8) or 4 (int32) */
    int32_t exp2; /* of value: codes / 2^exp2; LGR_EXP2_NAN: value NaN, codes 0 */
};

/**
 * code = sat(divide(sum of the kh x kw window, kh * kw)), divided as `coarse` says; pixels outside count as 0.
 *
 * @param[in]  x       [n][h][w][c] codes.
 * @param[in]  from,to Images to do, 0 <= from <= to <= n.
 * @param[out] codes   [n][oh][ow][c], same type.   @param[out] value  [n][oh][ow][c] float32 or NULL.
 * @return LGR_OK; LGR_E_RANGE for a size, a kernel above LGR_DIVISOR_MAX, or the exponent; LGR_E_NULL.
 */
lgr_status lgr_avg_pool(const void *x, const struct lgr_avg_pool_params *p, int64_t from,
                        int64_t to, void *codes, float *value);

#ifdef __cplusplus
}
#endif
#endif
