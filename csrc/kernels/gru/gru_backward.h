/* gru_backward.h - backward through time, for the twins: built after a grad_lanes_*.h.
 *
 * Planes of gate gradients: n of W_hh, r, z, n of W_ih. The recurrent products take the first three, those of x the last three.
 */
#include "kernels/gru/gru_gradients.h"
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/backward_walk.h"

/* Gradients of one row's units. */
LGR_VEC void row_gradients(const int chip, const plan *w, const lgr_gru_grad *g, int64_t row,
                           const int8_t *before_h, float inv_b, int64_t r, int64_t k)
{
    for (int64_t u = 0; u < w->hp; u += FL)
        some_gradients(chip, w, g, row, before_h, inv_b, r, k, u);
}
/* arcs: and the column of r * h for dW_n */
LGR_VEC void row_reset(const plan *w, const lgr_gru_grad *g, int64_t row, const int8_t *before_h,
                       int64_t r, int64_t k)
{
    for (int64_t u = 0; u < w->hp; u += FL)
        f_store(w->cols_r + (u / LGR_PANEL * w->cap + k) * LGR_PANEL + u % LGR_PANEL,
                some_reset(w, g, row, before_h, r, k, u));
    for (int64_t u = w->hp; u < w->hn; ++u)
        w->cols_r[(u / LGR_PANEL * w->cap + k) * LGR_PANEL + u % LGR_PANEL] = 0.0f;
}

LGR_VEC void backward(const int chip, const lgr_recurrent *p, const lgr_gru_grad *g,
                      const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    const plan w = plan_of(p, c, r0);
    const int64_t h = p->h, n = w.blocks, begin = rows_begin(p, c, r0);
    const float inv_b = lgr_exp2_scale(-lgr_gru_base(p));
    if (c->from == 0) states_begin(&w, w.dh, g->dhn, r0, r1);
    int64_t k = begin;
    for (int32_t i = c->from; i < c->to; ++i) {
        const moment m = moment_of(p, i, r0, r1);
        for (int half = 0; half < (chip == LGR_ARCS ? 2 : 1); ++half) {
            for (int64_t r = 0; r < m.act; ++r) {
                const int64_t entry = r0 + r, row = p->off[m.t] + entry * p->row_stride,
                              prev = row_before(p, &m, entry);
                const int8_t *from = prev >= 0 ? g->y + prev * h : g->h0 ? g->h0 + entry * h : NULL;
                if (half) {
                    row_reset(&w, g, row, from, r, k + r);
                    continue;
                }
                row_begin(p, c, g->x, from, row, k + r);
                row_gradients(chip, &w, g, row, from, inv_b, r, k + r);
            }
            if (m.act <= 0) continue;
            const float *dg = w.dg + k * LGR_UNITS;
            if (chip != LGR_ARCS)
                rows_times(m.act, dg, w.cap, g->w_hh, 3 * n, 0, 3 * n, w.hn, w.dh, w.hn, NULL, 1);
            else if (half == 0)
                rows_times(m.act, dg, w.cap, g->w_hh, 3 * n, 0, n, w.hn, w.dc, w.hn, NULL, 0);
            else
                rows_times(m.act, dg + w.plane, w.cap, g->w_hh, 3 * n, n, 2 * n, w.hn, w.dh, w.hn,
                           NULL, 1);
        }
        k += m.act > 0 ? m.act : 0;
    }
    if (g->dx)
        rows_times(k - begin, w.dg + w.plane + begin * LGR_UNITS, w.cap, g->w_ih, 3 * n, 0, 3 * n,
                   p->d, g->dx, p->d, c->row_of + begin, 0);
    if (c->to == p->steps) states_end(&w, w.dh, g->dh0, r0, r1);
}

void LGR_TWIN(lgr_gru_backward)(const lgr_recurrent *p, const lgr_gru_grad *g,
                                const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    switch (p->chip) { /* a constant in each copy */
    case LGR_ARCS: backward(LGR_ARCS, p, g, c, r0, r1); break;
    case LGR_VENUSA: backward(LGR_VENUSA, p, g, c, r0, r1); break;
    default: backward(LGR_VENUS, p, g, c, r0, r1); break;
    }
}

void LGR_TWIN(lgr_gru_sums)(const lgr_recurrent *p, const lgr_gru_grad *g,
                            const lgr_recurrent_chunk *c, int64_t b0, int64_t b1)
{
    const int64_t n = lgr_padded(p->h, LGR_UNITS) / LGR_UNITS;
    float *rz = g->dw_hh + n * LGR_UNITS * lgr_padded(p->h, LGR_PANEL);
    weights_part(c, b0, b1, 0, n, p->chip == LGR_ARCS ? c->cols_r : c->cols_h, p->h, g->dw_hh);
    weights_part(c, b0, b1, n, 3 * n, c->cols_h, p->h, rz);
    weights_part(c, b0, b1, n, 4 * n, c->cols_x, p->d, g->dw_ih);
    bias_plus(c->rows, c->dg + b0 * c->cap * LGR_UNITS, c->cap, b1 - b0, g->db + b0 * LGR_UNITS);
}
