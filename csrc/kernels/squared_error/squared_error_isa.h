/* squared_error_isa.h - one signature for every twin: one block of at most LGR_ERROR_BLOCK elements at one exponent. */
#ifndef LGR_SQUARED_ERROR_ISA_H
#define LGR_SQUARED_ERROR_ISA_H
#include "kernels/quantize/quantize_one.h"
#include "lgr/squared_error.h"

typedef double lgr_squared_error_fn(const float *x, int64_t n, const struct lgr_quantize_consts *c);
lgr_squared_error_fn lgr_squared_error_f32_ref, lgr_squared_error_f32_avx2;
#endif
