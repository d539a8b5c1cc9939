/* cat.h - the common scale of concatenated tensors. Inline: C and CUDA compile the same text. Source: docs/numerics.md, "iqCat". */
#ifndef LGR_CAT_H
#define LGR_CAT_H
#include "lgr/observe.h"

typedef struct lgr_cat_params {
    int32_t bits; /* 2..32 */
    int32_t left; /* the result is at most so many bits finer than the coarsest operand, 0..63 */
    int32_t
        widest; /* the result takes the finest scale of the operands, whatever the statistics say */
    int32_t observe; /* move the statistics; not for an empty result */
} lgr_cat_params;

/* What the operands are. */
typedef struct lgr_cat_operands {
    int32_t low, high; /* exponents of the coarsest and of the finest */
    int32_t nan; /* a scale is NaN */
    float peak; /* largest |x| in real units; read where lgr_cat_needs_peak */
} lgr_cat_operands;

LGR_INLINE int32_t lgr_cat_cap(const lgr_cat_params *p, const lgr_cat_operands *in)
{
    const int32_t reach = in->nan ? 0 : in->low + p->left;
    return in->nan || p->widest || reach > LGR_EXP2_MAX ? LGR_EXP2_MAX : reach;
}
/* The data itself is looked at when statistics move, or nothing is known yet. */
LGR_INLINE int lgr_cat_needs_peak(const lgr_stats *s, const lgr_cat_params *p,
                                  const lgr_cat_operands *in)
{
    if (in->nan || s->threshold) return 0;
    return p->observe || lgr_stats_guess(s, p->bits, lgr_cat_cap(p, in)) == LGR_EXP2_NONE;
}
/* The exponent of the result, the statistics moved; *moves: 1 where a threshold decided it, else 0. */
LGR_INLINE int32_t lgr_cat_step(const lgr_stats *s, const lgr_cat_params *p,
                                const lgr_cat_operands *in, float *moves)
{
    const int32_t cap = lgr_cat_cap(p, in);
    const float peak = in->nan                        ? lgr_exp2_scale(LGR_EXP2_NAN)
                       : lgr_cat_needs_peak(s, p, in) ? in->peak
                                                      : 0.0f;
    int32_t now = lgr_stats_step(s, p->bits, cap, p->observe, peak);
    if (p->widest && now != LGR_EXP2_NAN) {
        now = in->high;
        if (p->observe && peak < INFINITY) *s->scale = lgr_exp2_scale(now);
    }
    const int follows =
        s->threshold && !p->widest && lgr_threshold_moves(*s->threshold, p->bits, cap);
    *moves = follows ? 1.0f : 0.0f;
    return now;
}
#endif
