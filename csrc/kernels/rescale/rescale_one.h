/* rescale_one.h - the formula of one code, and the common scale of concatenated tensors, for C and CUDA. */
#ifndef LGR_RESCALE_ONE_H
#define LGR_RESCALE_ONE_H
#include "lgr/observe.h"
#include "lgr/rescale.h"

struct lgr_rescaled {
    int64_t code;
    float value, slope;
    unsigned pass;
};

LGR_INLINE struct lgr_rescaled lgr_rescale_one(int64_t x, const struct lgr_rescale_params *p)
{
    const int64_t t = lgr_shift_mode_s64(x, p->exp2_x - p->exp2, p->rounding);
    struct lgr_rescaled e;
    e.code = lgr_sat(t, p->bits);
    e.value = (float)e.code * lgr_exp2_scale(-p->exp2);
    e.pass = e.code == t;
    e.slope = e.pass ? (float)((double)e.code - (double)x * lgr_exp2_f64(p->exp2 - p->exp2_x))
                     : (float)e.code;
    return e;
}
#endif
