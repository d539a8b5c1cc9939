/* rescale.c - an int8 operand has 256 values: from a few hundred elements on, every result comes from a table. */
#include "kernels/rescale/rescale_one.h"

static void store(const struct lgr_quantize_out *out, int bits, int64_t i,
                  const struct lgr_rescaled *e)
{
    if (out->value) out->value[i] = e->value;
    if (out->slope) out->slope[i] = e->slope;
    if (out->codes) lgr_put_code(out->codes, bits > 8, i, e->code);
    if (out->mask) {
        if ((i & 7) == 0) out->mask[i >> 3] = 0;
        out->mask[i >> 3] = (uint8_t)(out->mask[i >> 3] | e->pass << (i & 7));
    }
}

static void rescale_s8(const int8_t *x, int64_t n, const struct lgr_rescale_params *p,
                       const struct lgr_quantize_out *out)
{
    struct lgr_rescaled table[256]; /* by the code's bits as uint8 */
    for (int v = -128; v < 128; ++v) table[(uint8_t)v] = lgr_rescale_one(v, p);
    for (int64_t i = 0; i < n; ++i) store(out, p->bits, i, &table[(uint8_t)x[i]]);
}

static int bad_exp2(int32_t e) { return e < -LGR_EXP2_MAX || e > LGR_EXP2_MAX; }

lgr_status lgr_rescale(const void *x, int64_t n, const struct lgr_rescale_params *p,
                       const struct lgr_quantize_out *out)
{
    if (p == NULL || out == NULL) return LGR_E_NULL;
    if (n < 0 || p->bits < 2 || p->bits > 32 || (p->bytes != 1 && p->bytes != 4))
        return LGR_E_RANGE;
    if (p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL) return LGR_E_RANGE;
    if (p->exp2 == LGR_EXP2_NAN) { /* the same nothing as any other quantizer; x is not read */
        const struct lgr_quantize_params q = {
            .exp2 = p->exp2, .bits = p->bits, .rounding = p->rounding};
        return lgr_quantize_f32((const float *)x, n, &q, out, NULL);
    }
    if (bad_exp2(p->exp2) || bad_exp2(p->exp2_x)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL) return LGR_E_NULL;
    if (p->bytes == 1 && n >= 512) {
        rescale_s8(x, n, p, out);
        return LGR_OK;
    }
    for (int64_t i = 0; i < n; ++i) {
        const int64_t v = lgr_code_at(x, p->bytes, i);
        const struct lgr_rescaled e = lgr_rescale_one(v, p);
        store(out, p->bits, i, &e);
    }
    return LGR_OK;
}

int64_t lgr_peak_codes(const void *x, int32_t bytes, int64_t n)
{
    int32_t lo = 0, hi = 0;
    if (bytes == 1)
        for (int64_t i = 0; i < n; ++i) {
            const int32_t v = ((const int8_t *)x)[i];
            lo = v < lo ? v : lo;
            hi = v > hi ? v : hi;
        }
    else
        for (int64_t i = 0; i < n; ++i) {
            const int32_t v = ((const int32_t *)x)[i];
            lo = v < lo ? v : lo;
            hi = v > hi ? v : hi;
        }
    return -(int64_t)lo > hi ? -(int64_t)lo : hi;
}
