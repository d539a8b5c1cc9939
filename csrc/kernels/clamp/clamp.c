/* clamp.c - checks, dispatch and the scalar references. */
#include "lgr/clamp.h"
#include "kernels/clamp/clamp_isa.h"
#include "kernels/clamp/clamp_one.h"
#include "lgr/cpu.h"

#if LGR_HAVE_AVX2
#define PICK(f) (lgr_cpu_flags() & LGR_CPU_AVX2 ? f##_avx2 : f##_ref)
#else
#define PICK(f) f##_ref
#endif

void lgr_clamp_f32_ref(const float *x, int64_t n, float limit, float *y, uint8_t *mask)
{
    for (int64_t i = 0; i < n; ++i) {
        const float v = x[i];
        if (mask) {
            if ((i & 7) == 0) mask[i >> 3] = 0;
            mask[i >> 3] =
                (uint8_t)(mask[i >> 3] | (unsigned)lgr_clamp_passes(v, limit) << (i & 7));
        }
        y[i] = lgr_clamp_one(v, limit);
    }
}

lgr_status lgr_clamp_f32(const float *x, int64_t n, float limit, float *y, uint8_t *mask)
{
    if (n < 0 || !(limit >= 0.0f)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || y == NULL) return LGR_E_NULL;
    PICK(lgr_clamp_f32)(x, n, limit, y, mask);
    return LGR_OK;
}

void lgr_abs_sum_f32_ref(const float *x, int64_t n, double lane[8])
{
    for (int64_t i = 0; i < n; ++i) lane[i & 7] += (double)fabsf(x[i]);
}

lgr_status lgr_abs_sum_f32(const float *x, int64_t n, double *sum)
{
    if (n < 0) return LGR_E_RANGE;
    if (sum == NULL || (n > 0 && x == NULL)) return LGR_E_NULL;
    double v[8] = {0};
    PICK(lgr_abs_sum_f32)(x, n, v);
    *sum = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    return LGR_OK;
}

float lgr_mean_limit(const double *parts, int64_t n_parts, int64_t n, double factor)
{
    return lgr_mean_limit_one(parts, n_parts, n, factor);
}
