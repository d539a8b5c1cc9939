/* add_isa.h - the twin for int8 operands, at most 8 bits and half-up rounding. */
#ifndef LGR_ADD_ISA_H
#define LGR_ADD_ISA_H
#include "kernels/add/add_one.h"

/* Does a multiple of 16 elements and returns how many. With range or slope up_x and up_y are at
 * most 23 (a sum fits 32 bits) and the exponents are near 0. */
int64_t lgr_add_s8_avx2(const int8_t *x, const int8_t *y, int64_t n, const struct lgr_add_consts *c,
                        const struct lgr_quantize_out *out, lgr_range *range);
#endif
