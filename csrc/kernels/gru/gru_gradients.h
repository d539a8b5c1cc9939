/* gru_gradients.h - the gradients of some units of one row, in the names of grad_lanes_*.h; C++ reads it too. */
#ifndef LGR_GRU_GRADIENTS_H
#define LGR_GRU_GRADIENTS_H
#include "kernels/recurrent/unit_gradients.h"
#include "lgr/gru.h"

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
    kept k;
    if (chip == LGR_VENUS) {
        k.r = g_load16(two);
        k.z = g_load16(two + half);
        k.n = g_load16(two + 2 * half);
        k.b = g_load16(two + 3 * half);
        return k;
    }
    k.r = saved_q27(two, one, 0).v;
    k.z = g_load((const int32_t *)(const void *)four);
    k.n = g_load((const int32_t *)(const void *)(four + word));
    if (chip == LGR_ARCS) k.b = g_codes_n((const int8_t *)(one + LGR_UNITS), FL);
    else k.b = g_load((const int32_t *)(const void *)(four + 2 * word));
    return k;
}

/* Gradients of FL units of one row from u on; on arcs the share of r follows when that of r * h is known. dh becomes what reaches
 * the state before directly. inv_b: of the saved recurrent sum of n. */
LGR_VEC void some_gradients(const int chip, const plan *w, const lgr_gru_grad *g, int64_t row,
                            const int8_t *before_h, float inv_b, int64_t r, int64_t k, int64_t u)
{
    const int64_t left = w->h - u, block = u / LGR_UNITS, e = u % LGR_UNITS;
    const kept pre = kept_of(
        chip, (const char *)g->saved + (row * w->blocks + block) * lgr_saved_block(chip, 3), e);
    float *out = w->dg + (block * w->cap + k) * LGR_UNITS + e, *dhp = w->dh + r * w->hn + u;
    vf dh = f_load(dhp), fine;
    if (g->dy) dh = dh + f_load_n(g->dy + row * w->h + u, left);
    const vf h =
        before_h ? f_from(g_codes_n(before_h + (left > 0 ? u : 0), left), w->inv_h) : f_set(0.0f);
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
/* arcs: from the gradient of r * h to those of r and of h; returns the codes of r * h */
LGR_VEC vf some_reset(const plan *w, const lgr_gru_grad *g, int64_t row, const int8_t *before_h,
                      int64_t r, int64_t k, int64_t u)
{
    const int64_t left = w->h - u, block = u / LGR_UNITS, e = u % LGR_UNITS;
    const kept pre = kept_of(
        LGR_ARCS, (const char *)g->saved + (row * w->blocks + block) * lgr_saved_block(LGR_ARCS, 3),
        e);
    float *out = w->dg + (block * w->cap + k) * LGR_UNITS + e, *dhp = w->dh + r * w->hn + u;
    const vf drh = f_load(w->dc + r * w->hn + u);
    const vf h =
        before_h ? f_from(g_codes_n(before_h + (left > 0 ? u : 0), left), w->inv_h) : f_set(0.0f);
    const factor rf = sigmoid_factor(LGR_ARCS, pre.r);
    f_store(out + w->plane, f_keep(drh * h * rf.d, left));
    f_store(dhp, f_keep(f_fma(drh, rf.y, f_load(dhp)), left));
    return f_keep(f_from(pre.b, 1.0f), left);
}
#endif
