/* lstm.c - dispatch and the scalar reference. */
#include "lgr/lstm.h"
#include "kernels/chip_functions/chip_functions_ref.h"
#include "kernels/lstm/lstm_isa.h"
#include "kernels/recurrent/recurrent_ref.h"
#include "kernels/recurrent/recurrent_twin.h"
#include <string.h>

/* One unit: pre-activations -> cell state, hidden code. Returns o * tanh(c) before rounding. */
typedef struct unit {
    int32_t c, keep, h;
    int32_t v[4], th; /* gates and tanh(c) */
    int saturated;
} unit;

/* arcs, venusA: gates Q15, cell Q15 */
static int32_t unit27(int chip, const int32_t pre[4], int q_h, unit *u)
{
    const int sig = 2 * chip;
    int32_t *v = u->v;
    for (int g = 0; g < 4; ++g) v[g] = lgr_rsh_s32(lgr_pwl_ref(sig + (g == 2), pre[g]), 16);
    const int64_t cf = (int64_t)u->c * v[1], ig = (int64_t)v[0] * v[2];
    u->saturated = cf != lgr_sat_s32(cf);
    u->keep = lgr_sat_s32(lgr_rsh_s64((int64_t)lgr_sat_s32(cf) + lgr_sat_s32(ig), 3));
    u->c = lgr_rsh_s32(u->keep, 12);
    u->th = lgr_rsh_s32(lgr_pwl_ref(sig + 1, u->keep), 16);
    const int64_t out = (int64_t)v[3] * u->th;
    u->h = lgr_sat_s8(lgr_rsh_s64(out, 30 - q_h));
    return (int32_t)out;
}
/* venus: gates Q7, cell Q7 */
static int32_t unit11(const int32_t pre[4], int q_h, unit *u)
{
    int32_t *v = u->v;
    for (int g = 0; g < 4; ++g)
        v[g] = lgr_sat_s8(lgr_rsh_s32(lgr_pwl_ref(LGR_VENUS_SIGMOID + (g == 2), pre[g]), 8));
    u->keep = lgr_sat_s32((int64_t)u->c * v[1] + v[0] * v[2]);
    u->saturated = 0;
    u->c = lgr_sat_s16(lgr_rsh_s32(u->keep, 7));
    const int32_t t = lgr_pwl_ref(LGR_VENUS_TANH, lgr_sat_s16(lgr_rsh_s32(u->keep, 3)));
    u->th = lgr_sat_s8(lgr_rsh_s32(t, 8));
    const int64_t out = (int64_t)v[3] * u->th;
    u->h = lgr_sat_s8(lgr_rsh_s64(out, 14 - q_h));
    return (int32_t)out;
}

/* What backward needs of one unit; block: of its row. */
static void save(char *block, int venus, int64_t u, const int32_t pre[4], const unit *now)
{
    char *two = block, *one = block + 5 * LGR_UNITS * 2;
    for (int g = 0; g < 5; ++g, two += LGR_UNITS * 2, one += LGR_UNITS) {
        const int32_t x = g < 4 ? pre[g] : now->keep, y = g < 4 ? now->v[g] : now->th;
        lgr_put16(two, u, venus ? (g < 4 ? x : x >> 8) : x >> 16);
        if (!venus) lgr_put8(one, u, (x >> 8 & 0xfc) | (y & 3));
    }
    if (venus) lgr_put8(block + 5 * LGR_UNITS * 2, u, now->keep);
}

void lgr_lstm_forward_ref(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                          const lgr_lstm_io *io, int32_t r0, int32_t r1, void *scratch,
                          lgr_recurrent_seen *seen)
{
    const int64_t h = p->h, d = p->d, blocks = lgr_blocks(h), block = lgr_saved_block(p->chip, 4);
    const int venus = p->chip == LGR_VENUS, base = venus ? 11 : 27;
    int32_t peak = 0;
    (void)scratch;
    for (int32_t r = r0; r < r1; ++r) {
        int8_t *hn = io->hn + r * h;
        int32_t *cn = io->cn + r * h;
        lgr_start_s8(io->h0, r, h, hn);
        for (int64_t u = 0; u < h; ++u) cn[u] = io->c0 ? io->c0[r * h + u] : 0;
        for (int32_t i = 0; i < p->steps; ++i) {
            const int32_t t = p->reverse ? p->steps - 1 - i : i;
            if (r >= p->n[t]) continue;
            const int64_t row = p->off[t] + r * p->row_stride;
            for (int64_t u = 0; u < h; ++u) {
                int32_t pre[4];
                for (int g = 0; g < 4; ++g) {
                    const int32_t a = lgr_gate(w->w_ih, w->b_ih, 4, g, u, io->x + row * d, d);
                    const int32_t b = lgr_gate(w->w_hh, w->b_hh, 4, g, u, hn, h);
                    const int64_t sum = (int64_t)lgr_fit_ref(a, p->exp2_ih, base) +
                                        lgr_fit_ref(b, p->exp2_hh, base);
                    pre[g] = venus ? lgr_sat_s16(sum) : lgr_sat_s32(sum);
                }
                unit now = {.c = cn[u]};
                const int32_t out =
                    venus ? unit11(pre, p->q_h, &now) : unit27(p->chip, pre, p->q_h, &now);
                cn[u] = now.c;
                io->y[row * h + u] = (int8_t)now.h; /* hn is still the other units' input */
                peak = out > peak ? out : -out > peak ? -out : peak;
                seen->saturated += now.saturated;
                if (io->value) io->value[row * h + u] = (float)now.h * lgr_exp2_scale(-p->q_h);
                if (io->saved)
                    save((char *)io->saved + (row * blocks + u / LGR_UNITS) * block, venus, u, pre,
                         &now);
            }
            memcpy(hn, io->y + row * h, (size_t)h);
        }
    }
    lgr_lstm_seen(p, peak, seen);
}

void lgr_lstm_forward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                      const lgr_recurrent_weights *w, const lgr_lstm_io *io, int32_t r0, int32_t r1,
                      void *scratch, lgr_recurrent_seen *seen)
{
    LGR_RECURRENT_TWIN(engine, lgr_lstm_forward, _avx2)(p, w, io, r0, r1, scratch, seen);
}

void lgr_lstm_backward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                       const lgr_lstm_grad *g, const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    LGR_RECURRENT_TWIN(engine, lgr_lstm_backward, _avx2fma)(p, g, c, r0, r1);
}

void lgr_lstm_sums(enum lgr_recurrent_engine engine, const lgr_recurrent *p, const lgr_lstm_grad *g,
                   const lgr_recurrent_chunk *c, int64_t b0, int64_t b1)
{
    LGR_RECURRENT_TWIN(engine, lgr_lstm_sums, _avx2fma)(p, g, c, b0, b1);
}
