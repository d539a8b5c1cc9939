/* chip_functions_one.h - one value of one table, for C and CUDA; the linear search is independent of the twins' buckets. */
#ifndef LGR_CHIP_FUNCTIONS_ONE_H
#define LGR_CHIP_FUNCTIONS_ONE_H
#include "lgr/chip_functions.h"

LGR_INLINE int lgr_pwl_segment(const lgr_pwl *p, int32_t x)
{
    const uint32_t a = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;
    int j = 0;
    while (j < 15 && a > p->thr[j]) ++j;
    return j;
}
/* Full width: Q31 (GELU, swish: Q27) of x in Q27, or Q15 of x in Q11. */
LGR_INLINE int32_t lgr_pwl_one(const lgr_pwl *p, int32_t x)
{
    const int j = lgr_pwl_segment(p, x), s = j + (x < 0 ? 16 : 0);
    const int64_t v = (int64_t)p->slope[s] * (x < p->least ? p->least : x) + p->half;
    return (int32_t)lgr_sat((v >> p->shift[j]) + p->icpt[s], p->bits);
}
/* Any width the chip has. venusA rounds once, from the exact sum; |sum| < 2^59. */
LGR_INLINE int32_t lgr_pwl_bits_one(const lgr_pwl *p, int bits, int32_t x)
{
    if (bits == p->bits) return lgr_pwl_one(p, x);
    if (!p->half) return (int32_t)lgr_sat(lgr_rsh_s32(lgr_pwl_one(p, x), p->bits - bits), bits);
    const int j = lgr_pwl_segment(p, x), s = j + (x < 0 ? 16 : 0);
    const int64_t v = (int64_t)p->slope[s] * (x < p->least ? p->least : x) +
                      p->icpt[s] * ((int64_t)1 << p->shift[j]);
    return (int32_t)lgr_sat(lgr_rsh_s64(v, p->shift[j] + 32 - bits), bits);
}
#endif
