/* mask.c - checks, dispatch and the scalar references. */
#include "lgr/mask.h"
#include "kernels/mask/mask_isa.h"
#include "lgr/cpu.h"

#if LGR_HAVE_AVX2
#define PICK(f) (lgr_cpu_flags() & LGR_CPU_AVX2 ? f##_avx2 : f##_ref)
#else
#define PICK(f) f##_ref
#endif

void lgr_mask_grad_f32_ref(const float *grad, const uint8_t *mask, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; ++i) out[i] = mask[i >> 3] >> (i & 7) & 1 ? grad[i] : 0.0f;
}

lgr_status lgr_mask_grad_f32(const float *grad, const uint8_t *mask, int64_t n, float *out)
{
    if (n < 0) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (grad == NULL || mask == NULL || out == NULL) return LGR_E_NULL;
    PICK(lgr_mask_grad_f32)(grad, mask, n, out);
    return LGR_OK;
}

lgr_status lgr_mask_grad_rows_f32(const float *grad, const uint8_t *mask, int64_t rows, int64_t o,
                                  float *out)
{
    if (rows < 0 || o < 0) return LGR_E_RANGE;
    if (rows == 0 || o == 0) return LGR_OK;
    if (grad == NULL || mask == NULL || out == NULL) return LGR_E_NULL;
    lgr_mask_grad_fn *const run = PICK(lgr_mask_grad_f32);
    if (o % 16 == 0) { /* no padding */
        run(grad, mask, rows * o, out);
        return LGR_OK;
    }
    const int64_t bytes = lgr_mask_row_bytes(o);
    for (int64_t r = 0; r < rows; ++r) run(grad + r * o, mask + r * bytes, o, out + r * o);
    return LGR_OK;
}

void lgr_slope_sum_f32_ref(const float *grad, const float *slope, int64_t n, double lane[8])
{
    for (int64_t i = 0; i < n; ++i) lane[i & 7] += (double)grad[i] * (double)slope[i];
}

lgr_status lgr_slope_sum_f32(const float *grad, const float *slope, int64_t n, double *sum)
{
    if (n < 0) return LGR_E_RANGE;
    if (sum == NULL || (n > 0 && (grad == NULL || slope == NULL))) return LGR_E_NULL;
    double v[8] = {0};
    PICK(lgr_slope_sum_f32)(grad, slope, n, v);
    *sum = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    return LGR_OK;
}

float lgr_threshold_grad(const double *parts, int64_t n_parts, int32_t exp2)
{
    double sum = 0.0;
    if (exp2 == LGR_EXP2_NAN) return 0.0f;
    for (int64_t i = 0; i < n_parts; ++i) sum += parts[i];
    return lgr_threshold_slope(sum, exp2);
}
