/* activation.h - chip functions on codes: any scale in, the output quantizer behind. Source: docs/numerics.md, "Sigmoid and tanh". */
#ifndef LGR_ACTIVATION_H
#define LGR_ACTIVATION_H
#include "lgr/chip_functions.h"
#include "lgr/epilogue.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x in the exponent `fixed`: x * 2^(fixed - exp2) saturated to `bits`, rounded half up where that is a right shift. */
LGR_INLINE int32_t lgr_to_fixed(int32_t x, int32_t exp2, int fixed, int bits)
{
    return (int32_t)lgr_sat(lgr_shift_s64(x, exp2 - fixed), bits);
}

/**
 * A = f(to_fixed(x)), the table's function with a result of `width` bits; the rest is the epilogue's.
 *
 * @param[in] table   enum lgr_table; the operand is brought to Q27 (venus: Q11).
 * @param[in] width   As lgr_chip_function takes it.
 * @param[in] x       Codes from element `at` on, int8 (bytes = 1) or int32 (bytes = 4), in exponent exp2.
 * @param[in] n       Elements of this call.
 * @param[in] at      First element of this call among `total`; a multiple of 16.
 * @param[out] out    Results of all `total` elements, one row; acc and code16 are allowed.
 * @param[in,out] amax  {max(A), max(-A)} so far.
 * @return LGR_OK; LGR_E_RANGE for a count, a width or `bytes`; LGR_E_NULL.
 */
lgr_status lgr_activation(int table, int width, const void *x, int32_t bytes, int32_t exp2,
                          int64_t n, int64_t at, int64_t total, const lgr_epilogue *ep,
                          const lgr_outputs *out, int64_t amax[2]);

/**
 * dx = g * f'(x / 2^exp2), f the exact function that `table` stands for, f' in float64 and rounded once to float32
 *
 * @param[in] g  [n] float32.   @param[in] x  [n] codes, as above.   @param[out] dx  [n]; may be g itself.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL. exp2 = LGR_EXP2_NAN: dx = 0.
 */
lgr_status lgr_activation_grad(int table, const float *g, const void *x, int32_t bytes,
                               int32_t exp2, int64_t n, float *dx);

/* f and f' of a table's exact function. */
double lgr_activation_value(int table, double x);
double lgr_activation_slope(int table, double x);

#ifdef __cplusplus
}
#endif
#endif
