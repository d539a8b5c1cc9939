/* gru_backward.h - backward through time, for the twins: built after a grad_lanes_*.h.
 *
 * Planes of gate gradients: n of W_hh, r, z, n of W_ih. The recurrent products take the first three, those of x the last three.
 */
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/backward_walk.h"

LGR_VEC factor sigmoid_factor(const int chip, vg v)
{
    factor o;
    if (chip == LGR_VENUS) {
        o.y = f_from(g_pwl11(LGR_VENUS_SIGMOID, LGR_IS_SIGMOID, v), 0x1p-15f);
        o.d = f_dsigmoid(f_from(v, 0x1p-11f));
    } else {
        o.y = f_from(g_pwl27(2 * chip, LGR_IS_SIGMOID, chip == LGR_VENUSA, v), 0x1p-31f);
        o.d = f_dsigmoid(f_from(v, 0x1p-27f));
    }
    return o;
}
/* y: n rounded to the state's format, as the interpolation used it; fine: before that */
LGR_VEC factor tanh_factor(const int chip, int q_h, vg v, vf *fine)
{
    const float inv = lgr_exp2_scale(-q_h);
    factor o;
    if (chip == LGR_VENUS) {
        const vg n = g_pwl11(LGR_VENUS_TANH, LGR_IS_TANH, v);
        *fine = f_from(n, 0x1p-15f);
        o.y = f_from(g_clamp(g_round(n, 15 - q_h), -32768, 32767), inv);
        o.d = f_dsigmoid(f_from(v, 0x1p-10f));
    } else {
        const vg n = g_pwl27(2 * chip + 1, LGR_IS_TANH, chip == LGR_VENUSA, v);
        *fine = f_from(n, 0x1p-31f);
        o.y = f_from(g_round(n, 31 - q_h), inv);
        o.d = f_dsigmoid(f_from(v, 0x1p-26f));
    }
    o.d = o.d * f_set(4.0f);
    return o;
}

/* r z n b of FL units from a block of what forward saved, e: the first of them */
typedef struct kept {
    vg r, z, n, b;
} kept;
LGR_VEC kept kept_of(const int chip, const char *block, int64_t e)
{
    const lgr_saved_planes n = lgr_saved(chip, 3);
    const int word = LGR_UNITS * 4, half = LGR_UNITS * 2;
    const char *four = block + 4 * e, *two = block + n.n32 * word + 2 * e,
               *one = block + n.n32 * word + n.n16 * half + e;
    if (chip == LGR_VENUS)
        return (kept){g_load16(two), g_load16(two + half), g_load16(two + 2 * half),
                      g_load16(two + 3 * half)};
    return (kept){saved_q27(two, one, 0).v, g_load((const void *)four),
                  g_load((const void *)(four + word)),
                  chip == LGR_ARCS ? g_codes_n((const int8_t *)(one + LGR_UNITS), FL)
                                   : g_load((const void *)(four + 2 * word))};
}

/* Gradients of one row's units; on arcs the share of r follows when that of r * h is known. dh becomes what reaches the state
 * before directly. inv_b: of the saved recurrent sum of n. */
LGR_VEC void row_gradients(const int chip, const plan *w, const lgr_gru_grad *g, int64_t row,
                           const int8_t *before_h, float inv_b, int64_t r, int64_t k)
{
    for (int64_t u = 0; u < w->hp; u += FL) {
        const int64_t left = w->h - u, block = u / LGR_UNITS, e = u % LGR_UNITS;
        const kept pre = kept_of(
            chip, (const char *)g->saved + (row * w->blocks + block) * lgr_saved_block(chip, 3), e);
        float *out = w->dg + (block * w->cap + k) * LGR_UNITS + e, *dhp = w->dh + r * w->hn + u;
        vf dh = f_load(dhp), fine;
        if (g->dy) dh = dh + f_load_n(g->dy + row * w->h + u, left);
        const vf h = before_h ? f_from(g_codes_n(before_h + (left > 0 ? u : 0), left), w->inv_h)
                              : f_set(0.0f);
        const factor z = sigmoid_factor(chip, pre.z), n = tanh_factor(chip, w->q_h, pre.n, &fine);
        const vf rest = f_set(1.0f) - z.y, to_n = chip == LGR_VENUS ? z.y : rest,
                 to_h = chip == LGR_VENUS ? rest : z.y, far = chip == LGR_VENUS ? n.y - h : h - n.y;
        const vf dn = dh * to_n * n.d;
        f_store(out + 2 * w->plane, f_keep(dh * far * z.d, left));
        f_store(out + 3 * w->plane, f_keep(dn, left));
        if (chip == LGR_ARCS) {
            f_store(out, f_keep(dn, left));
        } else {
            const factor rf = sigmoid_factor(chip, pre.r);
            const vf b = f_from(pre.b, inv_b);
            f_store(out, f_keep(dn * rf.y, left));
            f_store(out + w->plane, f_keep(dn * b * rf.d, left));
        }
        f_store(dhp, f_keep(dh * to_h, left));
        if (g->slope) {
            const vf code = f_from(g_codes_n(g->y + row * w->h + (left > 0 ? u : 0), left), 1.0f);
            const vf v = (to_n * fine + to_h * h) * f_set(w->to_code),
                     last = (to_n * n.y + to_h * h) * f_set(w->to_code); /* n was rounded before */
            *g->slope += slope_sum(dh, code, v, last, left);
        }
    }
}
/* arcs: from the gradient of r * h to those of r and of h; the column of r * h for dW_n */
LGR_VEC void row_reset(const plan *w, const lgr_gru_grad *g, int64_t row, const int8_t *before_h,
                       int64_t r, int64_t k)
{
    for (int64_t u = 0; u < w->hp; u += FL) {
        const int64_t left = w->h - u, block = u / LGR_UNITS, e = u % LGR_UNITS;
        const kept pre = kept_of(
            LGR_ARCS,
            (const char *)g->saved + (row * w->blocks + block) * lgr_saved_block(LGR_ARCS, 3), e);
        float *out = w->dg + (block * w->cap + k) * LGR_UNITS + e, *dhp = w->dh + r * w->hn + u;
        const vf drh = f_load(w->dc + r * w->hn + u);
        const vf h = before_h ? f_from(g_codes_n(before_h + (left > 0 ? u : 0), left), w->inv_h)
                              : f_set(0.0f);
        const factor rf = sigmoid_factor(LGR_ARCS, pre.r);
        f_store(out + w->plane, f_keep(drh * h * rf.d, left));
        f_store(dhp, f_keep(f_fma(drh, rf.y, f_load(dhp)), left));
        float *column_of = w->cols_r + (u / LGR_PANEL * w->cap + k) * LGR_PANEL + u % LGR_PANEL;
        f_store(column_of, f_keep(f_from(pre.b, 1.0f), left));
    }
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
