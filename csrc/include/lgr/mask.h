/* mask.h - gradients through the saved bits and slopes. Source: docs/numerics.md, "Quantizing one tensor", "TQT". */
#ifndef LGR_MASK_H
#define LGR_MASK_H
#include "lgr/qmath.h"

/* ln 2 / 2^exp2 * sum: the last step of a threshold's gradient. */
LGR_INLINE float lgr_threshold_slope(double sum, int32_t exp2)
{
    return (float)(0.69314718055994530942 * sum * lgr_exp2_f64(-exp2));
}

#ifdef __cplusplus
extern "C" {
#endif

/**
 * out[i] = bit i % 8 of mask[i / 8] ? grad[i] : +0
 *
 * @param[in]  grad  [n] float32, any value (a masked NaN becomes 0).
 * @param[in]  mask  [(n + 7) / 8].
 * @param[out] out   [n]; may be grad itself, must not overlap it otherwise.
 * @return LGR_OK; LGR_E_RANGE for n; LGR_E_NULL.
 */
lgr_status lgr_mask_grad_f32(const float *grad, const uint8_t *mask, int64_t n, float *out);

/* The same for rows of `o` elements whose mask rows are padded to lgr_mask_row_bytes(o) bytes. */
lgr_status lgr_mask_grad_rows_f32(const float *grad, const uint8_t *mask, int64_t rows, int64_t o,
                                  float *out);

/**
 * *sum = sum of grad[i] * slope[i], products and sums in float64.
 *
 * Order: eight sums over i % 8, added as ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)): the same bits on every path. A caller
 * that splits a tensor does so at fixed places and adds the parts in order (lgr_threshold_grad).
 */
lgr_status lgr_slope_sum_f32(const float *grad, const float *slope, int64_t n, double *sum);

/* Gradient of the TQT threshold: ln 2 / 2^exp2 * (parts[0] + parts[1] + ...); 0 for LGR_EXP2_NAN. */
float lgr_threshold_grad(const double *parts, int64_t n_parts, int32_t exp2);

#ifdef __cplusplus
}
#endif
#endif
