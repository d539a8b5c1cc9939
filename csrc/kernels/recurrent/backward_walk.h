/* backward_walk.h - one thread's share of a chunk of steps, in the names of grad_lanes_*.h. */
#ifndef LGR_BACKWARD_WALK_H
#define LGR_BACKWARD_WALK_H
#include "kernels/recurrent/backward_products.h"
#include "kernels/recurrent/unit_gradients.h"

LGR_VEC plan plan_of(const lgr_recurrent *p, const lgr_recurrent_chunk *c, int32_t r0)
{
    const int64_t hp = lgr_padded(p->h, LGR_UNITS), hn = lgr_padded(p->h, LGR_PANEL);
    return (plan){.h = p->h,
                  .hp = hp,
                  .hn = hn,
                  .blocks = hp / LGR_UNITS,
                  .cap = c->cap,
                  .plane = hp * c->cap,
                  .dg = c->dg,
                  .cols_r = c->cols_r,
                  .dh = c->dh + (r0 - c->first) * hn,
                  .dc = c->dc + (r0 - c->first) * hn,
                  .q_h = p->q_h,
                  .inv_h = lgr_exp2_scale(-p->q_h),
                  .to_code = lgr_exp2_scale(p->q_h)};
}
/* Gradients of states behind the last step; NULL: zero. */
LGR_VEC void states_begin(const plan *w, float *to, const float *given, int32_t r0, int32_t r1)
{
    for (int64_t r = r0; r < r1; ++r)
        for (int64_t u = 0; u < w->hn; u += FL)
            f_store(to + (r - r0) * w->hn + u,
                    given ? f_load_n(given + r * w->h + (u < w->h ? u : 0), w->h - u)
                          : f_set(0.0f));
}
LGR_VEC void states_end(const plan *w, const float *from, float *to, int32_t r0, int32_t r1)
{
    for (int64_t r = r0; r < r1; ++r)
        memcpy(to + r * w->h, from + (r - r0) * w->hn, (size_t)w->h * sizeof(float));
}

/* One step of entries [r0, r1). */
typedef struct moment {
    int32_t t, last,
        had; /* the step that its state came from, or -1, and how many entries had that */
    int64_t act; /* entries that have this step; <= 0: none */
} moment;
LGR_VEC moment moment_of(const lgr_recurrent *p, int32_t i, int32_t r0, int32_t r1)
{
    const int32_t t = p->reverse ? i : p->steps - 1 - i, last = p->reverse ? t + 1 : t - 1;
    const int is = last >= 0 && last < p->steps;
    return (moment){t, is ? last : -1, is ? p->n[last] : 0, (r1 < p->n[t] ? r1 : p->n[t]) - r0};
}
/* Row of the step that entry's state came from, or -1. */
LGR_VEC int64_t row_before(const lgr_recurrent *p, const moment *m, int64_t entry)
{
    return entry < m->had ? p->off[m->last] + entry * p->row_stride : -1;
}
/* Where the rows of entry r0 and those behind it begin in the chunk. */
LGR_VEC int64_t rows_begin(const lgr_recurrent *p, const lgr_recurrent_chunk *c, int32_t r0)
{
    int64_t rows = 0;
    for (int32_t i = c->from; i < c->to; ++i) {
        const moment m = moment_of(p, i, c->first, r0);
        rows += m.act > 0 ? m.act : 0;
    }
    return rows;
}
/* Row `row` of x becomes row k of the chunk; h: the codes that the step read, NULL: zeros. */
LGR_VEC void row_begin(const lgr_recurrent *p, const lgr_recurrent_chunk *c, const int8_t *x,
                       const int8_t *h, int64_t row, int64_t k)
{
    c->row_of[k] = row;
    column(h, p->h, k, c->cap, c->cols_h);
    column(x + row * p->d, p->d, k, c->cap, c->cols_x);
}
#endif
