/* avg_pool_cuda.h - CUDA twin of avg_pool.h; the rules of output_cuda.h. */
#ifndef LGR_AVG_POOL_CUDA_H
#define LGR_AVG_POOL_CUDA_H
#include "lgr/avg_pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All images of p. p->exp2 is not read where scale, one float32, is given; value may be NULL. */
lgr_status lgr_avg_pool_cuda(const void *x, const struct lgr_avg_pool_params *p, const float *scale,
                             void *codes, float *value, void *stream);

#ifdef __cplusplus
}
#endif
#endif
