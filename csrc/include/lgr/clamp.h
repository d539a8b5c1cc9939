/* clamp.h - symmetric clamp of float tensors with its gradient mask. Source: docs/numerics.md, "Constrained stage". */
#ifndef LGR_CLAMP_H
#define LGR_CLAMP_H
#include "lgr/qmath.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * y[i] = x[i] < -limit ? -limit : x[i] > limit ? limit : x[i];  mask bit i = |x[i]| <= limit
 *
 * @param[in]  x      [n] float32. NaN stays NaN, its mask bit is 0.
 * @param[in]  limit  >= 0, may be infinite.
 * @param[out] y      [n]; may be x itself.   @param[out] mask  [(n + 7) / 8] or NULL; spare bits 0.
 * @return LGR_OK; LGR_E_RANGE for n or limit (NaN too); LGR_E_NULL.
 */
lgr_status lgr_clamp_f32(const float *x, int64_t n, float limit, float *y, uint8_t *mask);

/* *sum = sum of |x[i]| in float64: eight sums over i % 8, added as lgr_slope_sum_f32 does; the same bits everywhere. */
lgr_status lgr_abs_sum_f32(const float *x, int64_t n, double *sum);

/* factor * mean|x| from the parts of an absolute sum, added in order; 0 for n == 0. */
float lgr_mean_limit(const double *parts, int64_t n_parts, int64_t n, double factor);

#ifdef __cplusplus
}
#endif
#endif
