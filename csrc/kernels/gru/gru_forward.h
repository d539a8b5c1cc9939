/* gru_forward.h - the walk and the cells, for the twins: built after a lanes_*.h. */
#include "kernels/gru/gru_isa.h"
#include "kernels/recurrent/forward_walk.h"

typedef struct place { /* of LANES units of one row */
    const int32_t *a, *b; /* gate sums of input and state */
    char *four, *two,
        *one; /* where what backward needs is saved, or NULL: planes of words, halves, bytes */
    int32_t *z; /* held between the two halves of an arcs step */
    const hcode *h;
    hcode *next, *reset;
    int8_t *y;
    float *value;
    int64_t left; /* units that exist */
} place;
typedef struct rule {
    int q_h, any;
    __m128i shift; /* of n to q_h */
    fit to27;      /* venusA: from the common format of the sums */
    float inv;
    vi peak;
} rule;

LGR_VEC void save32(const place *o, const int plane, vi v)
{
    if (o->four) v_store((void *)(o->four + plane * LGR_UNITS * 4), v);
}
LGR_VEC void save16(const place *o, const int plane, vi v)
{
    if (o->two) v_put16(o->two + plane * LGR_UNITS * 2, v);
}
LGR_VEC void save8(const place *o, const int plane, vi v)
{
    if (o->one) v_put8(o->one + plane * LGR_UNITS, v_and(v, v_set(255)));
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

/* The units of `count` rows from row m on; `from` is the first gate of the sums at hand. */
LGR_VEC void forward(const int chip, const lgr_recurrent *p, const lgr_recurrent_weights *w,
                     const lgr_gru_io *io, int32_t r0, int32_t r1, void *scratch,
                     lgr_recurrent_seen *seen)
{
    walk k = walk_begin(p, 3, r1 - r0, scratch);
    const int base = lgr_gru_base(p), s = (chip == LGR_VENUS ? 15 : 31) - p->q_h;
    const fit fx = fit_make(p->exp2_ih, base), fh = fit_make(p->exp2_hh, base);
    const int64_t n32 = lgr_saved(chip, 3).n32, n16 = lgr_saved(chip, 3).n16,
                  kept = lgr_saved_block(chip, 3);
    const int64_t h = p->h, hp = k.hp,
                  gate = k.groups_h * GROUP * LGR_UNITS * (int64_t)sizeof(hcode);
    const int gates = chip == LGR_ARCS ? 2 : 3; /* of the first half */
    rule cell = {p->q_h,
                 s > 0,
                 _mm_cvtsi32_si128(s > 0 ? s - 1 : 0),
                 fit_make(base, 27),
                 lgr_exp2_scale(-p->q_h),
                 v_set(0)};
    walk_start(&k, p, io->h0, NULL, r0);
    for (int32_t i0 = 0; i0 < p->steps; i0 += (int32_t)k.per) {
        const int32_t i1 = p->steps - i0 < k.per ? p->steps : i0 + (int32_t)k.per;
        project(&k, p, w, 3, io->x, &fx, i0, i1, r0, r1);
        const int32_t *a = k.projected;
        for (int32_t i = i0; i < i1; ++i) {
            const int32_t t = step_of(p, i);
            const int64_t act = active(p, t, r0, r1);
            if (act <= 0) continue;
            for (int64_t m = 0; m < act; m += LGR_TILE_ROWS) {
                const int64_t count = act - m < LGR_TILE_ROWS ? act - m : LGR_TILE_ROWS;
                for (int half = 0; half < (chip == LGR_ARCS ? 2 : 1); ++half)
                    for (int64_t u = 0; u < k.blocks; ++u) {
                        const char *wh = (const char *)w->w_hh + u * 3 * gate;
                        if (half == 0)
                            products(gates, count, k.h + m * hp, hp, k.groups_h, wh,
                                     w->sum_hh + u * 48, w->b_hh + u * 48, w->wide, &fh, k.sums,
                                     64);
                        else
                            products(1, count, k.reset, hp, k.groups_h, wh + 2 * gate,
                                     w->sum_hh + u * 48 + 32, w->b_hh + u * 48 + 32, w->wide, &fh,
                                     k.sums, 64);
                        for (int64_t r = 0; r < count; ++r)
                            for (int64_t e = 0; e < LGR_UNITS; e += LANES) {
                                const int64_t row = p->off[t] + (r0 + m + r) * p->row_stride,
                                              unit = u * LGR_UNITS + e;
                                char *four = io->saved
                                                 ? (char *)io->saved + (row * k.blocks + u) * kept
                                                 : NULL;
                                char *two = four ? four + n32 * LGR_UNITS * 4 : NULL,
                                     *bytes = four ? two + n16 * LGR_UNITS * 2 : NULL;
                                const place o = {a + (m + r) * hp * 3 + u * 48 + e,
                                                 k.sums + r * 64 + e,
                                                 four ? four + 4 * e : NULL,
                                                 four ? two + 2 * e : NULL,
                                                 four ? bytes + e : NULL,
                                                 k.held + r * hp + unit,
                                                 k.h + (m + r) * hp + unit,
                                                 k.next + (m + r) * hp + unit,
                                                 k.reset + r * hp + unit,
                                                 io->y + row * h + unit,
                                                 io->value ? io->value + row * h + unit : NULL,
                                                 h - unit};
                                if (chip == LGR_VENUS) cell_venus(&cell, &o);
                                else if (chip == LGR_VENUSA) cell_venusa(&cell, &o);
                                else if (half == 0) reset_arcs(&o);
                                else cell_arcs(&cell, &o);
                            }
                    }
            }
            a += act * hp * 3;
            walk_swap(&k, act);
        }
    }
    walk_end(&k, p, r0, io->hn, NULL);
    lgr_gru_seen(p, v_top(cell.peak), seen);
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
