/* lstm_forward.h - the cells, for the twins: built after a lanes_*.h. */
#include "kernels/lstm/lstm_isa.h"
#include "kernels/recurrent/forward_walk.h"

/* x of Q27 in 24 bits, and what the chip makes of it */
LGR_VEC void save27(const place *o, const int plane, vi x, vi y)
{
    save16(o, plane, v_down(x, 16));
    save8(o, plane, v_or(v_and(v_down(x, 8), v_set(0xfc)), v_and(y, v_set(3))));
}
LGR_VEC void cell_end(rule *k, const place *o, vi last)
{
    const vi h = v_clamp(v_round_by(last, k->shift, k->any), -128, 127);
    k->peak = v_max(k->peak, v_abs(last));
    v_put_code(o->next, h);
    v_put(o->y, o->value, h, k->inv, o->left);
}
/* arcs, venusA: gates and cell Q15 */
LGR_VEC void cell27(const int venusa, rule *k, const place *o)
{
    const lgr_pwl *sig = &lgr_chip_tables[venusa ? LGR_VENUSA_SIGMOID : LGR_ARCS_SIGMOID];
    vi v[4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
        const vi pre = v_sat_add(v_load(o->a + LGR_UNITS * g), v_load(o->b + LGR_UNITS * g));
        v[g] = v_round(v_pwl27(sig + (g == 2), g == 2, venusa, pre), 16);
        save27(o, g, pre, v[g]);
    }
    const vi cf = v_sat_mul(v_load(o->c), v[1], &k->saturated), ig = v_mul(v[0], v[2]);
    /* (cf + ig) / 8 rounded, without leaving 32 bits: floor((floor((cf + ig) / 2) + 2) / 4) */
    const vi half = v_add(v_add(v_half(cf), v_half(ig)), v_and(v_and(cf, ig), v_set(1)));
    const vi c27 = v_half(v_half(v_add(half, v_set(2))));
    const vi th = v_round(v_pwl27(sig + 1, LGR_IS_TANH, venusa, c27), 16);
    v_store(o->c, v_round(c27, 12));
    save27(o, 4, c27, th);
    cell_end(k, o, v_mul(v[3], th));
}
/* venus: gates and cell Q7. |c * f| <= 2^15 * 2^7, |i * g| <= 2^14: nothing saturates. */
LGR_VEC void cell11(rule *k, const place *o)
{
    const lgr_pwl *sig = &lgr_chip_tables[LGR_VENUS_SIGMOID];
    vi v[4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
        const vi sum = v_sat_add(v_load(o->a + LGR_UNITS * g), v_load(o->b + LGR_UNITS * g));
        const vi pre = v_clamp(sum, -32768, 32767);
        v[g] = v_clamp(v_round(v_pwl11(sig + (g == 2), g == 2, pre), 8), -128, 127);
        save16(o, g, pre);
    }
    const vi s = v_add(v_mul(v_load(o->c), v[1]), v_mul(v[0], v[2]));
    const vi t = v_pwl11(sig + 1, LGR_IS_TANH, v_clamp(v_round(s, 3), -32768, 32767));
    v_store(o->c, v_clamp(v_round(s, 7), -32768, 32767));
    save16(o, 4, v_down(s, 8)); /* |s| < 2^23 */
    save8(o, 0, s);
    cell_end(k, o, v_mul(v[3], v_clamp(v_round(t, 8), -128, 127)));
}

LGR_VEC void cell(const int chip, const int half, rule *k, const place *o)
{
    (void)half;
    if (chip == LGR_VENUS) cell11(k, o);
    else cell27(chip == LGR_VENUSA, k, o);
}

LGR_VEC void forward(const int chip, const lgr_recurrent *p, const lgr_recurrent_weights *w,
                     const lgr_lstm_io *io, int32_t r0, int32_t r1, void *scratch,
                     lgr_recurrent_seen *seen)
{
    const int base = chip == LGR_VENUS ? 11 : 27;
    const rows of = {io->x, io->y, io->value, io->saved};
    walk k = walk_begin(p, 4, r1 - r0, scratch);
    rule all = rule_make(p, chip == LGR_VENUS ? 14 : 30, base);
    walk_start(&k, p, io->h0, io->c0, r0);
    walk_steps(chip, 4, 1, &k, p, w, &of, base, r0, r1, &all);
    walk_end(&k, p, r0, io->hn, io->cn);
    seen->saturated += all.saturated;
    lgr_lstm_seen(p, v_top(all.peak), seen);
}

void LGR_TWIN(lgr_lstm_forward)(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                                const lgr_lstm_io *io, int32_t r0, int32_t r1, void *scratch,
                                lgr_recurrent_seen *seen)
{
    switch (p->chip) { /* a constant in each copy */
    case LGR_ARCS: forward(LGR_ARCS, p, w, io, r0, r1, scratch, seen); break;
    case LGR_VENUSA: forward(LGR_VENUSA, p, w, io, r0, r1, scratch, seen); break;
    default: forward(LGR_VENUS, p, w, io, r0, r1, scratch, seen); break;
    }
}
