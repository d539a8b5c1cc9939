/* clamp_cuda.h - CUDA twins of clamp.h; the rules of output_cuda.h. */
#ifndef LGR_CLAMP_CUDA_H
#define LGR_CLAMP_CUDA_H
#include "lgr/clamp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* limit_at: one float32 that stands for limit, or NULL; a NaN there cuts nothing. y may be x. */
lgr_status lgr_clamp_f32_cuda(const float *x, int64_t n, float limit, const float *limit_at,
                              float *y, uint8_t *mask, void *stream);
/* *limit = lgr_mean_limit of parts: those of |x| in blocks of 16384 elements, which are written first, or given where x is NULL. */
lgr_status lgr_mean_limit_cuda(const float *x, int64_t n, double factor, double *parts,
                               int64_t n_parts, float *limit, void *stream);

#ifdef __cplusplus
}
#endif
#endif
