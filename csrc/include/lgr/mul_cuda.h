/* mul_cuda.h - CUDA twin of mul.h; the rules of output_cuda.h. */
#ifndef LGR_MUL_CUDA_H
#define LGR_MUL_CUDA_H
#include "lgr/output_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x * y of q->o codes of `bytes` bytes: one row of results. */
lgr_status lgr_mul_cuda(const void *x, const void *y, int32_t bytes, const lgr_output_cuda *q,
                        void *stream);

#ifdef __cplusplus
}
#endif
#endif
