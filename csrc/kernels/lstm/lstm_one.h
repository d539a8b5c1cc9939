/* lstm_one.h - one unit of one step, for C and CUDA. */
#ifndef LGR_LSTM_ONE_H
#define LGR_LSTM_ONE_H
#include "kernels/chip_functions/chip_functions_one.h"
#include "kernels/recurrent/recurrent_ref.h"

/* One unit: pre-activations -> cell state, hidden code. Returns o * tanh(c) before rounding. */
typedef struct lgr_lstm_unit {
    int32_t c, keep, h;
    int32_t v[4], th; /* gates and tanh(c) */
    int saturated;
} lgr_lstm_unit;

/* arcs, venusA: gates Q15, cell Q15 */
LGR_INLINE int32_t lgr_lstm_unit27(const lgr_pwl *tables, const int32_t pre[4], int q_h,
                                   lgr_lstm_unit *u)
{
    int32_t *v = u->v;
    for (int g = 0; g < 4; ++g) v[g] = lgr_rsh_s32(lgr_pwl_one(tables + (g == 2), pre[g]), 16);
    const int64_t cf = (int64_t)u->c * v[1], ig = (int64_t)v[0] * v[2];
    u->saturated = cf != lgr_sat_s32(cf);
    u->keep = lgr_sat_s32(lgr_rsh_s64((int64_t)lgr_sat_s32(cf) + lgr_sat_s32(ig), 3));
    u->c = lgr_rsh_s32(u->keep, 12);
    u->th = lgr_rsh_s32(lgr_pwl_one(tables + 1, u->keep), 16);
    const int64_t out = (int64_t)v[3] * u->th;
    u->h = lgr_sat_s8(lgr_rsh_s64(out, 30 - q_h));
    return (int32_t)out;
}
/* venus: gates Q7, cell Q7 */
LGR_INLINE int32_t lgr_lstm_unit11(const lgr_pwl *tables, const int32_t pre[4], int q_h,
                                   lgr_lstm_unit *u)
{
    int32_t *v = u->v;
    for (int g = 0; g < 4; ++g)
        v[g] = lgr_sat_s8(lgr_rsh_s32(lgr_pwl_one(tables + (g == 2), pre[g]), 8));
    u->keep = lgr_sat_s32((int64_t)u->c * v[1] + v[0] * v[2]);
    u->saturated = 0;
    u->c = lgr_sat_s16(lgr_rsh_s32(u->keep, 7));
    const int32_t t = lgr_pwl_one(tables + 1, lgr_sat_s16(lgr_rsh_s32(u->keep, 3)));
    u->th = lgr_sat_s8(lgr_rsh_s32(t, 8));
    const int64_t out = (int64_t)v[3] * u->th;
    u->h = lgr_sat_s8(lgr_rsh_s64(out, 14 - q_h));
    return (int32_t)out;
}

/* tables: sigmoid and tanh of the chip */
LGR_INLINE int32_t lgr_lstm_one(int chip, const lgr_pwl *tables, const int32_t pre[4], int q_h,
                                lgr_lstm_unit *u)
{
    return chip == LGR_VENUS ? lgr_lstm_unit11(tables, pre, q_h, u)
                             : lgr_lstm_unit27(tables, pre, q_h, u);
}
/* A gate's pre-activation from its two sums. */
LGR_INLINE int32_t lgr_lstm_pre(int venus, int32_t a, int32_t b, int32_t exp2_ih, int32_t exp2_hh)
{
    const int base = venus ? 11 : 27;
    const int64_t sum = (int64_t)lgr_fit_ref(a, exp2_ih, base) + lgr_fit_ref(b, exp2_hh, base);
    return venus ? lgr_sat_s16(sum) : lgr_sat_s32(sum);
}

/* What backward needs of one unit; block: of its row. */
LGR_INLINE void lgr_lstm_save(char *block, int venus, int64_t u, const int32_t pre[4],
                              const lgr_lstm_unit *now)
{
    char *two = block, *one = block + 5 * LGR_UNITS * 2;
    for (int g = 0; g < 5; ++g, two += LGR_UNITS * 2, one += LGR_UNITS) {
        const int32_t x = g < 4 ? pre[g] : now->keep, y = g < 4 ? now->v[g] : now->th;
        lgr_put16(two, u, venus ? (g < 4 ? x : x >> 8) : x >> 16);
        if (!venus) lgr_put8(one, u, (x >> 8 & 0xfc) | (y & 3));
    }
    if (venus) lgr_put8(block + 5 * LGR_UNITS * 2, u, now->keep);
}
#endif
