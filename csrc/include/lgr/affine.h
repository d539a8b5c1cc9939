/* affine.h - a quantized tensor times one number plus another. Source: docs/numerics.md, "A number added". */
#ifndef LGR_AFFINE_H
#define LGR_AFFINE_H
#include "lgr/epilogue.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LGR_AFFINE_BIAS (1 << 30) /* keeps x * w + b inside 32 bits */

/* Code of the addend `b` at exponent `exp2`: rounded half to even, saturated at +-LGR_AFFINE_BIAS; 0 for NaN. */
int32_t lgr_affine_bias(float b, int32_t exp2);

/**
 * A = x * w + b, exact; the rest is the epilogue's.
 *
 * @param[in] x      int8 codes from element `at` on.
 * @param[in] n      Elements of this call.
 * @param[in] at     First element of this call among `total`; a multiple of 16.
 * @param[in] w, b   -128..127 and +-LGR_AFFINE_BIAS.
 * @param[out] out   Results of all `total` elements, one row; acc and code16 are not used.
 * @param[in,out] amax  {max(A), max(-A)} so far.
 * @return LGR_OK; LGR_E_RANGE for a count, w or b; LGR_E_NULL.
 */
lgr_status lgr_affine(const int8_t *x, int64_t n, int64_t at, int64_t total, int32_t w, int32_t b,
                      const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2]);

#ifdef __cplusplus
}
#endif
#endif
