/* lstm_forward.h - the walk and the cell, for the twins: built after a lanes_*.h. */
#include "kernels/lstm/lstm_isa.h"
#include "kernels/recurrent/forward_walk.h"

typedef struct place { /* of LANES units of one row */
    const int32_t *a, *b; /* gate sums of input and state */
    int32_t *c;
    char *two, *one; /* where what backward needs is saved, or NULL */
    hcode *h;
    int8_t *y;
    float *value;
    int64_t left; /* units that exist */
} place;
typedef struct rule {
    int any;
    __m128i shift; /* of the last product to q_h */
    float inv;
    vi peak;
    int64_t saturated;
} rule;

/* x of Q27 in 24 bits, and what the chip makes of it */
LGR_VEC void save27(const place *o, const int plane, vi x, vi y)
{
    if (!o->two) return;
    v_put16(o->two + plane * LGR_UNITS * 2, v_down(x, 16));
    v_put8(o->one + plane * LGR_UNITS, v_or(v_and(v_down(x, 8), v_set(0xfc)), v_and(y, v_set(3))));
}
LGR_VEC void cell_end(rule *k, const place *o, vi last)
{
    const vi h = v_clamp(v_round_by(last, k->shift, k->any), -128, 127);
    k->peak = v_max(k->peak, v_abs(last));
    v_put_code(o->h, h);
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
        if (o->two) v_put16(o->two + g * LGR_UNITS * 2, pre);
    }
    const vi s = v_add(v_mul(v_load(o->c), v[1]), v_mul(v[0], v[2]));
    const vi t = v_pwl11(sig + 1, LGR_IS_TANH, v_clamp(v_round(s, 3), -32768, 32767));
    v_store(o->c, v_clamp(v_round(s, 7), -32768, 32767));
    if (o->two) { /* |s| < 2^23 */
        v_put16(o->two + 4 * LGR_UNITS * 2, v_down(s, 8));
        v_put8(o->one, v_and(s, v_set(255)));
    }
    cell_end(k, o, v_mul(v[3], v_clamp(v_round(t, 8), -128, 127)));
}

LGR_VEC void forward(const int chip, const lgr_recurrent *p, const lgr_recurrent_weights *w,
                     const lgr_lstm_io *io, int32_t r0, int32_t r1, void *scratch,
                     lgr_recurrent_seen *seen)
{
    walk k = walk_begin(p, 4, r1 - r0, scratch);
    const int base = chip == LGR_VENUS ? 11 : 27, s = (chip == LGR_VENUS ? 14 : 30) - p->q_h;
    const fit fx = fit_make(p->exp2_ih, base), fh = fit_make(p->exp2_hh, base);
    const int64_t h = p->h, hp = k.hp, kept = lgr_saved_block(chip, 4),
                  block = k.groups_h * GROUP * LGR_UNITS * 4 * (int64_t)sizeof(hcode);
    rule cell = {s > 0, _mm_cvtsi32_si128(s > 0 ? s - 1 : 0), lgr_exp2_scale(-p->q_h), v_set(0), 0};
    walk_start(&k, p, io->h0, io->c0, r0);
    for (int32_t i0 = 0; i0 < p->steps; i0 += (int32_t)k.per) {
        const int32_t i1 = p->steps - i0 < k.per ? p->steps : i0 + (int32_t)k.per;
        project(&k, p, w, 4, io->x, &fx, i0, i1, r0, r1);
        const int32_t *a = k.projected;
        for (int32_t i = i0; i < i1; ++i) {
            const int32_t t = step_of(p, i);
            const int64_t act = active(p, t, r0, r1);
            if (act <= 0) continue;
            for (int64_t m = 0; m < act; m += LGR_TILE_ROWS) {
                const int64_t count = act - m < LGR_TILE_ROWS ? act - m : LGR_TILE_ROWS;
                for (int64_t u = 0; u < k.blocks; ++u) {
                    products(4, count, k.h + m * hp, hp, k.groups_h,
                             (const char *)w->w_hh + u * block, w->sum_hh + u * 64,
                             w->b_hh + u * 64, w->wide, &fh, k.sums, 64);
                    for (int64_t r = 0; r < count; ++r)
                        for (int64_t e = 0; e < LGR_UNITS; e += LANES) {
                            const int64_t row = p->off[t] + (r0 + m + r) * p->row_stride,
                                          unit = u * LGR_UNITS + e;
                            char *saved =
                                io->saved ? (char *)io->saved + (row * k.blocks + u) * kept : NULL;
                            const place o = {a + (m + r) * hp * 4 + u * 64 + e,
                                             k.sums + r * 64 + e,
                                             k.c + (m + r) * hp + unit,
                                             saved ? saved + 2 * e : NULL,
                                             saved ? saved + 5 * LGR_UNITS * 2 + e : NULL,
                                             k.next + (m + r) * hp + unit,
                                             io->y + row * h + unit,
                                             io->value ? io->value + row * h + unit : NULL,
                                             h - unit};
                            if (chip == LGR_VENUS) cell11(&cell, &o);
                            else cell27(chip == LGR_VENUSA, &cell, &o);
                        }
                }
            }
            a += act * hp * 4;
            walk_swap(&k, act);
        }
    }
    walk_end(&k, p, r0, io->hn, io->cn);
    seen->saturated += cell.saturated;
    lgr_lstm_seen(p, v_top(cell.peak), seen);
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
