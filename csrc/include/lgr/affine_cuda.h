/* affine_cuda.h - CUDA twins of affine.h; the rules of output_cuda.h. */
#ifndef LGR_AFFINE_CUDA_H
#define LGR_AFFINE_CUDA_H
#include "lgr/affine.h"
#include "lgr/output_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* q->scale_a: the scale of x; q->exp2: the exponent of w; q->number: the addend. */
lgr_status lgr_affine_cuda(const int8_t *x, int32_t w, const lgr_output_cuda *q, void *stream);
/* codes[i] = lgr_affine_bias of b[i] at the exponent of x_scale plus w_exp2; 0 for a NaN scale. */
lgr_status lgr_affine_bias_cuda(const float *b, int64_t n, const float *x_scale, int32_t w_exp2,
                                int32_t *codes, void *stream);

#ifdef __cplusplus
}
#endif
#endif
