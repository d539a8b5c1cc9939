/* observe_cuda.h - the scale of a state that feeds back, on the device; the rules of output_cuda.h. */
#ifndef LGR_OBSERVE_CUDA_H
#define LGR_OBSERVE_CUDA_H
#include "lgr/observe.h"

#ifdef __cplusplus
extern "C" {
#endif

/* *now = 2^e: lgr_stats_guess, or lgr_capped(bits - 1, cap) before any data. n_batches and n_skipped are not read. */
lgr_status lgr_hidden_scale_cuda(const lgr_stats *state, int32_t bits, int32_t cap, float *now,
                                 void *stream);
/* lgr_stats_step with the maximum at `peak`. */
lgr_status lgr_hidden_observe_cuda(const lgr_stats *state, int32_t bits, int32_t cap,
                                   const float *peak, void *stream);

#ifdef __cplusplus
}
#endif
#endif
