/* forward_walk.h - the way through steps, rows and units that LSTM and GRU share, in the names of lanes_*.h; the cell is theirs. */
#ifndef LGR_FORWARD_WALK_H
#define LGR_FORWARD_WALK_H

/* What a cell reads and writes: LANES units of one row. */
typedef struct place {
    const int32_t *a, *b; /* gate sums of input and state */
    int32_t *c; /* LSTM: the cell state */
    int32_t *z; /* GRU on arcs: held between the two halves of a step */
    const hcode *h;
    hcode *next, *reset; /* reset: GRU on arcs, what the second half's sums are of */
    char *four, *two,
        *one; /* where what backward needs is saved, or NULL: planes of words, halves, bytes */
    int8_t *y;
    float *value;
    int64_t left; /* units that exist */
} place;
/* What the cells of a call share. */
typedef struct rule {
    int any;
    __m128i shift; /* of the last product to q_h */
    fit to27; /* GRU on venusA: from the common format of the sums */
    float inv;
    vi peak;
    int64_t saturated; /* LSTM */
} rule;
/* The cell, in the file that includes this one; half: 0, or 1 behind the second half's sums. */
LGR_VEC void cell(const int chip, const int half, rule *k, const place *o);

/* last: exponent of the last product, base: of the sums */
LGR_VEC rule rule_make(const lgr_recurrent *p, const int last, int base)
{
    const int s = last - p->q_h;
    return (rule){s > 0,
                  _mm_cvtsi32_si128(s > 0 ? s - 1 : 0),
                  fit_make(base, 27),
                  lgr_exp2_scale(-p->q_h),
                  v_set(0),
                  0};
}
LGR_VEC void save16(const place *o, const int plane, vi v)
{
    if (o->two) v_put16(o->two + plane * LGR_UNITS * 2, v);
}
LGR_VEC void save8(const place *o, const int plane, vi v)
{
    if (o->one) v_put8(o->one + plane * LGR_UNITS, v_and(v, v_set(255)));
}

/* h stands twice: as the step reads it and as the step writes it. */
typedef struct walk {
    int64_t hp, blocks, dp, groups_x, groups_h, rows, per; /* per: steps projected together */
    int32_t *projected, *c, *sums, *held;
    hcode *h, *next, *reset, *x;
} walk;

LGR_VEC walk walk_begin(const lgr_recurrent *p, const int gates, int32_t rows, void *scratch)
{
    walk k = {.hp = lgr_padded(p->h, LGR_UNITS), .dp = lgr_padded(p->d, GROUP), .rows = rows};
    const int64_t chunk = lgr_forward_rows(k.hp * gates, rows);
    k.blocks = k.hp / LGR_UNITS;
    k.groups_x = k.dp / GROUP;
    k.groups_h = lgr_padded(p->h, GROUP) / GROUP;
    k.per = chunk / rows;
    k.projected = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    k.c = k.projected + chunk * k.hp * gates;
    k.sums = k.c + rows * k.hp;
    k.held = k.sums + LGR_TILE_ROWS * 4 * LGR_UNITS;
    k.h = (void *)(k.held + 2 * LGR_TILE_ROWS * k.hp);
    k.next = k.h + rows * k.hp;
    k.reset = k.next + rows * k.hp;
    k.x = k.reset + LGR_TILE_ROWS * k.hp;
    return k;
}
LGR_VEC void walk_start(const walk *k, const lgr_recurrent *p, const int8_t *h0, const int32_t *c0,
                        int32_t r0)
{
    for (int64_t r = 0; r < k->rows; ++r)
        for (int64_t u = 0; u < k->hp; ++u) {
            const int64_t at = (r0 + r) * p->h + u;
            k->h[r * k->hp + u] = code_of(h0 && u < p->h ? h0[at] : 0);
            k->c[r * k->hp + u] = c0 && u < p->h ? c0[at] : 0;
        }
}
LGR_VEC int32_t step_of(const lgr_recurrent *p, int32_t i) /* the i-th step in running order */
{
    return p->reverse ? p->steps - 1 - i : i;
}
LGR_VEC int64_t active(const lgr_recurrent *p, int32_t t, int32_t r0, int32_t r1)
{
    return (r1 < p->n[t] ? r1 : p->n[t]) - (int64_t)r0; /* <= 0: none */
}
/* Gate sums of the inputs of steps [i0, i1) -> projected [row][unit block][gate][16] */
LGR_VEC void project(const walk *k, const lgr_recurrent *p, const lgr_recurrent_weights *w,
                     const int gates, const int8_t *x, const fit *f, int32_t i0, int32_t i1,
                     int32_t r0, int32_t r1)
{
    int64_t count = 0;
    for (int32_t i = i0; i < i1; ++i) {
        const int32_t t = step_of(p, i);
        for (int64_t r = 0; r < active(p, t, r0, r1); ++r, ++count)
            take_codes(k->x + count * k->dp, x + (p->off[t] + (r0 + r) * p->row_stride) * p->d,
                       p->d, k->dp);
    }
    const int64_t block = k->groups_x * GROUP * LGR_UNITS * (int64_t)sizeof(hcode);
    for (int64_t u = 0; u < k->blocks; ++u)
        products(gates, count, k->x, k->dp, k->groups_x, (const char *)w->w_ih + u * gates * block,
                 w->sum_ih + u * gates * LGR_UNITS, w->b_ih + u * gates * LGR_UNITS, w->wide, f,
                 k->projected + u * gates * LGR_UNITS, k->hp * gates);
}
/* The states that the step has written become those that the next one reads; entries that rest keep theirs. */
LGR_VEC void walk_swap(walk *k, int64_t act)
{
    if (act < k->rows)
        memcpy(k->next + act * k->hp, k->h + act * k->hp,
               (size_t)((k->rows - act) * k->hp) * sizeof(hcode));
    hcode *const old = k->h;
    k->h = k->next;
    k->next = old;
}
/* The rows of a layer. */
typedef struct rows {
    const int8_t *x;
    int8_t *y;
    float *value; /* or NULL */
    char *saved; /* or NULL */
} rows;
/* Every step of entries [r0, r1). halves: 2 where the sums of the last gate are of what the cells of the others put in reset. */
LGR_VEC void walk_steps(const int chip, const int gates, const int halves, walk *k,
                        const lgr_recurrent *p, const lgr_recurrent_weights *w, const rows *io,
                        const int base, int32_t r0, int32_t r1, rule *of)
{
    const fit fx = fit_make(p->exp2_ih, base), fh = fit_make(p->exp2_hh, base);
    const lgr_saved_planes planes = lgr_saved(chip, gates);
    const int first = halves == 2 ? gates - 1 : gates, per_unit = gates * LGR_UNITS;
    const int64_t h = p->h, hp = k->hp, kept = lgr_saved_block(chip, gates),
                  gate = k->groups_h * GROUP * LGR_UNITS * (int64_t)sizeof(hcode);
    for (int32_t i0 = 0; i0 < p->steps; i0 += (int32_t)k->per) {
        const int32_t i1 = p->steps - i0 < k->per ? p->steps : i0 + (int32_t)k->per;
        project(k, p, w, gates, io->x, &fx, i0, i1, r0, r1);
        const int32_t *a = k->projected;
        for (int32_t i = i0; i < i1; ++i) {
            const int32_t t = step_of(p, i);
            const int64_t act = active(p, t, r0, r1);
            if (act <= 0) continue;
            for (int64_t m = 0; m < act; m += LGR_TILE_ROWS) {
                const int64_t count = act - m < LGR_TILE_ROWS ? act - m : LGR_TILE_ROWS;
                for (int half = 0; half < halves; ++half)
                    for (int64_t u = 0; u < k->blocks; ++u) {
                        const char *wh = (const char *)w->w_hh + u * gates * gate;
                        const int32_t *sum = w->sum_hh + u * per_unit,
                                      *bias = w->b_hh + u * per_unit;
                        if (half == 0)
                            products(first, count, k->h + m * hp, hp, k->groups_h, wh, sum, bias,
                                     w->wide, &fh, k->sums, 64);
                        else
                            products(1, count, k->reset, hp, k->groups_h, wh + first * gate,
                                     sum + first * LGR_UNITS, bias + first * LGR_UNITS, w->wide,
                                     &fh, k->sums, 64);
                        for (int64_t r = 0; r < count; ++r)
                            for (int64_t e = 0; e < LGR_UNITS; e += LANES) {
                                const int64_t row = p->off[t] + (r0 + m + r) * p->row_stride,
                                              unit = u * LGR_UNITS + e;
                                char *four =
                                    io->saved ? io->saved + (row * k->blocks + u) * kept : NULL;
                                char *two = four ? four + planes.n32 * LGR_UNITS * 4 : NULL;
                                char *one = four ? two + planes.n16 * LGR_UNITS * 2 : NULL;
                                const place o = {.a = a + (m + r) * hp * gates + u * per_unit + e,
                                                 .b = k->sums + r * 64 + e,
                                                 .c = k->c + (m + r) * hp + unit,
                                                 .z = k->held + r * hp + unit,
                                                 .h = k->h + (m + r) * hp + unit,
                                                 .next = k->next + (m + r) * hp + unit,
                                                 .reset = k->reset + r * hp + unit,
                                                 .four = four ? four + 4 * e : NULL,
                                                 .two = four ? two + 2 * e : NULL,
                                                 .one = four ? one + e : NULL,
                                                 .y = io->y + row * h + unit,
                                                 .value =
                                                     io->value ? io->value + row * h + unit : NULL,
                                                 .left = h - unit};
                                cell(chip, half, of, &o);
                            }
                    }
            }
            a += act * hp * gates;
            walk_swap(k, act);
        }
    }
}
LGR_VEC void walk_end(const walk *k, const lgr_recurrent *p, int32_t r0, int8_t *hn, int32_t *cn)
{
    for (int64_t r = 0; r < k->rows; ++r)
        for (int64_t u = 0; u < p->h; ++u) {
            hn[(r0 + r) * p->h + u] = of_code(k->h[r * k->hp + u]);
            if (cn) cn[(r0 + r) * p->h + u] = k->c[r * k->hp + u];
        }
}
#endif
