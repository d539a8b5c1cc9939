/* quantize_isa.h - one signature for every twin. */
#ifndef LGR_QUANTIZE_ISA_H
#define LGR_QUANTIZE_ISA_H
#include "kernels/quantize/quantize_one.h"

typedef void lgr_quantize_fn(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                             const struct lgr_quantize_out *out, lgr_range *range);
lgr_quantize_fn lgr_quantize_f32_ref, lgr_quantize_f32_avx2;

typedef void lgr_dequantize_s8_fn(const int8_t *codes, int64_t n, float inv, float *value);
lgr_dequantize_s8_fn lgr_dequantize_s8_f32_ref, lgr_dequantize_s8_f32_avx2;
#endif
