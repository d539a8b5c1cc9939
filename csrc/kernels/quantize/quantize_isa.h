/* quantize_isa.h - one signature for every twin, and the constants they need. */
#ifndef LGR_QUANTIZE_ISA_H
#define LGR_QUANTIZE_ISA_H
#include "lgr/quantize.h"

struct lgr_quantize_consts {
    float mul, inv;     /* 2^exp2, 2^-exp2 */
    float lo, hi;       /* limits of the code */
    float pass_lo;      /* lowest r whose gradient passes */
    float cut;          /* r below it was cut by the ReLU: slope 0 */
    float clamp;        /* infinity: none */
    float slope_on;     /* 0: slope is 0 everywhere */
    int rounding, wide; /* wide: int32 codes */
    int stream;
};

typedef void lgr_quantize_fn(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                             const struct lgr_quantize_out *out, lgr_range *range);
lgr_quantize_fn lgr_quantize_f32_ref, lgr_quantize_f32_avx2;

typedef void lgr_dequantize_s8_fn(const int8_t *codes, int64_t n, float inv, float *value);
lgr_dequantize_s8_fn lgr_dequantize_s8_f32_ref, lgr_dequantize_s8_f32_avx2;
#endif
