/* div.h - quotients of 32-bit codes by the accelerator's divider. Source: docs/numerics.md, "Divide". */
#ifndef LGR_DIV_H
#define LGR_DIV_H
#include "lgr/avg_pool.h" /* lgr_make_divider */

#ifdef __cplusplus
extern "C" {
#endif

/**
 * quotient = sat_32(floor(x * R * 2^shift / 2^(29 + e) + 1/2)), R / 2^(29 + e) the Newton-Raphson reciprocal of |y|, x with
 * the sign of x / y. A divisor of 0, undefined on the chips, counts as the smallest positive one: the quotient saturates.
 *
 * @param[in]  x, y      [n] codes.
 * @param[in]  shift     0..62.
 * @param[out] quotient  [n]; may be x or y.
 * @return LGR_OK; LGR_E_RANGE for n or shift; LGR_E_NULL.
 */
lgr_status lgr_div_s32(const int32_t *x, const int32_t *y, int64_t n, int32_t shift,
                       int32_t *quotient);

#ifdef __cplusplus
}
#endif
#endif
