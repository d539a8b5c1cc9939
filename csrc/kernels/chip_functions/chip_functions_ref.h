/* chip_functions_ref.h - one value at a time; the linear search is independent of the twins' buckets. */
#ifndef LGR_CHIP_FUNCTIONS_REF_H
#define LGR_CHIP_FUNCTIONS_REF_H
#include "lgr/chip_functions.h"

static inline int lgr_pwl_segment(const lgr_pwl *p, int32_t x)
{
    const uint32_t a = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;
    int j = 0;
    while (j < 15 && a > p->thr[j]) ++j;
    return j;
}
/* Full width: Q31 (GELU, swish: Q27) of x in Q27, or Q15 of x in Q11. */
static inline int32_t lgr_pwl_ref(int table, int32_t x)
{
    const lgr_pwl *p = &lgr_chip_tables[table];
    const int j = lgr_pwl_segment(p, x), s = j + (x < 0 ? 16 : 0);
    const int64_t v = (int64_t)p->slope[s] * (x < p->least ? p->least : x) + p->half;
    return (int32_t)lgr_sat((v >> p->shift[j]) + p->icpt[s], p->bits);
}
/* Any width the chip has. venusA rounds once, from the exact sum; |sum| < 2^59. */
static inline int32_t lgr_pwl_bits_ref(int table, int bits, int32_t x)
{
    const lgr_pwl *p = &lgr_chip_tables[table];
    if (bits == p->bits) return lgr_pwl_ref(table, x);
    if (!p->half) return (int32_t)lgr_sat(lgr_rsh_s32(lgr_pwl_ref(table, x), p->bits - bits), bits);
    const int j = lgr_pwl_segment(p, x), s = j + (x < 0 ? 16 : 0);
    const int64_t v = (int64_t)p->slope[s] * (x < p->least ? p->least : x) +
                      p->icpt[s] * ((int64_t)1 << p->shift[j]);
    return (int32_t)lgr_sat(lgr_rsh_s64(v, p->shift[j] + 32 - bits), bits);
}
#endif
