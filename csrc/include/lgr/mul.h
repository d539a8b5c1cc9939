/* mul.h - element-wise product of two quantized tensors. Source: docs/numerics.md, "iqMul". */
#ifndef LGR_MUL_H
#define LGR_MUL_H
#include "lgr/epilogue.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A = x * y, exact in 64 bits; the rest is the epilogue's.
 *
 * @param[in] x, y    Codes from element `at` on, int8 (bytes = 1) or int32 (bytes = 4).
 * @param[in] n       Elements of this call.
 * @param[in] at      First element of this call among `total`; a multiple of 16.
 * @param[out] out    Results of all `total` elements, one row; acc and code16 are not used.
 * @param[in,out] amax  {max(A), max(-A)} so far.
 * @return LGR_OK; LGR_E_RANGE for a count or `bytes`; LGR_E_NULL.
 */
lgr_status lgr_mul(const void *x, const void *y, int32_t bytes, int64_t n, int64_t at,
                   int64_t total, const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2]);

#ifdef __cplusplus
}
#endif
#endif
