/* div_cuda.h - CUDA twins of div.h; the rules of output_cuda.h. */
#ifndef LGR_DIV_CUDA_H
#define LGR_DIV_CUDA_H
#include "lgr/div.h"

#ifdef __cplusplus
extern "C" {
#endif

lgr_status lgr_div_s32_cuda(const int32_t *x, const int32_t *y, int64_t n, int32_t shift,
                            int32_t *quotient, void *stream);
/* The shift from the exponents of three scales, exp2(out) - exp2(x) + exp2(y), and the real quotients. Where a scale is NaN, or the
 * shift none of 0..62 (the CPU's adapters raise an error), codes are 0 and values NaN. */
lgr_status lgr_div_scales_cuda(const int32_t *x, const int32_t *y, int64_t n, const float *x_scale,
                               const float *y_scale, const float *out_scale, int32_t *quotient,
                               float *value, void *stream);

#ifdef __cplusplus
}
#endif
#endif
