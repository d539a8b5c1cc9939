/* lstm_backward.h - backward through time, for the twins: built after a grad_lanes_*.h. */
#include "kernels/lstm/lstm_gradients.h"
#include "kernels/lstm/lstm_isa.h"
#include "kernels/recurrent/backward_walk.h"

/* The units of one row. */
LGR_VEC void row_gradients(const int chip, const plan *w, const lgr_lstm_grad *g, int64_t row,
                           int64_t prev, int64_t entry, int64_t r, int64_t k)
{
    for (int64_t u = 0; u < w->hp; u += FL) some_gradients(chip, w, g, row, prev, entry, r, k, u);
}

LGR_VEC void backward(const int chip, const lgr_recurrent *p, const lgr_lstm_grad *g,
                      const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    const plan w = plan_of(p, c, r0);
    const int64_t h = p->h, all = 4 * w.blocks, begin = rows_begin(p, c, r0);
    if (c->from == 0) {
        states_begin(&w, w.dh, g->dhn, r0, r1);
        states_begin(&w, w.dc, g->dcn, r0, r1);
    }
    int64_t k = begin;
    for (int32_t i = c->from; i < c->to; ++i) {
        const moment m = moment_of(p, i, r0, r1);
        for (int64_t r = 0; r < m.act; ++r) {
            const int64_t entry = r0 + r, row = p->off[m.t] + entry * p->row_stride,
                          prev = row_before(p, &m, entry);
            const int8_t *from = prev >= 0 ? g->y + prev * h : g->h0 ? g->h0 + entry * h : NULL;
            row_begin(p, c, g->x, from, row, k + r);
            row_gradients(chip, &w, g, row, prev, entry, r, k + r);
        }
        if (m.act <= 0) continue;
        rows_times(m.act, w.dg + k * LGR_UNITS, w.cap, g->w_hh, all, 0, all, w.hn, w.dh, w.hn, NULL,
                   0);
        k += m.act;
    }
    if (g->dx)
        rows_times(k - begin, w.dg + begin * LGR_UNITS, w.cap, g->w_ih, all, 0, all, p->d, g->dx,
                   p->d, c->row_of + begin, 0);
    if (c->to < p->steps) return;
    states_end(&w, w.dh, g->dh0, r0, r1);
    states_end(&w, w.dc, g->dc0, r0, r1);
}

void LGR_TWIN(lgr_lstm_backward)(const lgr_recurrent *p, const lgr_lstm_grad *g,
                                 const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    switch (p->chip) { /* a constant in each copy */
    case LGR_ARCS: backward(LGR_ARCS, p, g, c, r0, r1); break;
    case LGR_VENUSA: backward(LGR_VENUSA, p, g, c, r0, r1); break;
    default: backward(LGR_VENUS, p, g, c, r0, r1); break;
    }
}

void LGR_TWIN(lgr_lstm_sums)(const lgr_recurrent *p, const lgr_lstm_grad *g,
                             const lgr_recurrent_chunk *c, int64_t b0, int64_t b1)
{
    const int64_t all = 4 * lgr_padded(p->h, LGR_UNITS) / LGR_UNITS;
    weights_part(c, b0, b1, 0, all, c->cols_h, p->h, g->dw_hh);
    weights_part(c, b0, b1, 0, all, c->cols_x, p->d, g->dw_ih);
    bias_plus(c->rows, c->dg + b0 * c->cap * LGR_UNITS, c->cap, b1 - b0, g->db + b0 * LGR_UNITS);
}
