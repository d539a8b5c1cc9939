/* softmax_isa.h - the three passes over a row; one signature for every twin. */
#ifndef LGR_SOFTMAX_ISA_H
#define LGR_SOFTMAX_ISA_H
#include "kernels/softmax/softmax_ref.h"

/* y = softmax of one row of n >= 1. */
typedef void lgr_softmax_fn(int chip, const int32_t *x, int64_t n, int32_t *y);
lgr_softmax_fn lgr_softmax_ref, lgr_softmax_avx2, lgr_softmax_avx512vnni;
typedef void lgr_log_softmax_fn(const int32_t *x, int64_t n, int32_t *y);
lgr_log_softmax_fn lgr_log_softmax_ref, lgr_log_softmax_avx2, lgr_log_softmax_avx512vnni;

#endif
