/* quantize.h - float32 to codes, and back. Source: docs/numerics.md, "Quantizing one tensor". */
#ifndef LGR_QUANTIZE_H
#define LGR_QUANTIZE_H
#include "lgr/observe.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lgr_quantize_params {
    int32_t exp2;     /* log2 of the scale, |exp2| <= 126, or LGR_EXP2_NAN */
    int32_t bits;     /* 2..32; arithmetic in float32 up to 16, in float64 above */
    int32_t rounding; /* enum lgr_rounding */
    int32_t relu;     /* lowest code 0; gradients pass where code > 0 */
    int32_t no_slope; /* the slope is 0 everywhere: the exponent did not follow the threshold */
    int32_t stream;   /* write values and codes around the cache */
    float clamp;      /* x is first clamped to +-clamp; <= 0: not */
};

/* Results; any pointer may be NULL. */
struct lgr_quantize_out {
    float *value;  /* [n] codes / 2^exp2 */
    void *codes;   /* [n] int8 for bits <= 8, int32 above */
    uint8_t *
        mask; /* [(n + 7) / 8] bit i % 8 of byte i / 8: the gradient of element i passes; spare bits 0 */
    float *slope; /* [n] d value / d threshold * scale / ln 2 */
};

/* The same results from element `at` on, a multiple of 8. */
LGR_INLINE struct lgr_quantize_out lgr_quantize_out_at(struct lgr_quantize_out out, int64_t at,
                                                       int32_t bits)
{
    if (out.value) out.value += at;
    if (out.codes) out.codes = (char *)out.codes + at * (bits <= 8 ? 1 : 4);
    if (out.mask) out.mask += at / 8;
    if (out.slope) out.slope += at;
    return out;
}

/**
 * v = clamp(x, +-clamp) * 2^exp2;  r = round(v);  code = clamp(r, lo, hi);  value = code / 2^exp2
 * mask  = |x| <= clamp and (relu ? 1 : lo) <= r <= hi
 * slope = 0 where the clamp or the ReLU cut, code - v where lo <= r <= hi, else code (the limit)
 *
 * @param[in]  x      [n] float32, any value, any alignment. NaN: code 0, mask 0, slope 0.
 * @param[in]  n      >= 0; zero is a no-op.
 * @param[out] out    Must not overlap x.
 * @param[in,out] range  When not NULL, the range of x (not clamped) is merged into it.
 * @return LGR_OK; LGR_E_RANGE for n or a parameter; LGR_E_NULL.
 *
 * exp2 == LGR_EXP2_NAN: value NaN, codes 0, mask 0, slope 0 for every element.
 * lo, hi: two's complement limits of `bits`, lo = 0 with relu. Bit-exact on every path and on CUDA.
 */
lgr_status lgr_quantize_f32(const float *x, int64_t n, const struct lgr_quantize_params *p,
                            const struct lgr_quantize_out *out, lgr_range *range);

/* codes[i] = sat_32(rint(bias[i] * 2^exp2)) in float64, |exp2| <= 252; NaN and LGR_EXP2_NAN give 0. */
lgr_status lgr_quantize_bias_f32_s32(const float *bias, int64_t n, int32_t exp2, int32_t *codes);

/* Largest weight exponent for which max|bias| * 2^(exp2_x + e) < 2^31. peak: max|bias|; 0, Inf, NaN: no limit. */
int32_t lgr_bias_cap(float peak, int32_t exp2_x);

/* value[i] = codes[i] / 2^exp2; NaN for LGR_EXP2_NAN. The int32 form rounds codes above 24 bits once. */
lgr_status lgr_dequantize_s8_f32(const int8_t *codes, int64_t n, int32_t exp2, float *value);
lgr_status lgr_dequantize_s32_f32(const int32_t *codes, int64_t n, int32_t exp2, float *value);

#ifdef __cplusplus
}
#endif
#endif
