/* add_one.h - constants of one call and the formula of one element, for C and CUDA. */
#ifndef LGR_ADD_ONE_H
#define LGR_ADD_ONE_H
#include "lgr/add.h"

struct lgr_add_consts {
    int32_t shift_x, shift_y;
    int64_t sat_lo, sat_hi; /* of a rounded operand, and the range in which the slope is code - v */
    int64_t lo, hi, pass_lo; /* of the sum; lowest sum whose gradient passes */
    int64_t keep_lo, keep_hi; /* outside, clamp or ReLU cut: slope 0 */
    float inv_x, inv_y, mul, inv; /* inv_y has the sign */
    int32_t up_x, up_y; /* the exact sum is (x * 2^up_x + sign * y * 2^up_y) * unit */
    float unit;
    int sign; /* of y: 1 or -1 */
    int rounding, slope_on, stream;
};

LGR_INLINE struct lgr_add_consts lgr_add_make_consts(const struct lgr_add_params *p)
{
    const int64_t far = (int64_t)1 << 40; /* beyond every sum of two codes */
    const int64_t sat_lo = lgr_code_lo(p->bits), sat_hi = lgr_code_hi(p->bits);
    int64_t limit = far;
    if (p->clamp > 0.0f && (double)p->clamp < lgr_exp2_f64(40 - p->exp2))
        limit = (int64_t)floor((double)p->clamp * lgr_exp2_f64(p->exp2));
    const int64_t lo = p->relu ? 0 : sat_lo, pass_lo = p->relu ? 1 : sat_lo,
                  cut = p->relu ? 1 : -far;
    const int32_t finest = p->exp2_x > p->exp2_y ? p->exp2_x : p->exp2_y;
    struct lgr_add_consts c;
    c.shift_x = p->exp2_x - p->exp2;
    c.shift_y = p->exp2_y - p->exp2;
    c.sat_lo = sat_lo;
    c.sat_hi = sat_hi;
    c.lo = lo > -limit ? lo : -limit;
    c.hi = sat_hi < limit ? sat_hi : limit;
    c.pass_lo = pass_lo > -limit ? pass_lo : -limit;
    c.keep_lo = cut > -limit ? cut : -limit;
    c.keep_hi = limit;
    c.inv_x = lgr_exp2_scale(-p->exp2_x);
    c.inv_y = p->minus ? -lgr_exp2_scale(-p->exp2_y) : lgr_exp2_scale(-p->exp2_y);
    c.sign = p->minus ? -1 : 1;
    c.mul = lgr_exp2_scale(p->exp2);
    c.inv = lgr_exp2_scale(-p->exp2);
    c.up_x = finest - p->exp2_x;
    c.up_y = finest - p->exp2_y;
    c.unit = lgr_exp2_scale(-finest);
    c.rounding = p->rounding;
    c.slope_on = !p->no_slope;
    c.stream = p->stream;
    return c;
}

/* The sum in real units, rounded once. */
LGR_INLINE float lgr_add_exact(int64_t x, int64_t y, const struct lgr_add_consts *c)
{
    return (float)((double)x * (double)c->inv_x + (double)y * (double)c->inv_y);
}
/* The sum of the rounded operands; lgr_add_code, lgr_add_passes and lgr_add_slope follow from it. */
LGR_INLINE int64_t lgr_add_sum(int64_t x, int64_t y, const struct lgr_add_consts *c)
{
    const int64_t a = lgr_shift_mode_s64(x, c->shift_x, c->rounding);
    const int64_t b = lgr_shift_mode_s64(y, c->shift_y, c->rounding);
    return lgr_clamp_s64(a, c->sat_lo, c->sat_hi) +
           c->sign * lgr_clamp_s64(b, c->sat_lo, c->sat_hi);
}
LGR_INLINE int64_t lgr_add_code(int64_t t, const struct lgr_add_consts *c)
{
    return lgr_clamp_s64(t, c->lo, c->hi);
}
LGR_INLINE int lgr_add_passes(int64_t t, const struct lgr_add_consts *c)
{
    return t >= c->pass_lo && t <= c->hi;
}
LGR_INLINE float lgr_add_slope(int64_t t, float exact, const struct lgr_add_consts *c)
{
    const int keep = c->slope_on && t >= c->keep_lo && t <= c->keep_hi;
    const int inside = t >= c->sat_lo && t <= c->sat_hi;
    const float code = (float)lgr_add_code(t, c);
    return !keep ? 0.0f : inside ? code - exact * c->mul : code;
}
#endif
