/* fold_bn_cuda.h - CUDA twins of fold_bn.h, all channels; the rules of output_cuda.h. */
#ifndef LGR_FOLD_BN_CUDA_H
#define LGR_FOLD_BN_CUDA_H
#include "lgr/fold_bn.h"

#ifdef __cplusplus
extern "C" {
#endif

lgr_status lgr_fold_bn_f32_cuda(const struct lgr_fold_bn_params *p, const struct lgr_fold_bn_in *in,
                                float *w_folded, float *b_folded, double *abs_sum, void *stream);
/* The sums over a channel's weights in another order than the CPU's: gradients of gamma and var differ in the last places. */
lgr_status lgr_fold_bn_backward_f32_cuda(const struct lgr_fold_bn_params *p,
                                         const struct lgr_fold_bn_in *in,
                                         const struct lgr_fold_bn_grad *g, void *stream);

#ifdef __cplusplus
}
#endif
#endif
