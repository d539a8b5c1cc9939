/* rescale_cuda.h - CUDA twins of rescale.h and cat.h; the rules of output_cuda.h. */
#ifndef LGR_RESCALE_CUDA_H
#define LGR_RESCALE_CUDA_H
#include "lgr/cat.h"
#include "lgr/rescale.h"

#ifdef __cplusplus
extern "C" {
#endif

/* p: the exponents are not read, x_scale and scale are: one float32 each. */
lgr_status lgr_rescale_cuda(const void *x, int64_t n, const struct lgr_rescale_params *p,
                            const float *x_scale, const float *scale,
                            const struct lgr_quantize_out *out, void *stream);

#define LGR_CAT_CUDA_SCRATCH 64 /* bytes, aligned to 8 */
/* One scratch for one concatenation: begin, each operand, end. */
lgr_status lgr_cat_begin_cuda(void *scratch, void *stream);
lgr_status lgr_cat_operand_cuda(const void *x, int32_t bytes, int64_t n, const float *x_scale,
                                void *scratch, void *stream);
/* scale_now, moves: one float32 each. */
lgr_status lgr_cat_end_cuda(const lgr_stats *state, const lgr_cat_params *p, float *scale_now,
                            float *moves, void *scratch, void *stream);

#ifdef __cplusplus
}
#endif
#endif
