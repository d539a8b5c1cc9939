/* quantize_one.h - the formula of one element, shared by the C reference and the CUDA kernel. */
#ifndef LGR_QUANTIZE_ONE_H
#define LGR_QUANTIZE_ONE_H
#include "lgr/quantize.h"

struct lgr_quantize_consts {
    float mul, inv; /* 2^exp2, 2^-exp2 */
    float lo, hi;   /* limits of the code */
    float pass_lo;  /* lowest r whose gradient passes */
    float cut;      /* r below it was cut by the ReLU: slope 0 */
    float clamp;    /* infinity: none */
    int32_t rounding, slope_on;
    int32_t wide;   /* int32 codes */
    int32_t stream;
};

struct lgr_quantized {
    int32_t code;
    int32_t pass;
    float value, slope;
};

/* p->exp2 is a number, p->bits at most 16. */
LGR_INLINE struct lgr_quantize_consts lgr_quantize_make_consts(const struct lgr_quantize_params *p)
{
    struct lgr_quantize_consts c;
    c.mul = lgr_exp2_scale(p->exp2);
    c.inv = lgr_exp2_scale(-p->exp2);
    c.lo = p->relu ? 0.0f : (float)lgr_code_lo(p->bits);
    c.hi = (float)lgr_code_hi(p->bits);
    c.pass_lo = p->relu ? 1.0f : c.lo;
    c.cut = p->relu ? 1.0f : -INFINITY;
    c.clamp = p->clamp > 0.0f ? p->clamp : INFINITY;
    c.rounding = p->rounding;
    c.slope_on = !p->no_slope;
    c.wide = p->bits > 8;
    c.stream = p->stream;
    return c;
}

LGR_INLINE struct lgr_quantized lgr_quantize_one_f32(float raw, const struct lgr_quantize_consts *c)
{
    struct lgr_quantized out;
    const float held = raw < -c->clamp ? -c->clamp : raw > c->clamp ? c->clamp : raw;
    const float v = held * c->mul, r = lgr_round_f32(v, c->rounding);
    const float q = r != r ? 0.0f : r < c->lo ? c->lo : r > c->hi ? c->hi : r;
    const int uncut = fabsf(raw) <= c->clamp; /* false for NaN */
    out.code = (int32_t)q;
    out.value = (float)out.code * c->inv; /* +0 where q is -0 */
    out.pass = uncut && r >= c->pass_lo && r <= c->hi;
    const float s = r >= c->lo && r <= c->hi ? (float)out.code - v : (float)out.code;
    out.slope = uncut && r >= c->cut && c->slope_on ? s : 0.0f;
    return out;
}

/* More than 16 bits: the same in float64. */
LGR_INLINE struct lgr_quantized lgr_quantize_one_f64(float x, const struct lgr_quantize_params *p)
{
    struct lgr_quantized out;
    const double lo = p->relu ? 0.0 : (double)lgr_code_lo(p->bits),
                 hi = (double)lgr_code_hi(p->bits);
    const double limit = p->clamp > 0.0f ? (double)p->clamp : (double)INFINITY, raw = (double)x;
    const double held = raw < -limit ? -limit : raw > limit ? limit : raw;
    const double v = held * lgr_exp2_f64(p->exp2), r = lgr_round_f64(v, p->rounding);
    const double q = r != r ? 0.0 : r < lo ? lo : r > hi ? hi : r;
    const int uncut = fabs(raw) <= limit, on = !p->relu || r >= 1.0;
    out.code = (int32_t)q;
    out.value = (float)((double)out.code * lgr_exp2_f64(-p->exp2));
    out.pass = uncut && on && r >= lo && r <= hi;
    const double s = r >= lo && r <= hi ? (double)out.code - v : (double)out.code;
    out.slope = uncut && on && !p->no_slope ? (float)s : 0.0f;
    return out;
}

/* The rules of lgr_quantize_bias_f32_s32 and lgr_bias_cap. */
LGR_INLINE int32_t lgr_bias_code(float bias, int32_t exp2)
{
    if (exp2 == LGR_EXP2_NAN) return 0;
    const double r = rint((double)bias * lgr_exp2_f64(exp2));
    return r != r ? 0 : r < INT32_MIN ? INT32_MIN : r > INT32_MAX ? INT32_MAX : (int32_t)r;
}
LGR_INLINE int32_t lgr_bias_cap_one(float peak, int32_t exp2_x)
{
    if (!(peak > 0.0f && peak < INFINITY) || exp2_x == LGR_EXP2_NAN) return LGR_EXP2_MAX;
    int above; /* peak < 2^above, the least such power */
    (void)frexpf(peak, &above);
    const int32_t cap = 31 - above - exp2_x;
    return cap > LGR_EXP2_MAX ? LGR_EXP2_MAX : cap;
}

/* An exponent that is NaN. */
LGR_INLINE struct lgr_quantized lgr_quantize_nothing(void)
{
    struct lgr_quantized out;
    out.code = out.pass = 0;
    out.slope = 0.0f;
    out.value = lgr_exp2_scale(LGR_EXP2_NAN);
    return out;
}
#endif
