/* softmax_cuda.h - CUDA twins of softmax.h; the rules of output_cuda.h. */
#ifndef LGR_SOFTMAX_CUDA_H
#define LGR_SOFTMAX_CUDA_H
#include "lgr/output_cuda.h"
#include "lgr/softmax.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of q->o codes. x_scale: one float32; NULL: their exponent is exp2. */
lgr_status lgr_softmax_codes_cuda(int chip, int log, const void *x, int32_t bytes,
                                  const float *x_scale, int32_t exp2, int64_t rows,
                                  const lgr_output_cuda *q, void *stream);
/* lgr_softmax, or log: lgr_log_softmax. */
lgr_status lgr_softmax_cuda(int chip, int log, const int32_t *x, int64_t rows, int64_t n,
                            int32_t *y, void *stream);
/* lgr_softmax_grad, or log: lgr_log_softmax_grad; sums in another order than the CPU's. */
lgr_status lgr_softmax_grad_cuda(int log, const float *g, const void *codes, int32_t bytes,
                                 const float *scale, int64_t rows, int64_t n, float *dx,
                                 void *stream);

#ifdef __cplusplus
}
#endif
#endif
