/* lstm_gradients.h - the gradients of some units of one row, in the names of grad_lanes_*.h; C++ reads it too. */
#ifndef LGR_LSTM_GRADIENTS_H
#define LGR_LSTM_GRADIENTS_H
#include "kernels/recurrent/unit_gradients.h"
#include "lgr/lstm.h"

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
    saved s;
    s.v = g_add(g_up(g_load16(two), 8), low);
    s.low = low;
    return s;
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

/* FL units of one row from u on: gate gradients into row k of the chunk, dc of the step before. */
LGR_VEC void some_gradients(const int chip, const plan *w, const lgr_lstm_grad *g, int64_t row,
                            int64_t prev, int64_t entry, int64_t r, int64_t k, int64_t u)
{
    const int64_t left = w->h - u, block = u / LGR_UNITS, e = u % LGR_UNITS;
    const int64_t plane = 2 * LGR_UNITS, kept = lgr_saved_block(chip, 4);
    const char *two = (const char *)g->saved + (row * w->blocks + block) * kept + 2 * e,
               *one = two + 5 * plane - e, *cell = chip == LGR_VENUS ? one : one + 2 * plane;
    const int64_t back = prev >= 0 ? (prev - row) * w->blocks * kept : 0;
    float *dc = w->dc + r * w->hn + u, *out = w->dg + (block * w->cap + k) * LGR_UNITS + e;
    vf dh = f_load(w->dh + r * w->hn + u), cp = f_set(0.0f);
    if (prev >= 0) cp = cell_value(chip, cell_saved(chip, two + 4 * plane + back, cell + back).v);
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
#endif
