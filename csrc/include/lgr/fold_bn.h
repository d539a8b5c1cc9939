/* fold_bn.h - a batch normalisation folded into the weights before it. Source: docs/numerics.md, "Constrained stage". */
#ifndef LGR_FOLD_BN_H
#define LGR_FOLD_BN_H
#include "lgr/qmath.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Weights as [groups][n_in][per_group][inner]; channel o = group * per_group + j. Convolution and linear: n_in = 1 and
 * groups = 1; transposed convolution [I][O / g][...]: n_in = I / g, per_group = O / g. */
struct lgr_fold_bn_params {
    int64_t groups, n_in, per_group, inner;
    double eps;
};

/* Per channel, float32; bias, gamma and beta may be NULL (0, 1, 0). */
struct lgr_fold_bn_in {
    const float *w, *bias, *gamma, *beta, *mean, *var;
};

/**
 * f = gamma / sqrt(var + eps);  w_folded = w * f;  b_folded = (bias - mean) * f + beta
 *
 * @param[in]  from,to  Channels to do, 0 <= from <= to <= groups * per_group.
 * @param[out] w_folded As w.   @param[out] b_folded  [channels].
 * @param[out] abs_sum  [channels] sum of |w_folded| of a channel, in memory order, or NULL.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL.
 *
 * Evaluated in float64, each result rounded once to float32.
 */
lgr_status lgr_fold_bn_f32(const struct lgr_fold_bn_params *p, const struct lgr_fold_bn_in *in,
                           int64_t from, int64_t to, float *w_folded, float *b_folded,
                           double *abs_sum);

/* Gradients; any pointer may be NULL. Masks: flat bits of the clamps of w_folded and b_folded, NULL: all pass. */
struct lgr_fold_bn_grad {
    const float *gw, *gb;
    const uint8_t *w_mask, *b_mask;
    float *w, *bias, *gamma, *beta, *mean, *var;
};

/* The derivatives of lgr_fold_bn_f32 for channels [from, to); sums in float64 in memory order. */
lgr_status lgr_fold_bn_backward_f32(const struct lgr_fold_bn_params *p,
                                    const struct lgr_fold_bn_in *in, int64_t from, int64_t to,
                                    const struct lgr_fold_bn_grad *g);

#ifdef __cplusplus
}
#endif
#endif
