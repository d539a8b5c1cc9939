/* mask_isa.h - one signature for every twin. */
#ifndef LGR_MASK_ISA_H
#define LGR_MASK_ISA_H
#include "lgr/mask.h"

typedef void lgr_mask_grad_fn(const float *grad, const uint8_t *mask, int64_t n, float *out);
lgr_mask_grad_fn lgr_mask_grad_f32_ref, lgr_mask_grad_f32_avx2;

/* Adds to lane[i % 8]; n may leave lanes short. */
typedef void lgr_slope_sum_fn(const float *grad, const float *slope, int64_t n, double lane[8]);
lgr_slope_sum_fn lgr_slope_sum_f32_ref, lgr_slope_sum_f32_avx2;
#endif
