/* relu_cuda.h - CUDA twin of relu.h; the rules of output_cuda.h. */
#ifndef LGR_RELU_CUDA_H
#define LGR_RELU_CUDA_H
#include "lgr/relu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* p: exp2 is not read, scale is: one float32. */
lgr_status lgr_relu_cuda(const void *x, int64_t n, const struct lgr_relu_params *p,
                         const float *scale, void *codes, float *value, uint8_t *mask,
                         void *stream);

#ifdef __cplusplus
}
#endif
#endif
