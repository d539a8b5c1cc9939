/* quantize.c - checks, dispatch and the scalar references. */
#include "kernels/quantize/quantize_isa.h"
#include "lgr/cpu.h"

static void put_mask(uint8_t *mask, int64_t i, int bit)
{
    if ((i & 7) == 0) mask[i >> 3] = 0;
    mask[i >> 3] = (uint8_t)(mask[i >> 3] | (unsigned)bit << (i & 7));
}

void lgr_quantize_f32_ref(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                          const struct lgr_quantize_out *out, lgr_range *range)
{
    for (int64_t i = 0; i < n; ++i) {
        const float raw = x[i], v = (raw < -c->clamp  ? -c->clamp
                                     : raw > c->clamp ? c->clamp
                                                      : raw) *
                                    c->mul;
        const float r = lgr_round_f32(v, c->rounding);
        const float q = r != r ? 0.0f : r < c->lo ? c->lo : r > c->hi ? c->hi : r;
        const int32_t code = (int32_t)q;
        const int uncut = fabsf(raw) <= c->clamp; /* false for NaN */
        if (out->value) out->value[i] = (float)code * c->inv;
        if (out->codes && c->wide) ((int32_t *)out->codes)[i] = code;
        if (out->codes && !c->wide) ((int8_t *)out->codes)[i] = (int8_t)code;
        if (out->mask) put_mask(out->mask, i, uncut && r >= c->pass_lo && r <= c->hi);
        if (out->slope) {
            const float s = r >= c->lo && r <= c->hi ? (float)code - v : (float)code;
            out->slope[i] = uncut && r >= c->cut && c->slope_on != 0.0f ? s : 0.0f;
        }
    }
    if (range) lgr_observe_f32(x, n, range);
}

/* More than 16 bits: the same in float64. */
static void quantize_f64(const float *x, int64_t n, const struct lgr_quantize_params *p,
                         const struct lgr_quantize_out *out)
{
    const double mul = lgr_exp2_f64(p->exp2), inv = lgr_exp2_f64(-p->exp2);
    const double lo = p->relu ? 0.0 : (double)lgr_code_lo(p->bits),
                 hi = (double)lgr_code_hi(p->bits);
    const double limit = p->clamp > 0.0f ? (double)p->clamp : INFINITY;
    for (int64_t i = 0; i < n; ++i) {
        const double raw = (double)x[i], v = (raw < -limit  ? -limit
                                              : raw > limit ? limit
                                                            : raw) *
                                             mul;
        const double r = lgr_round_f64(v, p->rounding);
        const double q = r != r ? 0.0 : r < lo ? lo : r > hi ? hi : r;
        const int32_t code = (int32_t)q;
        const int uncut = fabs(raw) <= limit, on = !p->relu || r >= 1.0;
        if (out->value) out->value[i] = (float)((double)code * inv);
        if (out->codes) ((int32_t *)out->codes)[i] = code;
        if (out->mask) put_mask(out->mask, i, uncut && on && r >= lo && r <= hi);
        if (out->slope) {
            const double s = r >= lo && r <= hi ? (double)code - v : (double)code;
            out->slope[i] = uncut && on && !p->no_slope ? (float)s : 0.0f;
        }
    }
}

static void fill_nan(int64_t n, int32_t bits, const struct lgr_quantize_out *out)
{
    const size_t count = (size_t)n;
    if (out->codes) memset(out->codes, 0, bits <= 8 ? count : 4 * count);
    if (out->mask) memset(out->mask, 0, (size_t)lgr_mask_bytes(n));
    if (out->slope) memset(out->slope, 0, 4 * count);
    for (int64_t i = 0; out->value && i < n; ++i) out->value[i] = lgr_exp2_scale(LGR_EXP2_NAN);
}

static int bad_exp2(int32_t e, int32_t limit) { return e < -limit || e > limit; }

lgr_status lgr_quantize_f32(const float *x, int64_t n, const struct lgr_quantize_params *p,
                            const struct lgr_quantize_out *out, lgr_range *range)
{
    if (p == NULL || out == NULL) return LGR_E_NULL;
    if (n < 0 || p->bits < 2 || p->bits > 32 || p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL)
        return LGR_E_RANGE;
    if (p->exp2 != LGR_EXP2_NAN && bad_exp2(p->exp2, LGR_EXP2_MAX)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL) return LGR_E_NULL;
    if (p->exp2 == LGR_EXP2_NAN || p->bits > 16) {
        if (p->exp2 == LGR_EXP2_NAN) fill_nan(n, p->bits, out);
        else quantize_f64(x, n, p, out);
        return range ? lgr_observe_f32(x, n, range) : LGR_OK;
    }
    const float lo = p->relu ? 0.0f : (float)lgr_code_lo(p->bits);
    const struct lgr_quantize_consts c = {
        .mul = lgr_exp2_scale(p->exp2),
        .inv = lgr_exp2_scale(-p->exp2),
        .lo = lo,
        .hi = (float)lgr_code_hi(p->bits),
        .pass_lo = p->relu ? 1.0f : lo,
        .cut = p->relu ? 1.0f : -INFINITY,
        .clamp = p->clamp > 0.0f ? p->clamp : INFINITY,
        .slope_on = p->no_slope ? 0.0f : 1.0f,
        .rounding = p->rounding,
        .wide = p->bits > 8,
        .stream = p->stream,
    };
    lgr_quantize_fn *run = lgr_quantize_f32_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_quantize_f32_avx2;
#endif
    run(x, n, &c, out, range);
    return LGR_OK;
}

lgr_status lgr_quantize_bias_f32_s32(const float *bias, int64_t n, int32_t exp2, int32_t *codes)
{
    if (n < 0 || (exp2 != LGR_EXP2_NAN && bad_exp2(exp2, 2 * LGR_EXP2_MAX))) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (bias == NULL || codes == NULL) return LGR_E_NULL;
    if (exp2 == LGR_EXP2_NAN) {
        memset(codes, 0, (size_t)n * sizeof *codes);
        return LGR_OK;
    }
    const double mul = lgr_exp2_f64(exp2);
    for (int64_t i = 0; i < n; ++i) {
        const double r = rint((double)bias[i] * mul);
        codes[i] = r != r ? 0 : r < INT32_MIN ? INT32_MIN : r > INT32_MAX ? INT32_MAX : (int32_t)r;
    }
    return LGR_OK;
}

int32_t lgr_bias_cap(float peak, int32_t exp2_x)
{
    if (!(peak > 0.0f && peak < INFINITY) || exp2_x == LGR_EXP2_NAN) return LGR_EXP2_MAX;
    int above; /* peak < 2^above, the least such power */
    (void)frexpf(peak, &above);
    const int32_t cap = 31 - above - exp2_x;
    return cap > LGR_EXP2_MAX ? LGR_EXP2_MAX : cap;
}

void lgr_dequantize_s8_f32_ref(const int8_t *codes, int64_t n, float inv, float *value)
{
    for (int64_t i = 0; i < n; ++i) value[i] = (float)codes[i] * inv;
}

lgr_status lgr_dequantize_s8_f32(const int8_t *codes, int64_t n, int32_t exp2, float *value)
{
    if (n < 0 || (exp2 != LGR_EXP2_NAN && bad_exp2(exp2, LGR_EXP2_MAX))) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (codes == NULL || value == NULL) return LGR_E_NULL;
    lgr_dequantize_s8_fn *run = lgr_dequantize_s8_f32_ref;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) run = lgr_dequantize_s8_f32_avx2;
#endif
    run(codes, n, lgr_exp2_scale(exp2 == LGR_EXP2_NAN ? exp2 : -exp2), value);
    return LGR_OK;
}

lgr_status lgr_dequantize_s32_f32(const int32_t *codes, int64_t n, int32_t exp2, float *value)
{
    if (n < 0 || (exp2 != LGR_EXP2_NAN && bad_exp2(exp2, LGR_EXP2_MAX))) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (codes == NULL || value == NULL) return LGR_E_NULL;
    const float inv = lgr_exp2_scale(exp2 == LGR_EXP2_NAN ? exp2 : -exp2);
    for (int64_t i = 0; i < n; ++i) value[i] = (float)codes[i] * inv;
    return LGR_OK;
}
