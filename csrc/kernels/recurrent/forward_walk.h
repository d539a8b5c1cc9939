/* forward_walk.h - scratch memory and the projection of the input, in the names of lanes_*.h. */
#ifndef LGR_FORWARD_WALK_H
#define LGR_FORWARD_WALK_H

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
LGR_VEC void walk_end(const walk *k, const lgr_recurrent *p, int32_t r0, int8_t *hn, int32_t *cn)
{
    for (int64_t r = 0; r < k->rows; ++r)
        for (int64_t u = 0; u < p->h; ++u) {
            hn[(r0 + r) * p->h + u] = of_code(k->h[r * k->hp + u]);
            if (cn) cn[(r0 + r) * p->h + u] = k->c[r * k->hp + u];
        }
}
#endif
