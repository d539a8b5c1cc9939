/* activation_one.h - the exact functions behind the tables and their derivatives, for C and CUDA. */
#ifndef LGR_ACTIVATION_ONE_H
#define LGR_ACTIVATION_ONE_H
#include "kernels/chip_functions/chip_functions_one.h"
#include "lgr/activation.h"

/* A code brought to the format of a table. */
LGR_INLINE int32_t lgr_table_operand(const lgr_pwl *p, int32_t code, int32_t exp2)
{
    const int venus = p->bits == 16;
    return lgr_to_fixed(code, exp2, venus ? 11 : 27, venus ? 16 : 32);
}

LGR_INLINE int lgr_function_of(int table) /* 0 sigmoid, 1 tanh, 2 GELU, 3 swish */
{
    return table >= LGR_VENUSA_GELU ? table - LGR_VENUSA_GELU + 2 : table & 1;
}
LGR_INLINE double lgr_activation_value_one(int table, double x)
{
    switch (lgr_function_of(table)) {
    case 0: return 1.0 / (1.0 + exp(-x));
    case 1: return tanh(x);
    case 2: return 0.5 * x * (1.0 + erf(x * 0.70710678118654752440));
    default: return x / (1.0 + exp(-x));
    }
}
LGR_INLINE double lgr_activation_slope_one(int table, double x)
{
    const double s = 1.0 / (1.0 + exp(-x)), t = tanh(x);
    switch (lgr_function_of(table)) {
    case 0: return s * (1.0 - s);
    case 1: return 1.0 - t * t;
    case 2:
        return 0.5 * (1.0 + erf(x * 0.70710678118654752440)) +
               x * 0.39894228040143267794 * exp(-0.5 * x * x);
    default: return s * (1.0 + x * (1.0 - s));
    }
}
#endif
