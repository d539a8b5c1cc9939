/* fold_bn.c - checks and the only implementation: weights are small, and every channel is independent. */
#include "lgr/fold_bn.h"

static int bad(const struct lgr_fold_bn_params *p, int64_t from, int64_t to)
{
    if (p->groups < 0 || p->n_in < 0 || p->per_group < 0 || p->inner < 0 || !(p->eps >= 0.0))
        return 1;
    return from < 0 || to < from || to > p->groups * p->per_group;
}

/* First weight of channel o for input i of its group. */
static int64_t row(const struct lgr_fold_bn_params *p, int64_t o, int64_t i)
{
    const int64_t group = o / p->per_group, j = o % p->per_group;
    return ((group * p->n_in + i) * p->per_group + j) * p->inner;
}

static int bit(const uint8_t *mask, int64_t i)
{
    return mask == NULL || (mask[i >> 3] >> (i & 7) & 1);
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
        const double gamma = in->gamma ? (double)in->gamma[o] : 1.0;
        const double f = gamma / sqrt((double)in->var[o] + p->eps);
        const double bias = in->bias ? (double)in->bias[o] : 0.0,
                     beta = in->beta ? (double)in->beta[o] : 0.0;
        double sum = 0.0;
        for (int64_t i = 0; i < p->n_in; ++i) {
            const int64_t at = row(p, o, i);
            for (int64_t k = at; k < at + p->inner; ++k) {
                w_folded[k] = (float)((double)in->w[k] * f);
                sum += (double)fabsf(w_folded[k]);
            }
        }
        b_folded[o] = (float)((bias - (double)in->mean[o]) * f + beta);
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
        const double gamma = in->gamma ? (double)in->gamma[o] : 1.0;
        const double inv = 1.0 / sqrt((double)in->var[o] + p->eps), f = gamma * inv;
        const double shifted = (in->bias ? (double)in->bias[o] : 0.0) - (double)in->mean[o];
        const double gb = bit(g->b_mask, o) ? (double)g->gb[o] : 0.0;
        double gf = gb * shifted; /* gradient of f */
        for (int64_t i = 0; i < p->n_in; ++i) {
            const int64_t at = row(p, o, i);
            for (int64_t k = at; k < at + p->inner; ++k) {
                const double gw = bit(g->w_mask, k) ? (double)g->gw[k] : 0.0;
                gf += gw * (double)in->w[k];
                if (g->w) g->w[k] = (float)(gw * f);
            }
        }
        if (g->bias) g->bias[o] = (float)(gb * f);
        if (g->gamma) g->gamma[o] = (float)(gf * inv);
        if (g->beta) g->beta[o] = (float)gb;
        if (g->mean) g->mean[o] = (float)(-gb * f);
        if (g->var) g->var[o] = (float)(-0.5 * gf * gamma * inv * inv * inv);
    }
    return LGR_OK;
}
