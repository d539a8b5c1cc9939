/* clamp_one.h - the formulas of clamp.h, for C and CUDA. */
#ifndef LGR_CLAMP_ONE_H
#define LGR_CLAMP_ONE_H
#include "lgr/clamp.h"

LGR_INLINE float lgr_clamp_one(float v, float limit)
{
    return v < -limit ? -limit : v > limit ? limit : v;
}
LGR_INLINE int lgr_clamp_passes(float v, float limit) { return fabsf(v) <= limit; }
LGR_INLINE float lgr_mean_limit_one(const double *parts, int64_t n_parts, int64_t n, double factor)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n_parts; ++i) sum += parts[i];
    return n > 0 ? (float)(factor * (sum / (double)n)) : 0.0f;
}
#endif
