/* observe_isa.h - one signature for every twin of observe. */
#ifndef LGR_OBSERVE_ISA_H
#define LGR_OBSERVE_ISA_H
#include "lgr/observe.h"

typedef void lgr_observe_fn(const float *x, int64_t n, lgr_range *range);
lgr_observe_fn lgr_observe_f32_ref, lgr_observe_f32_avx2;
#endif
