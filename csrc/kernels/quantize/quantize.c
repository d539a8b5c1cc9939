/* quantize.c - checks, dispatch and the scalar references. */
#include "kernels/quantize/quantize_isa.h"
#include "lgr/cpu.h"

static void put(const struct lgr_quantize_out *out, int64_t i, struct lgr_quantized q, int wide)
{
    if (out->value) out->value[i] = q.value;
    if (out->codes && wide) ((int32_t *)out->codes)[i] = q.code;
    if (out->codes && !wide) ((int8_t *)out->codes)[i] = (int8_t)q.code;
    if (out->slope) out->slope[i] = q.slope;
    if (out->mask) {
        if ((i & 7) == 0) out->mask[i >> 3] = 0;
        out->mask[i >> 3] = (uint8_t)(out->mask[i >> 3] | (unsigned)q.pass << (i & 7));
    }
}

void lgr_quantize_f32_ref(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                          const struct lgr_quantize_out *out, lgr_range *range)
{
    for (int64_t i = 0; i < n; ++i) put(out, i, lgr_quantize_one_f32(x[i], c), c->wide);
    if (range) lgr_observe_f32(x, n, range);
}

static void quantize_f64(const float *x, int64_t n, const struct lgr_quantize_params *p,
                         const struct lgr_quantize_out *out)
{
    for (int64_t i = 0; i < n; ++i) put(out, i, lgr_quantize_one_f64(x[i], p), 1);
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
    const struct lgr_quantize_consts c = lgr_quantize_make_consts(p);
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
    for (int64_t i = 0; i < n; ++i) codes[i] = lgr_bias_code(bias[i], exp2);
    return LGR_OK;
}

int32_t lgr_bias_cap(float peak, int32_t exp2_x) { return lgr_bias_cap_one(peak, exp2_x); }

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
