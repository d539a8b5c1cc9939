/* clamp_isa.h - one signature for every twin. */
#ifndef LGR_CLAMP_ISA_H
#define LGR_CLAMP_ISA_H
#include "lgr/clamp.h"

typedef void lgr_clamp_fn(const float *x, int64_t n, float limit, float *y, uint8_t *mask);
lgr_clamp_fn lgr_clamp_f32_ref, lgr_clamp_f32_avx2;

/* Adds to lane[i % 8]. */
typedef void lgr_abs_sum_fn(const float *x, int64_t n, double lane[8]);
lgr_abs_sum_fn lgr_abs_sum_f32_ref, lgr_abs_sum_f32_avx2;
#endif
