/* scale_bias_cuda.h - CUDA twin of scale_bias.h; the rules of output_cuda.h. */
#ifndef LGR_SCALE_BIAS_CUDA_H
#define LGR_SCALE_BIAS_CUDA_H
#include "lgr/scale_bias.h"

#ifdef __cplusplus
extern "C" {
#endif

lgr_status lgr_scale_bias_s8_s8_cuda(const int8_t *x, const int8_t *w, const int32_t *b,
                                     int64_t outer, int64_t c, int64_t inner, int32_t shift,
                                     int8_t *out, void *stream);

#ifdef __cplusplus
}
#endif
#endif
