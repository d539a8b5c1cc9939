/* fold_bn_one.h - the factors of one channel, for C and CUDA. */
#ifndef LGR_FOLD_BN_ONE_H
#define LGR_FOLD_BN_ONE_H
#include "lgr/fold_bn.h"

/* First weight of channel o for input i of its group. */
LGR_INLINE int64_t lgr_fold_row(const struct lgr_fold_bn_params *p, int64_t o, int64_t i)
{
    const int64_t group = o / p->per_group, j = o % p->per_group;
    return ((group * p->n_in + i) * p->per_group + j) * p->inner;
}
LGR_INLINE int lgr_fold_bit(const uint8_t *mask, int64_t i)
{
    return mask == NULL || (mask[i >> 3] >> (i & 7) & 1);
}
LGR_INLINE double lgr_fold_at(const float *v, int64_t o, double otherwise)
{
    return v ? (double)v[o] : otherwise;
}
LGR_INLINE double lgr_fold_factor(const struct lgr_fold_bn_params *p,
                                  const struct lgr_fold_bn_in *in, int64_t o)
{
    return lgr_fold_at(in->gamma, o, 1.0) / sqrt((double)in->var[o] + p->eps);
}
LGR_INLINE float lgr_fold_weight(float w, double f) { return (float)((double)w * f); }
LGR_INLINE float lgr_fold_bias(const struct lgr_fold_bn_in *in, int64_t o, double f)
{
    return (float)((lgr_fold_at(in->bias, o, 0.0) - (double)in->mean[o]) * f +
                   lgr_fold_at(in->beta, o, 0.0));
}

/* Backward: gf starts as the bias' part of the gradient of f; every weight adds to it. */
typedef struct lgr_fold_back {
    double gamma, inv, f, gb, gf;
} lgr_fold_back;
LGR_INLINE lgr_fold_back lgr_fold_back_begin(const struct lgr_fold_bn_params *p,
                                             const struct lgr_fold_bn_in *in,
                                             const struct lgr_fold_bn_grad *g, int64_t o)
{
    lgr_fold_back b;
    b.gamma = lgr_fold_at(in->gamma, o, 1.0);
    b.inv = 1.0 / sqrt((double)in->var[o] + p->eps);
    b.f = b.gamma * b.inv;
    b.gb = lgr_fold_bit(g->b_mask, o) ? (double)g->gb[o] : 0.0;
    b.gf = b.gb * (lgr_fold_at(in->bias, o, 0.0) - (double)in->mean[o]);
    return b;
}
LGR_INLINE double lgr_fold_back_weight(const lgr_fold_back *b, const struct lgr_fold_bn_in *in,
                                       const struct lgr_fold_bn_grad *g, int64_t k)
{
    const double gw = lgr_fold_bit(g->w_mask, k) ? (double)g->gw[k] : 0.0;
    if (g->w) g->w[k] = (float)(gw * b->f);
    return gw * (double)in->w[k];
}
LGR_INLINE void lgr_fold_back_end(const lgr_fold_back *b, const struct lgr_fold_bn_grad *g,
                                  int64_t o)
{
    if (g->bias) g->bias[o] = (float)(b->gb * b->f);
    if (g->gamma) g->gamma[o] = (float)(b->gf * b->inv);
    if (g->beta) g->beta[o] = (float)b->gb;
    if (g->mean) g->mean[o] = (float)(-b->gb * b->f);
    if (g->var) g->var[o] = (float)(-0.5 * b->gf * b->gamma * b->inv * b->inv * b->inv);
}
#endif
