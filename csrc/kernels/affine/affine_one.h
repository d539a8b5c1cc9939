/* affine_one.h - the formula of affine.h's addend, for C and CUDA. */
#ifndef LGR_AFFINE_ONE_H
#define LGR_AFFINE_ONE_H
#include "lgr/affine.h"

LGR_INLINE int32_t lgr_affine_bias_one(float b, int32_t exp2)
{
    if (b != b || exp2 == LGR_EXP2_NAN) return 0;
    const double code = rint(ldexp((double)b, exp2));
    if (code >= LGR_AFFINE_BIAS) return LGR_AFFINE_BIAS;
    return code <= -LGR_AFFINE_BIAS ? -LGR_AFFINE_BIAS : (int32_t)code;
}
#endif
