/* add_isa.h - constants of one call, and the twin for int8 operands, at most 8 bits and half-up rounding. */
#ifndef LGR_ADD_ISA_H
#define LGR_ADD_ISA_H
#include "lgr/add.h"

struct lgr_add_consts {
    int32_t shift_x, shift_y;
    int64_t sat_lo, sat_hi; /* of a rounded operand, and the range in which the slope is code - v */
    int64_t lo, hi, pass_lo; /* of the sum; lowest sum whose gradient passes */
    int64_t keep_lo, keep_hi; /* outside, clamp or ReLU cut: slope 0 */
    float inv_x, inv_y, mul, inv; /* inv_y has the sign */
    int32_t up_x, up_y; /* the exact sum is (x * 2^up_x + sign * y * 2^up_y) * unit */
    float unit;
    int sign; /* of y: 1 or -1 */
    int rounding, slope_on, stream;
};

/* Does a multiple of 16 elements and returns how many. With range or slope up_x and up_y are at
 * most 23 (a sum fits 32 bits) and the exponents are near 0. */
int64_t lgr_add_s8_avx2(const int8_t *x, const int8_t *y, int64_t n, const struct lgr_add_consts *c,
                        const struct lgr_quantize_out *out, lgr_range *range);
#endif
