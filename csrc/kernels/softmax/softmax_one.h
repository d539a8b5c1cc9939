/* softmax_one.h - one term, and what a row's sum becomes, for C and CUDA. */
#ifndef LGR_SOFTMAX_ONE_H
#define LGR_SOFTMAX_ONE_H
#include "lgr/softmax.h"

/* exp(d) in Q23 for d <= 0 in Q25. once: how the last step of the polynomial rounds. */
LGR_INLINE int32_t lgr_exp_one(const int once, int32_t d)
{
    const int32_t v = (int32_t)lgr_rsh_s64((int64_t)d * LGR_LOG2E, 31);
    const int e = (v >> 23) + 1, down = 1 - e; /* e <= 1 */
    const int64_t f = (v & 0x7fffff) - (1 << 23);
    int64_t y = lgr_rsh_s64(LGR_EXP_P0 * f, 23) + LGR_EXP_P1;
    y = lgr_rsh_s64(y * f, 23) + LGR_EXP_P2;
    y = lgr_rsh_s64(y * f, 23) + LGR_EXP_P3;
    if (once) { /* the sum is below 2^47: large shifts give 0 by themselves */
        const int64_t sum = y * f + LGR_EXP_P4 * ((int64_t)1 << 23);
        return (int32_t)lgr_rsh_s64(sum, down + 22 > 63 ? 63 : down + 22);
    }
    y = lgr_rsh_s64(y * f, 23) + LGR_EXP_P4;
    return (int32_t)((y * 2) >> (down > 63 ? 63 : down));
}
/* The largest value as the libraries take it: no distance overflows. */
LGR_INLINE int32_t lgr_softmax_top(int32_t m) { return m == INT32_MIN ? INT32_MIN + 1 : m; }
/* The term of x in a row whose maximum is m. */
LGR_INLINE int32_t lgr_softmax_term(const int once, int32_t x, int32_t m)
{
    return lgr_exp_one(once, lgr_sat_s32((int64_t)x - m));
}
/* sat_32(sum) >= 2^23: the largest term is above one. */
LGR_INLINE int64_t lgr_reciprocal(int64_t sum)
{
    return (((int64_t)1 << 52) / (sum > INT32_MAX ? INT32_MAX : sum)) * 2;
}
LGR_INLINE int32_t lgr_softmax_share(int64_t c, int32_t e)
{
    return (int32_t)lgr_rsh_s64(c * e, 38);
}
/* ln(sum) / 2 in Q16, that is ln(sum) in Q15; table: lgr_ln_table */
LGR_INLINE int32_t lgr_half_ln_one(const int32_t *table, int64_t sum)
{
    const int64_t s15 = lgr_rsh_s64(sum, 8);
    const uint32_t u = (s15 > INT32_MAX ? (uint32_t)INT32_MAX : (uint32_t)s15) | 1u;
    int lz = 0;
    while (!(u << lz & 0x80000000u)) ++lz;
    return (table[((u << lz) - 0x80000000u) >> 22] + (16 - lz) * LGR_LN2) >> 1;
}
LGR_INLINE int32_t lgr_log_softmax_one(int32_t x, int32_t m, int32_t ln)
{
    return (int32_t)lgr_rsh_s64((int64_t)x - m, 10) - ln;
}
#endif
