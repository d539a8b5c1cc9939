/* avg_pool_one.h - the part of one window that lies inside, for C and CUDA. */
#ifndef LGR_AVG_POOL_ONE_H
#define LGR_AVG_POOL_ONE_H
#include "lgr/avg_pool.h"

LGR_INLINE int lgr_avg_pool_valid(const struct lgr_avg_pool_params *p)
{
    if (p->n < 0 || p->h < 0 || p->w < 0 || p->c < 0 || p->oh < 0 || p->ow < 0) return 0;
    if (p->kh < 1 || p->kw < 1 || p->sh < 1 || p->sw < 1 || p->pad_top < 0 || p->pad_left < 0)
        return 0;
    if ((int64_t)p->kh * p->kw > LGR_DIVISOR_MAX || (p->bytes != 1 && p->bytes != 4)) return 0;
    return p->exp2 == LGR_EXP2_NAN || (p->exp2 >= -LGR_EXP2_MAX && p->exp2 <= LGR_EXP2_MAX);
}

/* How the window's sum is divided. */
LGR_INLINE lgr_divider lgr_pool_divider(const struct lgr_avg_pool_params *p)
{
    const int64_t d = (int64_t)p->kh * p->kw;
    return p->coarse ? lgr_make_coarse_divider(d) : lgr_make_divider(d);
}

typedef struct lgr_pool_part {
    int64_t y, x, rows, cols; /* rows == 0: all of it is padding */
} lgr_pool_part;
LGR_INLINE lgr_pool_part lgr_pool_window(const struct lgr_avg_pool_params *p, int64_t pixel)
{
    const int64_t top = pixel / p->ow * p->sh - p->pad_top,
                  left = pixel % p->ow * p->sw - p->pad_left;
    const int64_t y0 = top > 0 ? top : 0, x0 = left > 0 ? left : 0;
    const int64_t y1 = top + p->kh < p->h ? top + p->kh : p->h,
                  x1 = left + p->kw < p->w ? left + p->kw : p->w;
    lgr_pool_part w;
    w.y = y0;
    w.x = x0;
    w.cols = x1 > x0 ? x1 - x0 : 0;
    w.rows = w.cols && y1 > y0 ? y1 - y0 : 0;
    return w;
}
#endif
