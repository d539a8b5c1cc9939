/* gru_forward.h - the cells, for the twins: built after a lanes_*.h. */
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/forward_walk.h"

LGR_VEC void save32(const place *o, const int plane, vi v)
{
    if (o->four) v_store((void *)(o->four + plane * LGR_UNITS * 4), v);
}
LGR_VEC void save24(const place *o, vi v) /* Q27 */
{
    save16(o, 0, v_down(v, 16));
    save8(o, 0, v_down(v, 8));
}
LGR_VEC void cell_end(rule *k, const place *o, vi h)
{
    v_put_code(o->next, h);
    v_put(o->y, o->value, h, k->inv, o->left);
}
/* h = z * (h - n) + n of gates in Q31 */
LGR_VEC void end31(rule *k, const place *o, vi z, vi n)
{
    const vi h = v_codes(o->h), nq = v_round_by(n, k->shift, k->any), a = v_sub(h, nq);
    k->peak = v_mixed(k->peak, z, 0x1p-31f, a, nq);
    cell_end(k, o, v_clamp(v_add(v_mul31(z, a), nq), -128, 127));
}
/* arcs, first half: the reset gate acts on h */
LGR_VEC void reset_arcs(const place *o)
{
    const lgr_pwl *sig = &lgr_chip_tables[LGR_ARCS_SIGMOID];
    const vi r = v_sat_add(v_load(o->a), v_load(o->b)),
             z = v_sat_add(v_load(o->a + LGR_UNITS), v_load(o->b + LGR_UNITS));
    const vi rh = v_clamp(v_mul31(v_pwl27(sig, LGR_IS_SIGMOID, 0, r), v_codes(o->h)), -128, 127);
    v_put_code(o->reset, rh);
    v_store(o->z, z);
    save24(o, r);
    save32(o, 0, z);
    save8(o, 1, rh);
}
/* arcs, second half: b holds W_n (r * h) */
LGR_VEC void cell_arcs(rule *k, const place *o)
{
    const lgr_pwl *sig = &lgr_chip_tables[LGR_ARCS_SIGMOID];
    const vi n = v_sat_add(v_load(o->a + 2 * LGR_UNITS), v_load(o->b));
    save32(o, 1, n);
    end31(k, o, v_pwl27(sig, LGR_IS_SIGMOID, 0, v_load(o->z)), v_pwl27(sig + 1, LGR_IS_TANH, 0, n));
}
LGR_VEC void cell_venusa(rule *k, const place *o)
{
    const lgr_pwl *sig = &lgr_chip_tables[LGR_VENUSA_SIGMOID];
    const vi r = fitted(&k->to27, v_sat_add(v_load(o->a), v_load(o->b))),
             z = fitted(&k->to27, v_sat_add(v_load(o->a + LGR_UNITS), v_load(o->b + LGR_UNITS))),
             b = v_load(o->b + 2 * LGR_UNITS);
    const vi kept = v_mul31(v_pwl27(sig, LGR_IS_SIGMOID, 1, r), b);
    const vi n = fitted(&k->to27, v_sat_add(v_load(o->a + 2 * LGR_UNITS), kept));
    save24(o, r);
    save32(o, 0, z);
    save32(o, 1, n);
    save32(o, 2, b);
    end31(k, o, v_pwl27(sig, LGR_IS_SIGMOID, 1, z), v_pwl27(sig + 1, LGR_IS_TANH, 1, n));
}
/* venus: gates Q15; z multiplies the candidate */
LGR_VEC void cell_venus(rule *k, const place *o)
{
    const lgr_pwl *sig = &lgr_chip_tables[LGR_VENUS_SIGMOID];
    const vi r = v_clamp(v_sat_add(v_load(o->a), v_load(o->b)), -32768, 32767),
             z = v_clamp(v_sat_add(v_load(o->a + LGR_UNITS), v_load(o->b + LGR_UNITS)), -32768,
                         32767),
             b = v_clamp(v_load(o->b + 2 * LGR_UNITS), -32768, 32767),
             a = v_clamp(v_load(o->a + 2 * LGR_UNITS), -32768, 32767);
    const vi kept = v_round(v_mul(v_pwl11(sig, LGR_IS_SIGMOID, r), b), 15);
    const vi n = v_clamp(v_add(v_clamp(kept, -32768, 32767), a), -32768, 32767);
    save16(o, 0, r);
    save16(o, 1, z);
    save16(o, 2, n);
    save16(o, 3, b);
    const vi share = v_pwl11(sig, LGR_IS_SIGMOID, z), h = v_codes(o->h),
             nq = v_round_by(v_pwl11(sig + 1, LGR_IS_TANH, n), k->shift, k->any),
             far = v_clamp(v_sub(nq, h), -32768, 32767);
    k->peak = v_mixed(k->peak, share, 0x1p-15f, far, h);
    const vi step = v_clamp(v_round(v_mul(share, far), 15), -32768, 32767);
    cell_end(k, o, v_clamp(v_add(step, h), -128, 127));
}

LGR_VEC void cell(const int chip, const int half, rule *k, const place *o)
{
    if (chip == LGR_VENUS) cell_venus(k, o);
    else if (chip == LGR_VENUSA) cell_venusa(k, o);
    else if (half == 0) reset_arcs(o);
    else cell_arcs(k, o);
}

LGR_VEC void forward(const int chip, const lgr_recurrent *p, const lgr_recurrent_weights *w,
                     const lgr_gru_io *io, int32_t r0, int32_t r1, void *scratch,
                     lgr_recurrent_seen *seen)
{
    const int base = lgr_gru_base(p);
    const rows of = {io->x, io->y, io->value, io->saved};
    walk k = walk_begin(p, 3, r1 - r0, scratch);
    rule all = rule_make(p, chip == LGR_VENUS ? 15 : 31, base);
    walk_start(&k, p, io->h0, NULL, r0);
    walk_steps(chip, 3, lgr_gru_resets_state(chip) ? 2 : 1, &k, p, w, &of, base, r0, r1, &all);
    walk_end(&k, p, r0, io->hn, NULL);
    lgr_gru_seen(p, v_top(all.peak), seen);
}

void LGR_TWIN(lgr_gru_forward)(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                               const lgr_gru_io *io, int32_t r0, int32_t r1, void *scratch,
                               lgr_recurrent_seen *seen)
{
    switch (p->chip) { /* a constant in each copy */
    case LGR_ARCS: forward(LGR_ARCS, p, w, io, r0, r1, scratch, seen); break;
    case LGR_VENUSA: forward(LGR_VENUSA, p, w, io, r0, r1, scratch, seen); break;
    default: forward(LGR_VENUS, p, w, io, r0, r1, scratch, seen); break;
    }
}
