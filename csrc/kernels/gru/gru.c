/* gru.c - dispatch and the scalar reference. */
#include "lgr/gru.h"
#include "kernels/chip_functions/chip_functions_ref.h"
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/recurrent_ref.h"
#include "kernels/recurrent/recurrent_twin.h"
#include <string.h>

/* z * a + b in float32, in units of the code: what the state is before rounding */
static int32_t mixed(int32_t z, float scale, int32_t a, int32_t b)
{
    const float share = (float)z * scale, product = share * (float)a;
    return lgr_float_bits(product + (float)b) & INT32_MAX;
}

/* One entry and step: h is read whole and next written; pre of unit u at pre[u * 4]. Returns the largest mixed(). */
typedef struct job {
    const lgr_recurrent *p;
    const lgr_recurrent_weights *w;
    const int8_t *x, *h;
    int8_t *next;
    int base;
} job;
static int32_t input_sum(const job *k, int gate, int64_t u)
{
    const int32_t sum = lgr_gate(k->w->w_ih, k->w->b_ih, 3, gate, u, k->x, k->p->d);
    return lgr_fit_ref(sum, k->p->exp2_ih, k->base);
}
static int32_t state_sum(const job *k, int gate, int64_t u, const int8_t *h)
{
    const int32_t sum = lgr_gate(k->w->w_hh, k->w->b_hh, 3, gate, u, h, k->p->h);
    return lgr_fit_ref(sum, k->p->exp2_hh, k->base);
}
static int32_t both(const job *k, int gate, int64_t u)
{
    return lgr_sat_s32((int64_t)input_sum(k, gate, u) + state_sum(k, gate, u, k->h));
}
/* h = z * (h - n) + n of gates in Q31, n rounded to the state's format first */
static int32_t end31(const job *k, int64_t u, int32_t z, int32_t n)
{
    const int32_t nq = lgr_rsh_s32(n, 31 - k->p->q_h), a = lgr_sat_s32((int64_t)k->h[u] - nq);
    k->next[u] = lgr_sat_s8((int64_t)lgr_sat_s32(lgr_rsh_s64((int64_t)z * a, 31)) + nq);
    return mixed(z, 0x1p-31f, a, nq);
}

/* arcs: the reset gate acts on h, whose product with W_n follows; needs all r first */
static int32_t entry_arcs(const job *k, int8_t *reset, int32_t *pre)
{
    int32_t peak = 0;
    for (int64_t u = 0; u < k->p->h; ++u) {
        pre[u * 4] = both(k, 0, u);
        pre[u * 4 + 1] = both(k, 1, u);
        const int64_t r = lgr_pwl_ref(LGR_ARCS_SIGMOID, pre[u * 4]);
        reset[u] = lgr_sat_s8(lgr_rsh_s64(r * k->h[u], 31));
        pre[u * 4 + 3] = reset[u];
    }
    for (int64_t u = 0; u < k->p->h; ++u) {
        const int64_t sum = (int64_t)input_sum(k, 2, u) + state_sum(k, 2, u, reset);
        pre[u * 4 + 2] = lgr_sat_s32(sum);
        const int32_t z = lgr_pwl_ref(LGR_ARCS_SIGMOID, pre[u * 4 + 1]);
        const int32_t now = end31(k, u, z, lgr_pwl_ref(LGR_ARCS_TANH, pre[u * 4 + 2]));
        peak = now > peak ? now : peak;
    }
    return peak;
}
static int32_t unit_venusa(const job *k, int64_t u, int32_t *pre)
{
    const int m = k->base;
    pre[0] = lgr_fit_ref(both(k, 0, u), m, 27);
    pre[1] = lgr_fit_ref(both(k, 1, u), m, 27);
    pre[3] = state_sum(k, 2, u, k->h);
    const int64_t r = lgr_pwl_ref(LGR_VENUSA_SIGMOID, pre[0]);
    const int64_t kept = lgr_sat_s32(lgr_rsh_s64(r * pre[3], 31));
    pre[2] = lgr_fit_ref(lgr_sat_s32(input_sum(k, 2, u) + kept), m, 27);
    return end31(k, u, lgr_pwl_ref(LGR_VENUSA_SIGMOID, pre[1]),
                 lgr_pwl_ref(LGR_VENUSA_TANH, pre[2]));
}
/* venus: gates Q15; z multiplies the candidate */
static int32_t unit_venus(const job *k, int64_t u, int32_t *pre)
{
    for (int g = 0; g < 2; ++g)
        pre[g] = lgr_sat_s16((int64_t)input_sum(k, g, u) + state_sum(k, g, u, k->h));
    pre[3] = lgr_sat_s16(state_sum(k, 2, u, k->h));
    const int32_t r = lgr_pwl_ref(LGR_VENUS_SIGMOID, pre[0]),
                  kept = lgr_sat_s16(lgr_rsh_s32(r * pre[3], 15));
    pre[2] = lgr_sat_s16((int64_t)kept + lgr_sat_s16(input_sum(k, 2, u)));
    const int32_t z = lgr_pwl_ref(LGR_VENUS_SIGMOID, pre[1]),
                  n = lgr_sat_s16(lgr_rsh_s32(lgr_pwl_ref(LGR_VENUS_TANH, pre[2]), 15 - k->p->q_h)),
                  a = lgr_sat_s16(n - k->h[u]);
    k->next[u] = lgr_sat_s8(lgr_sat_s16(lgr_rsh_s32(z * a, 15)) + k->h[u]);
    return mixed(z, 0x1p-15f, a, k->h[u]);
}

/* What backward needs of one unit, pre: r z n b; block: of its row. */
static void save(char *block, int chip, int64_t u, const int32_t *pre)
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

void lgr_gru_forward_ref(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                         const lgr_gru_io *io, int32_t r0, int32_t r1, void *scratch,
                         lgr_recurrent_seen *seen)
{
    const int64_t h = p->h, blocks = lgr_blocks(h), block = lgr_saved_block(p->chip, 3);
    int32_t peak = 0, *pre = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int8_t *reset = (int8_t *)(pre + 4 * h);
    for (int32_t r = r0; r < r1; ++r) {
        int8_t *hn = io->hn + r * h;
        lgr_start_s8(io->h0, r, h, hn);
        for (int32_t i = 0; i < p->steps; ++i) {
            const int32_t t = p->reverse ? p->steps - 1 - i : i;
            if (r >= p->n[t]) continue;
            const int64_t row = p->off[t] + r * p->row_stride;
            const job k = {p, w, io->x + row * p->d, hn, io->y + row * h, lgr_gru_base(p)};
            if (p->chip == LGR_ARCS) {
                const int32_t now = entry_arcs(&k, reset, pre);
                peak = now > peak ? now : peak;
            } else {
                for (int64_t u = 0; u < h; ++u) {
                    const int32_t now = p->chip == LGR_VENUS ? unit_venus(&k, u, pre + 4 * u)
                                                             : unit_venusa(&k, u, pre + 4 * u);
                    peak = now > peak ? now : peak;
                }
            }
            for (int64_t u = 0; u < h; ++u) {
                if (io->value) io->value[row * h + u] = (float)k.next[u] * lgr_exp2_scale(-p->q_h);
                if (io->saved)
                    save((char *)io->saved + (row * blocks + u / LGR_UNITS) * block, p->chip, u,
                         pre + 4 * u);
            }
            memcpy(hn, k.next, (size_t)h);
        }
    }
    lgr_gru_seen(p, peak, seen);
}

void lgr_gru_forward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                     const lgr_recurrent_weights *w, const lgr_gru_io *io, int32_t r0, int32_t r1,
                     void *scratch, lgr_recurrent_seen *seen)
{
    LGR_RECURRENT_TWIN(engine, lgr_gru_forward, _avx2)(p, w, io, r0, r1, scratch, seen);
}

void lgr_gru_backward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                      const lgr_gru_grad *g, const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    LGR_RECURRENT_TWIN(engine, lgr_gru_backward, _avx2fma)(p, g, c, r0, r1);
}

void lgr_gru_sums(enum lgr_recurrent_engine engine, const lgr_recurrent *p, const lgr_gru_grad *g,
                  const lgr_recurrent_chunk *c, int64_t b0, int64_t b1)
{
    LGR_RECURRENT_TWIN(engine, lgr_gru_sums, _avx2fma)(p, g, c, b0, b1);
}
