/* lstm_backward.h - backward through time, for the twins: built after a grad_lanes_*.h. */
#include "kernels/lstm/lstm_isa.h"
#include "kernels/recurrent/backward_products.h"
#include "kernels/recurrent/saved_lanes.h"

typedef struct
    factor { /* the value that the product used, and the derivative at the pre-activation */
    vf y, d;
} factor;
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

typedef struct plan {
    int64_t h, hp, hn, dn, blocks, cap;
    float *dg, *cols_h, *cols_x, *dh, *dc;
    int64_t *row_of;
    float to_code; /* 2^q_h */
} plan;

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
        const int64_t gate = w->blocks * w->cap * LGR_UNITS;
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
        f_store(out + gate, f_keep(dcv * cp * f.d, left));
        f_store(out + 2 * gate, f_keep(dcv * i.y * c.d, left));
        f_store(out + 3 * gate, f_keep(dh * th.y * o.d, left));
        f_store(dc, dcv * f.y);
        if (g->slope) {
            const vf code = f_from(g_codes_n(g->y + row * w->h + u, left), 1.0f);
            const vf v = o.y * th.y * f_set(w->to_code);
            *g->slope += slope_sum(dh, code, v, left);
        }
    }
}

LGR_VEC void backward(const int chip, const lgr_recurrent *p, const lgr_lstm_grad *g, int32_t r0,
                      int32_t r1, void *scratch)
{
    const int64_t h = p->h, d = p->d, rows = r1 - r0;
    plan w = {.h = h,
              .hp = lgr_padded(h, LGR_UNITS),
              .hn = lgr_padded(h, LGR_PANEL),
              .dn = lgr_padded(d, LGR_PANEL),
              .cap = lgr_chunk_rows(rows),
              .to_code = lgr_exp2_scale(p->q_h)};
    w.blocks = w.hp / LGR_UNITS;
    w.dg = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    w.cols_h = w.dg + w.cap * w.hp * 4;
    w.cols_x = w.cols_h + w.cap * w.hn;
    w.dh = w.cols_x + w.cap * w.dn;
    w.dc = w.dh + rows * w.hn;
    w.row_of = (void *)(w.dc + rows * w.hn);
    const int64_t all = 4 * w.blocks;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t u = 0; u < w.hn; u += FL) {
            const int64_t at = (r0 + r) * h + (u < h ? u : 0);
            f_store(w.dh + r * w.hn + u, g->dhn ? f_load_n(g->dhn + at, h - u) : f_set(0.0f));
            f_store(w.dc + r * w.hn + u, g->dcn ? f_load_n(g->dcn + at, h - u) : f_set(0.0f));
        }
    int64_t k = 0; /* rows of the chunk so far */
    for (int32_t i = 0; i < p->steps; ++i) {
        const int32_t t = p->reverse ? i : p->steps - 1 - i;
        int32_t had, following;
        const int32_t last = before(p, t, &had);
        const int64_t act = (r1 < p->n[t] ? r1 : p->n[t]) - (int64_t)r0;
        for (int64_t r = 0; r < act; ++r) {
            const int64_t entry = r0 + r, row = p->off[t] + entry * p->row_stride,
                          prev = entry < had ? p->off[last] + entry * p->row_stride : -1;
            w.row_of[k + r] = row;
            column(prev >= 0 ? g->y + prev * h
                   : g->h0   ? g->h0 + entry * h
                             : NULL,
                   h, k + r, w.cap, w.cols_h);
            column(g->x + row * d, d, k + r, w.cap, w.cols_x);
            row_gradients(chip, &w, g, row, prev, entry, r, k + r);
        }
        if (act > 0) {
            rows_times(act, w.dg + k * LGR_UNITS, w.cap, g->w_hh, all, 0, all, w.hn, w.dh, w.hn,
                       NULL, 0);
            k += act;
        }
        const int32_t next = before(p, t, &following) < 0 ? 0 : (r1 < following ? r1 : following);
        if (k && (i + 1 == p->steps || k + (next > r0 ? next - r0 : 0) > w.cap)) {
            weights_plus(k, w.dg, w.cap, all, w.cols_h, w.hn / LGR_PANEL, g->dw_hh);
            weights_plus(k, w.dg, w.cap, all, w.cols_x, w.dn / LGR_PANEL, g->dw_ih);
            bias_plus(k, w.dg, w.cap, all, g->db);
            if (g->dx) rows_times(k, w.dg, w.cap, g->w_ih, all, 0, all, d, g->dx, d, w.row_of, 0);
            k = 0;
        }
    }
    for (int64_t r = 0; r < rows; ++r) {
        memcpy(g->dh0 + (r0 + r) * h, w.dh + r * w.hn, (size_t)h * sizeof(float));
        memcpy(g->dc0 + (r0 + r) * h, w.dc + r * w.hn, (size_t)h * sizeof(float));
    }
}

void LGR_TWIN(lgr_lstm_backward)(const lgr_recurrent *p, const lgr_lstm_grad *g, int32_t r0,
                                 int32_t r1, void *scratch)
{
    switch (p->chip) { /* a constant in each copy */
    case LGR_ARCS: backward(LGR_ARCS, p, g, r0, r1, scratch); break;
    case LGR_VENUSA: backward(LGR_VENUSA, p, g, r0, r1, scratch); break;
    default: backward(LGR_VENUS, p, g, r0, r1, scratch); break;
    }
}
