/* fold_bn.c - checks and the only implementation: weights are small, and every channel is independent. */
#include "kernels/fold_bn/fold_bn_one.h"

static int bad(const struct lgr_fold_bn_params *p, int64_t from, int64_t to)
{
    if (p->groups < 0 || p->n_in < 0 || p->per_group < 0 || p->inner < 0 || !(p->eps >= 0.0))
        return 1;
    return from < 0 || to < from || to > p->groups * p->per_group;
}

lgr_status lgr_fold_bn_f32(const struct lgr_fold_bn_params *p, const struct lgr_fold_bn_in *in,
                           int64_t from, int64_t to, float *w_folded, float *b_folded,
                           double *abs_sum)
{
    if (p == NULL || in == NULL) return LGR_E_NULL;
    if (bad(p, from, to)) return LGR_E_RANGE;
    if (from == to) return LGR_OK;
    if (in->w == NULL || in->mean == NULL || in->var == NULL || w_folded == NULL ||
        b_folded == NULL)
        return LGR_E_NULL;
    for (int64_t o = from; o < to; ++o) {
        const double f = lgr_fold_factor(p, in, o);
        double sum = 0.0;
        for (int64_t i = 0; i < p->n_in; ++i) {
            const int64_t at = lgr_fold_row(p, o, i);
            for (int64_t k = at; k < at + p->inner; ++k) {
                w_folded[k] = lgr_fold_weight(in->w[k], f);
                sum += (double)fabsf(w_folded[k]);
            }
        }
        b_folded[o] = lgr_fold_bias(in, o, f);
        if (abs_sum) abs_sum[o] = sum;
    }
    return LGR_OK;
}

lgr_status lgr_fold_bn_backward_f32(const struct lgr_fold_bn_params *p,
                                    const struct lgr_fold_bn_in *in, int64_t from, int64_t to,
                                    const struct lgr_fold_bn_grad *g)
{
    if (p == NULL || in == NULL || g == NULL) return LGR_E_NULL;
    if (bad(p, from, to)) return LGR_E_RANGE;
    if (from == to) return LGR_OK;
    if (in->w == NULL || in->mean == NULL || in->var == NULL || g->gw == NULL || g->gb == NULL)
        return LGR_E_NULL;
    for (int64_t o = from; o < to; ++o) {
        lgr_fold_back b = lgr_fold_back_begin(p, in, g, o);
        for (int64_t i = 0; i < p->n_in; ++i) {
            const int64_t at = lgr_fold_row(p, o, i);
            for (int64_t k = at; k < at + p->inner; ++k) b.gf += lgr_fold_back_weight(&b, in, g, k);
        }
        lgr_fold_back_end(&b, g, o);
    }
    return LGR_OK;
}
