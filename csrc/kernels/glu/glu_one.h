/* glu_one.h - the gate of one code and the product, for C and CUDA. */
#ifndef LGR_GLU_ONE_H
#define LGR_GLU_ONE_H
#include "kernels/activation/activation_one.h"
#include "lgr/glu.h"

LGR_INLINE int lgr_glu_table(int chip)
{
    return chip == LGR_ARCS     ? LGR_ARCS_SIGMOID
           : chip == LGR_VENUSA ? LGR_VENUSA_SIGMOID
                                : LGR_VENUS_SIGMOID;
}
/* p: the table above. */
LGR_INLINE int32_t lgr_glu_gate(int chip, const lgr_pwl *p, int32_t code, int32_t exp2)
{
    const int32_t y =
        lgr_pwl_bits_one(p, chip == LGR_VENUS ? 8 : 32, lgr_table_operand(p, code, exp2));
    return chip == LGR_VENUSA ? lgr_rsh_s32(y, 16) : y;
}
LGR_INLINE int64_t lgr_glu_product(int32_t a, int left, int32_t gate)
{
    return (int64_t)lgr_sat_s32((int64_t)a * ((int64_t)1 << left)) * gate;
}
/* a * 2^-exp2 in float32: the factor of the gate's gradient. */
LGR_INLINE float lgr_glu_value(int32_t a, double one) { return (float)(a * one); }
#endif
