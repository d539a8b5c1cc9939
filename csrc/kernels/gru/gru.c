/* gru.c - dispatch and the scalar reference. */
#include "lgr/gru.h"
#include "kernels/chip_functions/chip_functions_ref.h"
#include "kernels/gru/gru_isa.h"
#include "kernels/gru/gru_one.h"
#include "kernels/recurrent/recurrent_ref.h"
#include "kernels/recurrent/recurrent_twin.h"
#include <string.h>

/* One entry and step: h is read whole and next written; pre of unit u at pre[u * 4]. Returns the largest mixed(). */
typedef struct job {
    const lgr_recurrent *p;
    const lgr_recurrent_weights *w;
    const int8_t *x, *h;
    int8_t *next;
    int base;
    const lgr_pwl *tables;
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
static void sums_of(const job *k, int gates, int64_t u, int32_t in[3], int32_t st[3])
{
    for (int g = 0; g < gates; ++g) {
        in[g] = input_sum(k, g, u);
        st[g] = state_sum(k, g, u, k->h);
    }
}

/* arcs: the reset gate acts on h, whose product with W_n follows; needs all r first */
static int32_t entry_arcs(const job *k, int8_t *reset, int32_t *pre)
{
    int32_t peak = 0, in[3], st[3];
    for (int64_t u = 0; u < k->p->h; ++u) {
        sums_of(k, 2, u, in, st);
        reset[u] = lgr_gru_reset(k->tables, in, st, k->h[u], pre + 4 * u);
    }
    for (int64_t u = 0; u < k->p->h; ++u) {
        const int32_t a = input_sum(k, 2, u), b = state_sum(k, 2, u, reset);
        const int32_t now =
            lgr_gru_arcs(k->tables, a, b, k->h[u], k->p->q_h, pre + 4 * u, k->next + u);
        peak = now > peak ? now : peak;
    }
    return peak;
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
            const job k = {p,
                           w,
                           io->x + row * p->d,
                           hn,
                           io->y + row * h,
                           lgr_gru_base(p),
                           lgr_chip_tables + 2 * p->chip};
            if (p->chip == LGR_ARCS) {
                const int32_t now = entry_arcs(&k, reset, pre);
                peak = now > peak ? now : peak;
            } else {
                for (int64_t u = 0; u < h; ++u) {
                    int32_t in[3], st[3];
                    sums_of(&k, 3, u, in, st);
                    const int32_t now = lgr_gru_one(p->chip, k.tables, k.base, in, st, hn[u],
                                                    p->q_h, pre + 4 * u, k.next + u);
                    peak = now > peak ? now : peak;
                }
            }
            for (int64_t u = 0; u < h; ++u) {
                if (io->value) io->value[row * h + u] = (float)k.next[u] * lgr_exp2_scale(-p->q_h);
                if (io->saved)
                    lgr_gru_save((char *)io->saved + (row * blocks + u / LGR_UNITS) * block,
                                 p->chip, u, pre + 4 * u);
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
