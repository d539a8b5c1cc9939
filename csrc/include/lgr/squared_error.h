/* squared_error.h - what rounding a tensor costs at a range of exponents. Source: docs/numerics.md, "Least error". */
#ifndef LGR_SQUARED_ERROR_H
#define LGR_SQUARED_ERROR_H
#include "lgr/qmath.h"

enum { LGR_ERROR_BLOCK = 16384, LGR_ERROR_EXPS = 40 };

struct lgr_squared_error_params {
    int32_t exp2; /* the first exponent; it and the last one within +-126 */
    int32_t n_exp2; /* 1..LGR_ERROR_EXPS, one apart */
    int32_t bits; /* 2..16 */
    int32_t rounding; /* enum lgr_rounding */
};

/* The exponent of `bits` wide codes whose range just holds a maximum, which counts as 1e-6 at least: below 2^k, the least such k,
 * gives bits - 1 - k. Not clipped. peak >= 0, not NaN. */
LGR_INLINE int32_t lgr_holding_exp2(float peak, int bits)
{
    const float m = peak > 1e-6f ? peak : 1e-6f;
    return bits - 1 - ((lgr_float_bits(m) >> 23) - 126);
}
/* Of two exponents one apart the one of less error, the coarser one when they are equal or an error is NaN. */
LGR_INLINE int32_t lgr_less_error_exp2(int32_t coarse, const double error[2])
{
    return error[1] < error[0] ? coarse + 1 : coarse;
}

#ifdef __cplusplus
extern "C" {
#endif

/**
 * sum[k] += sum over i of (double)d * (double)d,  d = x[i] - value of x[i] quantized at exp2 + k  (a float32 difference)
 *
 * @param[in]     x    [n] float32, any value, any alignment. A NaN makes every sum NaN, an infinity infinite.
 * @param[in]     n    >= 0; zero is a no-op.
 * @param[in,out] sum  [n_exp2]; start with 0.
 * @return LGR_OK; LGR_E_RANGE for n or a parameter; LGR_E_NULL.
 *
 * The products are exact. Order of the sums, the same on every path: blocks of LGR_ERROR_BLOCK elements, one after the other; in
 * a block eight sums over i % 8, each a binary tree of neighbours over i / 8 (an element that is not there counts 0), added as
 * ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). A caller that splits a tensor does so at blocks and adds the parts in order.
 */
lgr_status lgr_squared_error_f32(const float *x, int64_t n,
                                 const struct lgr_squared_error_params *p, double *sum);

#ifdef __cplusplus
}
#endif
#endif
