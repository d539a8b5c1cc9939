/* gru_one.h - one unit of one step, for C and CUDA. tables: sigmoid and tanh of the chip; in, st: the sums of input and state of
 * r z n in the format of lgr_gru_base; pre: r z n b as backward needs them. The new code goes to *next; the results are those of
 * lgr_gru_mixed. */
#ifndef LGR_GRU_ONE_H
#define LGR_GRU_ONE_H
#include "kernels/chip_functions/chip_functions_one.h"
#include "kernels/recurrent/recurrent_ref.h"

/* z * a + b in float32, in units of the code: what the state is before rounding */
LGR_INLINE int32_t lgr_gru_mixed(int32_t z, float scale, int32_t a, int32_t b)
{
    const float share = (float)z * scale, product = share * (float)a;
    return lgr_float_bits(product + (float)b) & INT32_MAX;
}
/* h = z * (h - n) + n of gates in Q31, n rounded to the state's format first */
LGR_INLINE int32_t lgr_gru_end31(int8_t h, int q_h, int32_t z, int32_t n, int8_t *next)
{
    const int32_t nq = lgr_rsh_s32(n, 31 - q_h), a = lgr_sat_s32((int64_t)h - nq);
    *next = lgr_sat_s8((int64_t)lgr_sat_s32(lgr_rsh_s64((int64_t)z * a, 31)) + nq);
    return lgr_gru_mixed(z, 0x1p-31f, a, nq);
}
/* arcs, first half: the code of r * h, whose product with W_n follows */
LGR_INLINE int8_t lgr_gru_reset(const lgr_pwl *tables, const int32_t in[3], const int32_t st[3],
                                int8_t h, int32_t pre[4])
{
    pre[0] = lgr_sat_s32((int64_t)in[0] + st[0]);
    pre[1] = lgr_sat_s32((int64_t)in[1] + st[1]);
    const int64_t r = lgr_pwl_one(tables, pre[0]);
    pre[3] = lgr_sat_s8(lgr_rsh_s64(r * h, 31));
    return (int8_t)pre[3];
}
LGR_INLINE int32_t lgr_gru_arcs(const lgr_pwl *tables, int32_t in, int32_t st, int8_t h, int q_h,
                                int32_t pre[4], int8_t *next)
{
    pre[2] = lgr_sat_s32((int64_t)in + st);
    const int32_t z = lgr_pwl_one(tables, pre[1]);
    return lgr_gru_end31(h, q_h, z, lgr_pwl_one(tables + 1, pre[2]), next);
}
LGR_INLINE int32_t lgr_gru_venusa(const lgr_pwl *tables, int base, const int32_t in[3],
                                  const int32_t st[3], int8_t h, int q_h, int32_t pre[4],
                                  int8_t *next)
{
    pre[0] = lgr_fit_ref(lgr_sat_s32((int64_t)in[0] + st[0]), base, 27);
    pre[1] = lgr_fit_ref(lgr_sat_s32((int64_t)in[1] + st[1]), base, 27);
    pre[3] = st[2];
    const int64_t r = lgr_pwl_one(tables, pre[0]);
    const int64_t kept = lgr_sat_s32(lgr_rsh_s64(r * pre[3], 31));
    pre[2] = lgr_fit_ref(lgr_sat_s32(in[2] + kept), base, 27);
    const int32_t z = lgr_pwl_one(tables, pre[1]);
    return lgr_gru_end31(h, q_h, z, lgr_pwl_one(tables + 1, pre[2]), next);
}
/* venus: gates Q15; z multiplies the candidate */
LGR_INLINE int32_t lgr_gru_venus(const lgr_pwl *tables, const int32_t in[3], const int32_t st[3],
                                 int8_t h, int q_h, int32_t pre[4], int8_t *next)
{
    for (int g = 0; g < 2; ++g) pre[g] = lgr_sat_s16((int64_t)in[g] + st[g]);
    pre[3] = lgr_sat_s16(st[2]);
    const int32_t r = lgr_pwl_one(tables, pre[0]), kept = lgr_sat_s16(lgr_rsh_s32(r * pre[3], 15));
    pre[2] = lgr_sat_s16((int64_t)kept + lgr_sat_s16(in[2]));
    const int32_t z = lgr_pwl_one(tables, pre[1]),
                  n = lgr_sat_s16(lgr_rsh_s32(lgr_pwl_one(tables + 1, pre[2]), 15 - q_h)),
                  a = lgr_sat_s16(n - h);
    *next = lgr_sat_s8(lgr_sat_s16(lgr_rsh_s32(z * a, 15)) + h);
    return lgr_gru_mixed(z, 0x1p-15f, a, h);
}
/* All but arcs. */
LGR_INLINE int32_t lgr_gru_one(int chip, const lgr_pwl *tables, int base, const int32_t in[3],
                               const int32_t st[3], int8_t h, int q_h, int32_t pre[4], int8_t *next)
{
    return chip == LGR_VENUS ? lgr_gru_venus(tables, in, st, h, q_h, pre, next)
                             : lgr_gru_venusa(tables, base, in, st, h, q_h, pre, next);
}

/* What backward needs of one unit; block: of its row. */
LGR_INLINE void lgr_gru_save(char *block, int chip, int64_t u, const int32_t *pre)
{
    const lgr_saved_planes n = lgr_saved(chip, 3);
    char *two = block + n.n32 * LGR_UNITS * 4, *one = two + n.n16 * LGR_UNITS * 2;
    if (chip == LGR_VENUS) {
        for (int g = 0; g < 4; ++g) lgr_put16(two + g * LGR_UNITS * 2, u, pre[g]);
        return;
    }
    for (int i = 0; i < n.n32; ++i) lgr_put32(block + i * LGR_UNITS * 4, u, pre[i + 1]);
    lgr_put16(two, u, pre[0] >> 16);
    lgr_put8(one, u, pre[0] >> 8);
    if (chip == LGR_ARCS) lgr_put8(one + LGR_UNITS, u, pre[3]);
}
#endif
