/* lstm_backward.h - backward through time, for the twins: built after a grad_lanes_*.h. */
#include "kernels/lstm/lstm_isa.h"
#include "kernels/recurrent/backward_walk.h"

LGR_VEC factor gate_factor(const int chip, const int is_tanh, const char *two, const char *one)
{
    const int table = 2 * chip + is_tanh;
    factor o;
    if (chip == LGR_VENUS) {
        const vg v = g_load16(two);
        o.y = f_from(g_clamp(g_round(g_pwl11(table, is_tanh, v), 8), -128, 127), 0x1p-7f);
        o.d = f_dsigmoid(f_from(v, is_tanh ? 0x1p-10f : 0x1p-11f));
    } else {
        const saved s = saved_q27(two, one, 2);
        const vg q31 = g_pwl27(table, is_tanh, chip == LGR_VENUSA, s.v);
        o.y = f_from(saved_value(g_round(q31, 16), s.low), 0x1p-15f);
        o.d = f_dsigmoid(f_from(s.v, is_tanh ? 0x1p-26f : 0x1p-27f));
    }
    if (is_tanh) o.d = o.d * f_set(4.0f);
    return o;
}
LGR_VEC saved cell_saved(const int chip, const char *two, const char *one)
{
    if (chip != LGR_VENUS) return saved_q27(two, one, 2);
    const vg low = g_load8(one);
    return (saved){g_add(g_up(g_load16(two), 8), low), low};
}
LGR_VEC factor cell_factor(const int chip, saved s)
{
    const vg c = s.v;
    factor o;
    if (chip == LGR_VENUS) {
        const vg q11 = g_clamp(g_round(c, 3), -32768, 32767);
        const vg q7 = g_round(g_pwl11(LGR_VENUS_TANH, LGR_IS_TANH, q11), 8);
        o.y = f_from(g_clamp(q7, -128, 127), 0x1p-7f);
        o.d = f_dsigmoid(f_from(c, 0x1p-13f));
    } else {
        const vg q31 = g_pwl27(2 * chip + 1, LGR_IS_TANH, chip == LGR_VENUSA, c);
        o.y = f_from(saved_value(g_round(q31, 16), s.low), 0x1p-15f);
        o.d = f_dsigmoid(f_from(c, 0x1p-26f));
    }
    o.d = o.d * f_set(4.0f);
    return o;
}
/* the cell state that a later step read */
LGR_VEC vf cell_value(const int chip, vg c)
{
    return chip == LGR_VENUS ? f_from(g_clamp(g_round(c, 7), -32768, 32767), 0x1p-7f)
                             : f_from(g_round(c, 12), 0x1p-15f);
}

/* The units of one row: gate gradients into row k of the chunk, dc of the step before. */
LGR_VEC void row_gradients(const int chip, const plan *w, const lgr_lstm_grad *g, int64_t row,
                           int64_t prev, int64_t entry, int64_t r, int64_t k)
{
    for (int64_t u = 0; u < w->hp; u += FL) {
        const int64_t left = w->h - u, block = u / LGR_UNITS, e = u % LGR_UNITS;
        const int64_t plane = 2 * LGR_UNITS, kept = lgr_saved_block(chip, 4);
        const char *two = (const char *)g->saved + (row * w->blocks + block) * kept + 2 * e,
                   *one = two + 5 * plane - e, *cell = chip == LGR_VENUS ? one : one + 2 * plane;
        const int64_t back = prev >= 0 ? (prev - row) * w->blocks * kept : 0;
        float *dc = w->dc + r * w->hn + u, *out = w->dg + (block * w->cap + k) * LGR_UNITS + e;
        vf dh = f_load(w->dh + r * w->hn + u), cp = f_set(0.0f);
        if (prev >= 0)
            cp = cell_value(chip, cell_saved(chip, two + 4 * plane + back, cell + back).v);
        else if (g->c0)
            cp = f_from(g_load_n(g->c0 + entry * w->h + u, left),
                        chip == LGR_VENUS ? 0x1p-7f : 0x1p-15f);
        if (g->dy) dh = dh + f_load_n(g->dy + row * w->h + u, left);
        const factor i = gate_factor(chip, 0, two, one),
                     f = gate_factor(chip, 0, two + plane, one + LGR_UNITS),
                     c = gate_factor(chip, 1, two + 2 * plane, one + 2 * LGR_UNITS),
                     o = gate_factor(chip, 0, two + 3 * plane, one + 3 * LGR_UNITS),
                     th = cell_factor(chip, cell_saved(chip, two + 4 * plane, cell));
        const vf dcv = f_fma(dh * o.y, th.d, f_load(dc));
        f_store(out, f_keep(dcv * c.y * i.d, left));
        f_store(out + w->plane, f_keep(dcv * cp * f.d, left));
        f_store(out + 2 * w->plane, f_keep(dcv * i.y * c.d, left));
        f_store(out + 3 * w->plane, f_keep(dh * th.y * o.d, left));
        f_store(dc, dcv * f.y);
        if (g->slope) {
            const vf code = f_from(g_codes_n(g->y + row * w->h + u, left), 1.0f);
            const vf v = o.y * th.y * f_set(w->to_code);
            *g->slope += slope_sum(dh, code, v, v, left);
        }
    }
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
