/* relu_one.h - the formula of one code, for C and CUDA. */
#ifndef LGR_RELU_ONE_H
#define LGR_RELU_ONE_H
#include "lgr/relu.h"

/* The upper limit as a code, INT32_MAX + 1 for none; 0 for a NaN scale. */
LGR_INLINE int64_t lgr_relu_limit(double high, int32_t exp2)
{
    const double limit = exp2 == LGR_EXP2_NAN ? 0.0 : floor(high * lgr_exp2_f64(exp2));
    const int64_t none = (int64_t)INT32_MAX + 1;
    return limit < (double)none ? (int64_t)limit : none;
}
LGR_INLINE int32_t lgr_relu_code(int32_t v, int64_t high)
{
    return v < 0 ? 0 : v > high ? (int32_t)high : v;
}
LGR_INLINE int lgr_relu_passes(int32_t v, int64_t high) { return v > 0 && v < high; }
#endif
