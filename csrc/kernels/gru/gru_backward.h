/* gru_backward.h - backward through time, for the twins: built after a grad_lanes_*.h.
 *
 * Planes of gate gradients: n of W_hh, r, z, n of W_ih. The recurrent products take the first three, those of x the last three.
 */
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/backward_products.h"
#include "kernels/recurrent/saved_lanes.h"

typedef struct
    factor { /* the value that the products used, and the derivative at the pre-activation */
    vf y, d;
} factor;
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

typedef struct plan {
    int64_t h, hp, hn, dn, blocks, cap, plane; /* plane: floats of one gate */
    float *dg, *cols_h, *cols_r, *cols_x, *dh, *drh;
    int64_t *row_of;
    int q_h;
    float inv_h, inv_b, to_code; /* 2^-q_h; of the saved recurrent sum of n; 2^q_h */
} plan;

/* Gradients of one row's units; on arcs the share of r follows when that of r * h is known. dh becomes what reaches the state
 * before directly. */
LGR_VEC void row_gradients(const int chip, const plan *w, const lgr_gru_grad *g, int64_t row,
                           const int8_t *before_h, int64_t r, int64_t k)
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
            const vf b = f_from(pre.b, w->inv_b);
            f_store(out, f_keep(dn * rf.y, left));
            f_store(out + w->plane, f_keep(dn * b * rf.d, left));
        }
        f_store(dhp, f_keep(dh * to_h, left));
        if (g->slope) {
            const vf code = f_from(g_codes_n(g->y + row * w->h + (left > 0 ? u : 0), left), 1.0f);
            const vf v = (to_n * fine + to_h * h) * f_set(w->to_code);
            *g->slope += slope_sum(dh, code, v, left);
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
        const vf drh = f_load(w->drh + r * w->hn + u);
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

/* Weight gradients of the chunk, and dx. */
LGR_VEC void chunk_end(const int chip, const plan *w, const lgr_recurrent *p, const lgr_gru_grad *g,
                       int64_t k)
{
    const int64_t n = w->blocks, panels = w->hn / LGR_PANEL, width = w->hn;
    const float *x_side = w->dg + w->plane;
    weights_plus(k, w->dg, w->cap, n, chip == LGR_ARCS ? w->cols_r : w->cols_h, panels, g->dw_hh);
    weights_plus(k, x_side, w->cap, 2 * n, w->cols_h, panels, g->dw_hh + n * LGR_UNITS * width);
    weights_plus(k, x_side, w->cap, 3 * n, w->cols_x, w->dn / LGR_PANEL, g->dw_ih);
    bias_plus(k, w->dg, w->cap, 4 * n, g->db);
    if (g->dx)
        rows_times(k, x_side, w->cap, g->w_ih, 3 * n, 0, 3 * n, p->d, g->dx, p->d, w->row_of, 0);
}

LGR_VEC void backward(const int chip, const lgr_recurrent *p, const lgr_gru_grad *g, int32_t r0,
                      int32_t r1, void *scratch)
{
    const int64_t h = p->h, d = p->d, rows = r1 - r0;
    plan w = {.h = h,
              .hp = lgr_padded(h, LGR_UNITS),
              .hn = lgr_padded(h, LGR_PANEL),
              .dn = lgr_padded(d, LGR_PANEL),
              .cap = lgr_chunk_rows(rows),
              .q_h = p->q_h,
              .inv_h = lgr_exp2_scale(-p->q_h),
              .to_code = lgr_exp2_scale(p->q_h),
              .inv_b = lgr_exp2_scale(-lgr_gru_base(p))};
    w.blocks = w.hp / LGR_UNITS;
    w.plane = w.hp * w.cap;
    w.dg = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    w.cols_h = w.dg + w.cap * w.hp * 4;
    w.cols_r = w.cols_h + w.cap * w.hn;
    w.cols_x = w.cols_r + w.cap * w.hn;
    w.dh = w.cols_x + w.cap * w.dn;
    w.drh = w.dh + rows * w.hn;
    w.row_of = (void *)(w.drh + rows * w.hn);
    const int64_t n = w.blocks;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t u = 0; u < w.hn; u += FL) {
            const int64_t at = (r0 + r) * h + (u < h ? u : 0);
            f_store(w.dh + r * w.hn + u, g->dhn ? f_load_n(g->dhn + at, h - u) : f_set(0.0f));
        }
    int64_t k = 0; /* rows of the chunk so far */
    for (int32_t i = 0; i < p->steps; ++i) {
        const int32_t t = p->reverse ? i : p->steps - 1 - i;
        int32_t had, following;
        const int32_t last = before(p, t, &had);
        const int64_t act = (r1 < p->n[t] ? r1 : p->n[t]) - (int64_t)r0;
        for (int half = 0; half < (chip == LGR_ARCS ? 2 : 1); ++half) {
            for (int64_t r = 0; r < act; ++r) {
                const int64_t entry = r0 + r, row = p->off[t] + entry * p->row_stride;
                const int8_t *from = entry < had ? g->y + (p->off[last] + entry * p->row_stride) * h
                                     : g->h0     ? g->h0 + entry * h
                                                 : NULL;
                if (half) {
                    row_reset(&w, g, row, from, r, k + r);
                    continue;
                }
                w.row_of[k + r] = row;
                column(from, h, k + r, w.cap, w.cols_h);
                column(g->x + row * d, d, k + r, w.cap, w.cols_x);
                row_gradients(chip, &w, g, row, from, r, k + r);
            }
            if (act <= 0) continue;
            const float *dg = w.dg + k * LGR_UNITS;
            if (chip != LGR_ARCS)
                rows_times(act, dg, w.cap, g->w_hh, 3 * n, 0, 3 * n, w.hn, w.dh, w.hn, NULL, 1);
            else if (half == 0)
                rows_times(act, dg, w.cap, g->w_hh, 3 * n, 0, n, w.hn, w.drh, w.hn, NULL, 0);
            else
                rows_times(act, dg + w.plane, w.cap, g->w_hh, 3 * n, n, 2 * n, w.hn, w.dh, w.hn,
                           NULL, 1);
        }
        k += act > 0 ? act : 0;
        const int32_t next = before(p, t, &following) < 0 ? 0 : (r1 < following ? r1 : following);
        if (k && (i + 1 == p->steps || k + (next > r0 ? next - r0 : 0) > w.cap)) {
            chunk_end(chip, &w, p, g, k);
            k = 0;
        }
    }
    for (int64_t r = 0; r < rows; ++r)
        memcpy(g->dh0 + (r0 + r) * h, w.dh + r * w.hn, (size_t)h * sizeof(float));
}

void LGR_TWIN(lgr_gru_backward)(const lgr_recurrent *p, const lgr_gru_grad *g, int32_t r0,
                                int32_t r1, void *scratch)
{
    switch (p->chip) { /* a constant in each copy */
    case LGR_ARCS: backward(LGR_ARCS, p, g, r0, r1, scratch); break;
    case LGR_VENUSA: backward(LGR_VENUSA, p, g, r0, r1, scratch); break;
    default: backward(LGR_VENUS, p, g, r0, r1, scratch); break;
    }
}
